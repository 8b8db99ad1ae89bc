//! Brokers come and go: registration, heartbeats, fencing, controlled shutdown (kafka-facts 5.9, DESIGN D1;
//! Kafka's `ClusterControlManager` and `BrokerHeartbeatManager`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use storage::instant::Instant;

use super::leader_election::PartitionEvent;
use super::{Controller, ControllerResult, DecisionContext};
use crate::identity::{BrokerEpoch, BrokerId, ClusterId, DirectoryId, IncarnationId};
use crate::metadata::record::{BrokerRegistrationChangeRecord, RegisterBrokerRecord};
use crate::metadata::{BrokerListener, BrokerRegistration, FeatureRange, MetadataRecord};

/// A broker's process asks for its seat.
#[derive(Clone, Debug)]
pub struct RegisterBroker {
    /// The cluster it believes to be in.
    pub cluster_id: ClusterId,
    /// Its `node.id`.
    pub broker_id: BrokerId,
    /// This process.
    pub incarnation_id: IncarnationId,
    /// Its log directory, whose lock it holds.
    pub directory_id: DirectoryId,
    /// From the clean-shutdown file of its last run; `None` after an unclean stop, or before the first run.
    pub previous_broker_epoch: Option<BrokerEpoch>,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// Advertised addresses.
    pub listeners: Vec<BrokerListener>,
    /// Features that it can run.
    pub features: BTreeMap<Arc<str>, FeatureRange>,
    /// Register and unfence in one entry. Only where the broker and the active controller are one process
    /// **and** this node is the quorum's only member.
    ///
    /// A broker starts fenced so that it serves nothing before it has applied its own registration and what
    /// came with it, which its heartbeats prove. In one process the commit that unfences the broker is the one
    /// that it applies, there is no other node to whom it could show an older state, and so the proof is
    /// empty. What it saves is an entry, an fsync, and a second leader epoch at each start. Ignored while another
    /// broker is active.
    pub unfence_at_once: bool,
}

/// Answer to [`RegisterBroker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistered {
    /// `None`: the index of the entry that carries the records. `Some`: this very process is registered
    /// already, there are no records.
    pub broker_epoch: Option<BrokerEpoch>,
    /// Whether it still has to be unfenced by a heartbeat.
    pub is_fenced: bool,
}

impl BrokerRegistered {
    /// The broker epoch, given the index of the entry that carried the records.
    pub fn broker_epoch_at(&self, index: u64) -> BrokerEpoch {
        self.broker_epoch.unwrap_or_else(|| BrokerEpoch::from_index(index))
    }
}

/// Why a broker gets no seat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterBrokerError {
    /// It belongs to another cluster (INCONSISTENT_CLUSTER_ID).
    #[error("broker belongs to cluster {found}, this is {expected}")]
    InconsistentClusterId {
        /// The broker's.
        found: ClusterId,
        /// Ours.
        expected: ClusterId,
    },
    /// Another process with the same id, on another directory, was heard a moment ago
    /// (DUPLICATE_BROKER_REGISTRATION).
    #[error(
        "node.id {broker_id} is taken by a running broker on another data directory ({directory_id}): \
         choose another node.id or stop that broker"
    )]
    DuplicateRegistration {
        /// The id.
        broker_id: BrokerId,
        /// The running broker's directory.
        directory_id: DirectoryId,
    },
    /// It cannot run what the cluster has finalized (UNSUPPORTED_VERSION).
    #[error(
        "the cluster runs feature {name} at level {level}, the broker supports {}",
        .supported.map_or("none".to_owned(), |r| format!("{} to {}", r.min, r.max))
    )]
    UnsupportedFeature {
        /// The feature.
        name: Arc<str>,
        /// The finalized level.
        level: i16,
        /// What the broker can run.
        supported: Option<FeatureRange>,
    },
    /// Its listeners are none, or two of one name (INVALID_REQUEST).
    #[error("broker registers no listener, or two of the same name")]
    InvalidListeners,
}

/// A broker's sign of life.
#[derive(Clone, Copy, Debug)]
pub struct BrokerHeartbeat {
    /// The broker.
    pub broker_id: BrokerId,
    /// Its epoch.
    pub broker_epoch: BrokerEpoch,
    /// It has applied the metadata up to this entry.
    pub metadata_index: u64,
    /// It asks to be (or stay) fenced.
    pub wants_fence: bool,
    /// It asks to leave.
    pub wants_shut_down: bool,
}

