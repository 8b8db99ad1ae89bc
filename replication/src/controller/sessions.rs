//! When each broker was last heard, and how far it is. Soft: every new controller starts from nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use storage::instant::Instant;

use crate::identity::BrokerId;
use crate::metadata::MetadataRecord;

#[derive(Clone, Copy)]
struct Session {
    last_contact: Instant,
    /// The broker has applied the metadata up to this entry.
    metadata_index: u64,
    /// Index of the entry that began its controlled shutdown.
    shutdown_index: Option<u64>,
}

pub(super) struct Sessions {
    timeout: Duration,
    /// Counts as the last contact of those not heard since.
    active_since: Instant,
    sessions: BTreeMap<BrokerId, Session>,
}

impl Sessions {
    pub(super) fn new(timeout: Duration, now: Instant) -> Sessions {
        Sessions { timeout, active_since: now, sessions: BTreeMap::new() }
    }

    fn entry(&mut self, broker_id: BrokerId) -> &mut Session {
        let last_contact = self.active_since;
        self.sessions.entry(broker_id).or_insert(Session {
            last_contact,
            metadata_index: 0,
            shutdown_index: None,
        })
    }

    pub(super) fn note_contact(&mut self, broker_id: BrokerId, metadata_index: u64, now: Instant) {
        let session = self.entry(broker_id);
        session.last_contact = session.last_contact.max(now);
        session.metadata_index = session.metadata_index.max(metadata_index);
    }

    pub(super) fn handle_replayed(&mut self, index: u64, records: &[MetadataRecord]) {
        for record in records {
            match record {
                // A new process: what the old one had applied says nothing about it.
                MetadataRecord::RegisterBroker(record) => {
                    let session = self.entry(record.broker_id);
                    session.metadata_index = 0;
                    session.shutdown_index = None;
                }
                MetadataRecord::UnregisterBroker { broker_id, .. } => {
                    self.sessions.remove(broker_id);
                }
                MetadataRecord::BrokerRegistrationChange(record)
                    if record.is_in_controlled_shutdown == Some(true) =>
                {
                    self.entry(record.broker_id).shutdown_index = Some(index);
                }
                _ => {}
            }
        }
    }

    /// When the session ends; later contact moves it.
    pub(super) fn ends_at(&self, broker_id: BrokerId) -> Instant {
        let session = self.sessions.get(&broker_id);
        session.map_or(self.active_since, |s| s.last_contact).plus(self.timeout)
    }

    pub(super) fn is_live(&self, broker_id: BrokerId, now: Instant) -> bool {
        now < self.ends_at(broker_id)
    }

    /// What the broker has applied; 0 if it has not said.
    pub(super) fn metadata_index(&self, broker_id: BrokerId) -> u64 {
        self.sessions.get(&broker_id).map_or(0, |session| session.metadata_index)
    }

    /// The entry that began its controlled shutdown, if this controller wrote it. Another one's entry was
    /// committed before this controller became active; 0 stands for it.
    pub(super) fn shutdown_index(&self, broker_id: BrokerId) -> u64 {
        self.sessions.get(&broker_id).and_then(|session| session.shutdown_index).unwrap_or(0)
    }
}
