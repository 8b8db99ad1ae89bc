//! What the cluster knows of one partition: replicas, leader, ISR, ELR (KIP-966) and their epochs.

use storage::leader_epoch::LeaderEpoch;

use crate::identity::{BrokerId, DirectoryId, PartitionEpoch};
use crate::metadata::record::PartitionChangeRecord;

/// One replica's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The broker.
    pub broker: BrokerId,
    /// The directory that holds (or will hold) its log. On another directory the broker has no replica yet.
    pub directory: DirectoryId,
}

/// Whether the leader was elected uncleanly and has not yet said that it is done recovering (KIP-704).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaderRecoveryState {
    /// 0: the usual state.
    #[default]
    Recovered,
    /// 1: elected uncleanly; the ISR is the leader alone.
    Recovering,
}

impl LeaderRecoveryState {
    /// Kafka's number.
    pub const fn id(self) -> u8 {
        match self {
            LeaderRecoveryState::Recovered => 0,
            LeaderRecoveryState::Recovering => 1,
        }
    }

    /// The state with Kafka's number `id`.
    pub const fn from_id(id: u8) -> Option<LeaderRecoveryState> {
        match id {
            0 => Some(LeaderRecoveryState::Recovered),
            1 => Some(LeaderRecoveryState::Recovering),
            _ => None,
        }
    }
}

/// One partition's metadata.
///
/// Invariants, checked wherever a record is applied ([`PartitionRegistration::check`]):
/// - replicas are at least one and distinct; ISR, ELR and last known leader are replicas;
/// - ISR and ELR have no member in common;
/// - there is a leader exactly while the ISR has members, and it is one of them;
/// - a last known leader is kept only while the ISR is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// In assignment order: the first is the preferred leader.
    pub replicas: Vec<Replica>,
    /// In-sync replicas, in assignment order.
    pub isr: Vec<BrokerId>,
    /// Eligible leader replicas (KIP-966), in assignment order: outside the ISR, yet they hold every record
    /// below the high watermark, because it has not moved since they left.
    pub elr: Vec<BrokerId>,
    /// Who led when the ISR emptied (DESIGN D1).
    pub last_known_leader: Option<BrokerId>,
    /// Replicas that a reassignment removes.
    pub removing: Vec<BrokerId>,
    /// Replicas that a reassignment adds.
    pub adding: Vec<BrokerId>,
    /// The leader.
    pub leader: Option<BrokerId>,
    /// +1 with every record that names a leader, even the same or none.
    pub leader_epoch: LeaderEpoch,
    /// +1 with every record.
    pub partition_epoch: PartitionEpoch,
    /// Whether the leader still recovers from an unclean election.
    pub recovery_state: LeaderRecoveryState,
}

impl PartitionRegistration {
    /// A new partition: every replica of `isr` in sync, the first of them leading.
    pub fn new(replicas: Vec<Replica>, isr: Vec<BrokerId>) -> PartitionRegistration {
        PartitionRegistration {
            leader: isr.first().copied(),
            replicas,
            isr,
            elr: Vec::new(),
            last_known_leader: None,
            removing: Vec::new(),
            adding: Vec::new(),
            leader_epoch: LeaderEpoch::ZERO,
            partition_epoch: PartitionEpoch::ZERO,
            recovery_state: LeaderRecoveryState::Recovered,
        }
    }

    /// The replicas' brokers, in assignment order.
    pub fn replica_ids(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.replicas.iter().map(|replica| replica.broker)
    }

    /// Whether `broker` holds a replica.
    pub fn has_replica(&self, broker: BrokerId) -> bool {
        self.replica_ids().any(|id| id == broker)
    }

    /// The directory recorded for `broker`'s replica.
    pub fn directory_of(&self, broker: BrokerId) -> Option<DirectoryId> {
        self.replicas.iter().find(|replica| replica.broker == broker).map(|r| r.directory)
    }

    /// The partition after `change`, with its epochs moved as Kafka does it.
    ///
    /// # Errors
    /// What is wrong, if an invariant would not hold or an epoch is used up.
    pub fn merge(
        &self,
        change: &PartitionChangeRecord,
    ) -> Result<PartitionRegistration, &'static str> {
        let mut merged = self.clone();
        if let Some(replicas) = &change.replicas {
            merged.replicas.clone_from(replicas);
        }
        if let Some(isr) = &change.isr {
            merged.isr.clone_from(isr);
        }
        if let Some(elr) = &change.elr {
            merged.elr.clone_from(elr);
        }
        if let Some(last_known_leader) = change.last_known_leader {
            merged.last_known_leader = last_known_leader;
        }
        if let Some(removing) = &change.removing {
            merged.removing.clone_from(removing);
        }
        if let Some(adding) = &change.adding {
            merged.adding.clone_from(adding);
        }
        if let Some(leader) = change.leader {
            merged.leader = leader;
            let next = self.leader_epoch.value().checked_add(1).and_then(LeaderEpoch::new);
            merged.leader_epoch = next.ok_or("its leader epochs are used up")?;
        }
        if let Some(recovery_state) = change.recovery_state {
            merged.recovery_state = recovery_state;
        }
        let next = self.partition_epoch.checked_next();
        merged.partition_epoch = next.ok_or("its partition epochs are used up")?;
        merged.check()?;
        Ok(merged)
    }

    /// Whether the invariants hold.
    ///
    /// # Errors
    /// Which one does not.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.replicas.is_empty() {
            return Err("it has no replica");
        }
        if !is_distinct(self.replicas.iter().map(|replica| replica.broker)) {
            return Err("a broker holds two of its replicas");
        }
        for (members, what) in [
            (&self.isr, "its ISR is not a set of its replicas"),
            (&self.elr, "its eligible leader replicas are not a set of its replicas"),
            (&self.removing, "what it removes is not a set of its replicas"),
            (&self.adding, "what it adds is not a set of its replicas"),
        ] {
            if !is_distinct(members.iter().copied())
                || !members.iter().all(|&member| self.has_replica(member))
            {
                return Err(what);
            }
        }
        if self.elr.iter().any(|member| self.isr.contains(member)) {
            return Err("an eligible leader replica is in the ISR");
        }
        match self.leader {
            Some(leader) if !self.isr.contains(&leader) => Err("its leader is not in the ISR"),
            None if !self.isr.is_empty() => Err("it has an ISR without a leader"),
            _ => match self.last_known_leader {
                Some(_) if !self.isr.is_empty() => Err("it has an ISR and a last known leader"),
                Some(last) if !self.has_replica(last) => {
                    Err("its last known leader is not a replica")
                }
                _ => Ok(()),
            },
        }
    }
}

/// Replica sets are a handful, so comparing all pairs beats a set; a hostile list is bounded by sorting.
fn is_distinct(ids: impl Iterator<Item = BrokerId>) -> bool {
    let mut sorted: Vec<BrokerId> = ids.collect();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1])
}