/// Answer to [`BrokerHeartbeat`], true once the records are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerHeartbeatResponse {
    /// Whether it has applied its own registration.
    pub is_caught_up: bool,
    /// Whether it is fenced.
    pub is_fenced: bool,
    /// Whether it may stop now: it leads nothing, and all active brokers know.
    pub should_shut_down: bool,
}

/// The sender is not the broker's current registration (STALE_BROKER_EPOCH); it must register again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broker {broker_id} sent epoch {found}, its registration is {}",
    .current.map_or("gone".to_owned(), |epoch| epoch.to_string()))]
pub struct StaleBrokerEpoch {
    /// The broker.
    pub broker_id: BrokerId,
    /// What it sent.
    pub found: BrokerEpoch,
    /// What is registered.
    pub current: Option<BrokerEpoch>,
}

/// Why a broker is not unregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnregisterBrokerError {
    /// There is none (BROKER_ID_NOT_REGISTERED).
    #[error("broker {0} is not registered")]
    NotRegistered(BrokerId),
}

impl Controller {
    /// Gives a broker's process its seat and ends the earlier process's: all its ISR seats and leaderships go
    /// in the same entry.
    ///
    /// The same directory proves the earlier process dead, because it held the directory's lock. The broker's
    /// epoch is the index of the entry. The first registration of all also brings the cluster's first records
    /// (finalized features, default min ISR). Call [`Controller::note_contact`] too.
    ///
    /// # Errors
    /// See [`RegisterBrokerError`].
    pub fn register_broker(
        &self,
        context: &DecisionContext,
        request: &RegisterBroker,
    ) -> Result<ControllerResult<BrokerRegistered>, RegisterBrokerError> {
        let broker_id = request.broker_id;
        self.check_registration(request)?;
        let old = self.image.broker(broker_id);
        if let Some(old) = old
            && old.directory_id != request.directory_id
            && self.sessions.is_live(broker_id, context.now)
        {
            let directory_id = old.directory_id;
            return Err(RegisterBrokerError::DuplicateRegistration { broker_id, directory_id });
        }
        let is_alone = self.image.brokers().all(|b| b.broker_id == broker_id || !b.is_active());
        let is_fenced = !(request.unfence_at_once && is_alone);
        if let Some(old) = old
            && is_retry(old, request)
            && (is_fenced || !old.is_fenced)
        {
            return Ok(ControllerResult::unchanged(BrokerRegistered {
                broker_epoch: Some(old.broker_epoch),
                is_fenced: old.is_fenced,
            }));
        }

        let stopped_cleanly = old.is_some_and(|old| {
            old.incarnation_id == request.incarnation_id
                || request.previous_broker_epoch == Some(old.broker_epoch)
        });
        let mut records = self.first_records();
        records.push(MetadataRecord::RegisterBroker(RegisterBrokerRecord {
            broker_id,
            broker_epoch: None,
            incarnation_id: request.incarnation_id,
            directory_id: request.directory_id,
            is_fenced,
            is_in_controlled_shutdown: false,
            rack: request.rack.clone(),
            listeners: request.listeners.clone(),
            features: request.features.clone(),
        }));
        records.extend(self.settle_partitions(
            |partition| {
                partition.has_replica(broker_id).then(|| PartitionEvent {
                    isr: Some(
                        partition.isr.iter().copied().filter(|&id| id != broker_id).collect(),
                    ),
                    stopped_uncleanly: (!stopped_cleanly).then_some(broker_id),
                    directory: Some((broker_id, request.directory_id)),
                    recovery_state: None,
                })
            },
            |id| match id == broker_id {
                true => (!is_fenced).then_some(request.directory_id),
                false => self.active_directory(id),
            },
        ));
        Ok(ControllerResult {
            records,
            response: BrokerRegistered { broker_epoch: None, is_fenced },
        })
    }

    fn check_registration(&self, request: &RegisterBroker) -> Result<(), RegisterBrokerError> {
        let expected = self.image.cluster_id();
        if request.cluster_id != *expected {
            let (found, expected) = (request.cluster_id.clone(), expected.clone());
            return Err(RegisterBrokerError::InconsistentClusterId { found, expected });
        }
        let names: BTreeSet<_> = request.listeners.iter().map(|listener| &listener.name).collect();
        if names.is_empty() || names.len() < request.listeners.len() {
            return Err(RegisterBrokerError::InvalidListeners);
        }
        for (name, &level) in self.image.features() {
            let supported = request.features.get(name).copied();
            if !supported.is_some_and(|range| (range.min..=range.max).contains(&level)) {
                let name = Arc::clone(name);
                return Err(RegisterBrokerError::UnsupportedFeature { name, level, supported });
            }
        }
        Ok(())
    }

    /// Notes that a broker was heard, and what it has applied (0 if it did not say). Call it with every
    /// accepted heartbeat and registration, before deciding.
    pub fn note_contact(&mut self, broker_id: BrokerId, metadata_index: u64, now: Instant) {
        self.sessions.note_contact(broker_id, metadata_index, now);
    }

    /// Moves a broker between fenced, unfenced and controlled shutdown, as it asks.
    ///
    /// # Errors
    /// The sender must register again.
    pub fn broker_heartbeat(
        &self,
        request: &BrokerHeartbeat,
    ) -> Result<ControllerResult<BrokerHeartbeatResponse>, StaleBrokerEpoch> {
        let broker = self.check_broker_epoch(request.broker_id, request.broker_epoch)?;
        let is_caught_up = request.metadata_index >= request.broker_epoch.index();
        let response = |is_fenced, should_shut_down| BrokerHeartbeatResponse {
            is_caught_up,
            is_fenced,
            should_shut_down,
        };
        if broker.is_fenced {
            if request.wants_shut_down || request.wants_fence || !is_caught_up {
                return Ok(ControllerResult::unchanged(response(true, request.wants_shut_down)));
            }
            let records = self.change_activity(broker, Some(false), Some(false));
            return Ok(ControllerResult { records, response: response(false, false) });
        }
        if request.wants_fence {
            let records = self.change_activity(broker, Some(true), None);
            return Ok(ControllerResult {
                records,
                response: response(true, request.wants_shut_down),
            });
        }
        if broker.is_in_controlled_shutdown {
            let knows = |other: &BrokerRegistration| {
                let index = self.sessions.metadata_index(other.broker_id);
                index >= self.sessions.shutdown_index(request.broker_id)
            };
            let all_know = self.image.brokers().filter(|other| other.is_active()).all(knows);
            return Ok(ControllerResult::unchanged(response(false, all_know)));
        }
        if request.wants_shut_down {
            let records = self.change_activity(broker, None, Some(true));
            let others = self.image.brokers().filter(|b| b.broker_id != request.broker_id);
            // Whoever else is active has not seen this entry yet: the next heartbeat will tell.
            let is_last = others.filter(|other| other.is_active()).count() == 0;
            return Ok(ControllerResult { records, response: response(false, is_last) });
        }
        Ok(ControllerResult::unchanged(response(false, false)))
    }

    /// Fences the brokers that were silent for a whole session, and names them.
    pub fn expire_sessions(&self, context: &DecisionContext) -> ControllerResult<Vec<BrokerId>> {
        let silent = |broker: &&BrokerRegistration| {
            !broker.is_fenced && !self.sessions.is_live(broker.broker_id, context.now)
        };
        let expired: Vec<BrokerId> =
            self.image.brokers().filter(silent).map(|broker| broker.broker_id).collect();
        ControllerResult { records: self.fence(&expired), response: expired }
    }

    /// When [`Controller::expire_sessions`] may next have something to do.
    pub fn next_session_end(&self) -> Option<Instant> {
        let unfenced = self.image.brokers().filter(|broker| !broker.is_fenced);
        unfenced.map(|broker| self.sessions.ends_at(broker.broker_id)).min()
    }

    /// Fences one broker that is known to be dead.
    ///
    /// # Errors
    /// It has registered again meanwhile.
    pub fn fence_broker(
        &self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Result<ControllerResult<()>, StaleBrokerEpoch> {
        let broker = self.check_broker_epoch(broker_id, broker_epoch)?;
        let records = if broker.is_fenced { Vec::new() } else { self.fence(&[broker_id]) };
        Ok(ControllerResult { records, response: () })
    }

    /// Forgets a broker for good: it loses every seat but that of a last known leader, so that a mistake can be
    /// repaired by starting it again.
    ///
    /// # Errors
    /// See [`UnregisterBrokerError`].
    pub fn unregister_broker(
        &self,
        broker_id: BrokerId,
    ) -> Result<ControllerResult<()>, UnregisterBrokerError> {
        let broker = self.image.broker(broker_id);
        let broker = broker.ok_or(UnregisterBrokerError::NotRegistered(broker_id))?;
        let broker_epoch = broker.broker_epoch;
        let mut records = vec![MetadataRecord::UnregisterBroker { broker_id, broker_epoch }];
        records.extend(self.settle_partitions(
            |partition| {
                partition.has_replica(broker_id).then(|| PartitionEvent {
                    stopped_uncleanly: Some(broker_id),
                    ..PartitionEvent::default()
                })
            },
            |id| if id == broker_id { None } else { self.active_directory(id) },
        ));
        Ok(ControllerResult { records, response: () })
    }

    /// The registration of `broker_id`, if `broker_epoch` is its epoch.
    pub(super) fn check_broker_epoch(
        &self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Result<&BrokerRegistration, StaleBrokerEpoch> {
        let broker = self.image.broker(broker_id);
        broker.filter(|broker| broker.broker_epoch == broker_epoch).ok_or(StaleBrokerEpoch {
            broker_id,
            found: broker_epoch,
            current: broker.map(|broker| broker.broker_epoch),
        })
    }

    /// Fences all of `brokers` in one step: if several leave an ISR together, the one that led is its last
    /// known leader.
    fn fence(&self, brokers: &[BrokerId]) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for broker in brokers.iter().filter_map(|&broker_id| self.image.broker(broker_id)) {
            records.push(registration_change(broker, Some(true), None));
        }
        if records.is_empty() {
            return records;
        }
        let is_affected = |id| brokers.contains(&id);
        records.extend(self.settle_partitions(
            |p| p.isr.iter().any(|&id| is_affected(id)).then(PartitionEvent::default),
            |id| if is_affected(id) { None } else { self.active_directory(id) },
        ));
        records
    }

    /// One broker becomes active, or stops being so.
    fn change_activity(
        &self,
        broker: &BrokerRegistration,
        is_fenced: Option<bool>,
        is_in_controlled_shutdown: Option<bool>,
    ) -> Vec<MetadataRecord> {
        let broker_id = broker.broker_id;
        let becomes_active = is_fenced == Some(false);
        let mut records = vec![registration_change(broker, is_fenced, is_in_controlled_shutdown)];
        records.extend(self.settle_partitions(
            |partition| partition.has_replica(broker_id).then(PartitionEvent::default),
            |id| match id == broker_id {
                true => becomes_active.then_some(broker.directory_id),
                false => self.active_directory(id),
            },
        ));
        records
    }
}

/// Whether `request` is the one that made `old`, sent again.
fn is_retry(old: &BrokerRegistration, request: &RegisterBroker) -> bool {
    old.incarnation_id == request.incarnation_id
        && old.directory_id == request.directory_id
        && old.rack == request.rack
        && old.listeners == request.listeners
        && old.features == request.features
}

fn registration_change(
    broker: &BrokerRegistration,
    is_fenced: Option<bool>,
    is_in_controlled_shutdown: Option<bool>,
) -> MetadataRecord {
    MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChangeRecord {
        broker_id: broker.broker_id,
        broker_epoch: broker.broker_epoch,
        is_fenced: is_fenced.filter(|&to| to != broker.is_fenced),
        is_in_controlled_shutdown: is_in_controlled_shutdown
            .filter(|&to| to != broker.is_in_controlled_shutdown),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::{SESSION, TestCluster, broker, brokers};
    use crate::metadata::{LeaderRecoveryState, MIN_INSYNC_REPLICAS};

    #[test]
    fn the_first_registration_brings_the_clusters_first_records() {
        let mut cluster = TestCluster::with(|config| config.min_insync_replicas = 2);
        let epoch = cluster.register(1, false);
        assert_eq!(epoch, BrokerEpoch::from_index(2), "the index of its entry");
        let image = cluster.image().clone();
        assert_eq!(image.cluster_configs().get(MIN_INSYNC_REPLICAS).map(|v| &**v), Some("2"));
        assert_eq!(image.features().get("eligible.leader.replicas.version"), Some(&1));
        cluster.register(2, false);
        assert_eq!(cluster.image().cluster_configs(), image.cluster_configs());
    }

    #[test]
    fn a_broker_is_unfenced_once_it_has_applied_its_own_registration() {
        let mut cluster = TestCluster::new();
        let epoch = cluster.register(1, false);
        let late = BrokerHeartbeat { metadata_index: epoch.index() - 1, ..cluster.heartbeat(1) };
        let response = cluster.beat(late);
        assert!(response.is_fenced && !response.is_caught_up);
        let response = cluster.beat(BrokerHeartbeat { metadata_index: epoch.index(), ..late });
        assert!(!response.is_fenced && response.is_caught_up);
        assert!(cluster.image().is_active(broker(1)));
    }

    #[test]
    fn a_lone_broker_registers_unfences_and_leads_again_in_one_entry() {
        let mut cluster = TestCluster::new();
        let mut request = cluster.registration(1, false);
        request.unfence_at_once = true;
        cluster.register_with(&request).unwrap();
        assert!(cluster.image().is_active(broker(1)));
        let topic_id = cluster.create("t", &[1], &[]);
        for (clean, state) in
            [(true, LeaderRecoveryState::Recovered), (false, LeaderRecoveryState::Recovering)]
        {
            let before = cluster.partition(topic_id);
            let (index, mut request) =
                (cluster.image().position().index, cluster.registration(1, clean));
            request.unfence_at_once = true;
            cluster.register_with(&request).unwrap();
            assert_eq!(cluster.image().position().index, index + 1);
            let after = cluster.partition(topic_id);
            assert_eq!((after.leader, &after.isr), (Some(broker(1)), &brokers(&[1])));
            assert_eq!(after.leader_epoch, before.leader_epoch.next());
            assert_eq!(
                after.recovery_state, state,
                "an unclean stop counts as an unclean election"
            );
        }
    }

    #[test]
    fn beside_an_active_broker_nobody_is_unfenced_at_once() {
        let mut cluster = TestCluster::new();
        cluster.start(1, false);
        let mut request = cluster.registration(2, false);
        request.unfence_at_once = true;
        cluster.register_with(&request).unwrap();
        assert!(!cluster.image().is_active(broker(2)));
    }

    #[test]
    fn a_repeated_registration_of_the_same_process_changes_nothing() {
        let mut cluster = TestCluster::new();
        let request = cluster.registration(1, false);
        let epoch = cluster.register_with(&request).unwrap();
        let context = cluster.context();
        let again = cluster.controller.register_broker(&context, &request).unwrap();
        assert_eq!(again.records, []);
        assert_eq!(again.response, BrokerRegistered { broker_epoch: Some(epoch), is_fenced: true });
    }

    #[test]
    fn the_same_directory_proves_the_old_process_dead_and_another_one_does_not() {
        let mut cluster = TestCluster::new();
        cluster.start(1, false);
        cluster.start(1, false); // at once, while the session lives
        let mut other = cluster.registration(1, false);
        other.directory_id = DirectoryId::from_bytes([99; 16]);
        let refused = cluster.register_with(&other);
        let directory_id = DirectoryId::from_bytes([1; 16]);
        let error =
            RegisterBrokerError::DuplicateRegistration { broker_id: broker(1), directory_id };
        assert_eq!(refused, Err(error));
        cluster.now = cluster.now.plus(SESSION);
        assert!(cluster.register_with(&other).is_ok(), "the session is over");
    }

    #[test]
    fn strangers_and_brokers_that_cannot_run_the_features_are_refused() {
        let mut cluster = TestCluster::new();
        cluster.register(1, false);
        let good = cluster.registration(2, false);
        let (found, expected) = (ClusterId::new("other").unwrap(), good.cluster_id.clone());
        let stranger = RegisterBroker { cluster_id: found.clone(), ..good.clone() };
        let error = RegisterBrokerError::InconsistentClusterId { found, expected };
        assert_eq!(cluster.register_with(&stranger), Err(error));
        let old = RegisterBroker { features: BTreeMap::new(), ..good.clone() };
        let error = cluster.register_with(&old).unwrap_err();
        assert!(
            matches!(error, RegisterBrokerError::UnsupportedFeature { level: 1, .. }),
            "{error}"
        );
        let mut twice = good.clone();
        twice.listeners.push(twice.listeners[0].clone());
        for listeners in [Vec::new(), twice.listeners] {
            let request = RegisterBroker { listeners, ..good.clone() };
            assert_eq!(cluster.register_with(&request), Err(RegisterBrokerError::InvalidListeners));
        }
    }

    #[test]
    fn a_wiped_broker_loses_every_seat_and_its_new_directory_is_recorded() {
        let mut cluster = TestCluster::new();
        cluster.start(1, false);
        let topic_id = cluster.create("t", &[1], &[]);
        cluster.fence(&[1]);
        assert_eq!(cluster.partition(topic_id).elr, brokers(&[1]));
        let mut request = cluster.registration(1, true);
        request.directory_id = DirectoryId::from_bytes([99; 16]);
        cluster.register_with(&request).unwrap();
        cluster.unfence(1);
        let partition = cluster.partition(topic_id);
        assert_eq!(partition.directory_of(broker(1)), Some(request.directory_id));
        assert_eq!((partition.leader, partition.last_known_leader), (None, None));
        assert_eq!((partition.isr, partition.elr), (vec![], vec![]));
    }

    #[test]
    fn a_stale_epoch_is_told_what_is_current() {
        let mut cluster = TestCluster::new();
        let old = cluster.register(1, false);
        let stale = cluster.heartbeat(1);
        let current = cluster.register(1, false);
        let error = StaleBrokerEpoch { broker_id: broker(1), found: old, current: Some(current) };
        assert_eq!(cluster.controller.broker_heartbeat(&stale).unwrap_err(), error);
        assert_eq!(cluster.controller.fence_broker(broker(1), old).unwrap_err(), error);
        let unknown = cluster.controller.fence_broker(broker(9), old).unwrap_err();
        assert_eq!(unknown.current, None);
    }

    #[test]
    fn a_silent_broker_is_fenced_and_its_partitions_move() {
        let mut cluster = TestCluster::new();
        cluster.start(1, false);
        cluster.start(2, false);
        let topic_id = cluster.create("t", &[1, 2], &[]);
        assert_eq!(cluster.controller.next_session_end(), Some(cluster.now.plus(SESSION)));
        cluster.fence(&[1]);
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.leader, partition.isr), (Some(broker(2)), brokers(&[2])));
        assert!(cluster.image().broker(broker(1)).unwrap().is_fenced);
        let context = cluster.context();
        assert_eq!(cluster.controller.expire_sessions(&context).response, []);
    }

    #[test]
    fn a_leaving_broker_waits_until_all_others_know() {
        let mut cluster = TestCluster::new();
        cluster.start(1, false);
        cluster.start(2, false);
        let topic_id = cluster.create("t", &[1, 2], &[]);
        assert!(!cluster.shut_down(1), "2 has not heard of it");
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.leader, partition.isr), (Some(broker(2)), brokers(&[2])));
        assert!(!cluster.shut_down(1));
        let heard = cluster.heartbeat(2);
        cluster.beat(heard);
        assert!(cluster.shut_down(1));
        assert!(cluster.shut_down(2), "the last one waits for nobody");
        assert_eq!(cluster.partition(topic_id).leader, None);
        assert_eq!(cluster.partition(topic_id).elr, brokers(&[2]), "1 left while the ISR sufficed");
    }

    #[test]
    fn a_broker_may_ask_to_be_fenced_and_a_fenced_one_may_stop() {
        let mut cluster = TestCluster::new();
        cluster.start(1, false);
        let heartbeat = BrokerHeartbeat { wants_fence: true, ..cluster.heartbeat(1) };
        assert!(cluster.beat(heartbeat).is_fenced);
        let heartbeat = BrokerHeartbeat { wants_shut_down: true, ..cluster.heartbeat(1) };
        assert!(cluster.beat(heartbeat).should_shut_down);
    }

    #[test]
    fn an_unregistered_broker_keeps_only_the_seat_of_a_last_known_leader() {
        let mut cluster = TestCluster::new();
        cluster.start(1, false);
        let topic_id = cluster.create("t", &[1], &[]);
        let decided = cluster.controller.unregister_broker(broker(1)).unwrap();
        cluster.commit(decided);
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.leader, partition.elr), (None, vec![]));
        assert_eq!(partition.last_known_leader, Some(broker(1)));
        let again = cluster.controller.unregister_broker(broker(1));
        assert_eq!(again.unwrap_err(), UnregisterBrokerError::NotRegistered(broker(1)));
        cluster.start(1, false);
        assert_eq!(cluster.partition(topic_id).leader, Some(broker(1)), "back on its directory");
    }
}
