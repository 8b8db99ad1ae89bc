//! Which brokers hold a new partition: round robin from a start that the caller draws.
//!
//! Brokers stand in a ring in which racks take turns, so that neighbours lie in different racks while there are
//! enough of them. Partition p is led by the ring's member at start + p; its followers are the next ones, after
//! a gap that widens with each round, so that one broker's partitions do not all have the same followers.
//! Fenced brokers are used only when there are too few others, and never lead (Kafka's `StripedReplicaPlacer`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::identity::BrokerId;
use crate::metadata::MetadataImage;

/// Why partitions cannot be placed (INVALID_REPLICATION_FACTOR).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Too few brokers are registered.
    #[error("replication factor {wanted} needs as many brokers, {registered} are registered")]
    TooFewBrokers {
        /// Replicas wanted.
        wanted: usize,
        /// Brokers there are, fenced ones too.
        registered: usize,
    },
    /// None could lead.
    #[error("all brokers are fenced or shutting down")]
    AllFenced,
}

/// The ring of brokers, for one or more topics.
pub(super) struct Placer {
    active: Vec<BrokerId>,
    inactive: Vec<BrokerId>,
}

impl Placer {
    pub(super) fn new(image: &MetadataImage) -> Placer {
        let ring = |is_active: bool| {
            let mut racks: BTreeMap<Option<&Arc<str>>, Vec<BrokerId>> = BTreeMap::new();
            for broker in image.brokers().filter(|broker| broker.is_active() == is_active) {
                racks.entry(broker.rack.as_ref()).or_default().push(broker.broker_id);
            }
            let longest = racks.values().map(Vec::len).max().unwrap_or(0);
            (0..longest)
                .flat_map(|turn| racks.values().filter_map(move |r| r.get(turn).copied()))
                .collect()
        };
        Placer { active: ring(true), inactive: ring(false) }
    }

    /// Replicas of `count` partitions that start at `start` in the ring, each list led by its first.
    pub(super) fn place(
        &self,
        start: u64,
        count: usize,
        replication_factor: usize,
    ) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
        let registered = self.active.len() + self.inactive.len();
        if self.active.is_empty() && registered > 0 {
            return Err(PlacementError::AllFenced);
        }
        if replication_factor > registered {
            return Err(PlacementError::TooFewBrokers { wanted: replication_factor, registered });
        }
        let start = usize::try_from(start % self.active.len().max(1) as u64).unwrap_or(0);
        Ok((0..count)
            .map(|partition| self.place_one(start + partition, replication_factor))
            .collect())
    }

    /// `turn` may be any number; 1 <= replicas <= brokers, and an active broker exists.
    fn place_one(&self, turn: usize, replication_factor: usize) -> Vec<BrokerId> {
        let size = self.active.len();
        let leader = turn % size;
        let round = turn / size;
        let mut replicas = vec![self.active[leader]];
        // A gap of 0 to size - 2 keeps the followers distinct from the leader and from each other.
        let gap = round % size.saturating_sub(1).max(1);
        for follower in 0..size - 1 {
            replicas.push(self.active[(leader + 1 + (gap + follower) % (size - 1)) % size]);
        }
        let spare = self.inactive.len();
        replicas.extend((0..spare).map(|number| self.inactive[(turn + number) % spare]));
        replicas.truncate(replication_factor);
        replicas
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ids(range: std::ops::Range<i32>) -> Vec<BrokerId> {
        range.map(|id| BrokerId::new(id).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn replicas_are_distinct_and_leaders_take_turns(
            active in 1usize..8, inactive in 0usize..4, start: u64, factor in 1usize..12, count in 1usize..40
        ) {
            let placer = Placer { active: ids(0..active as i32), inactive: ids(100..100 + inactive as i32) };
            let placed = placer.place(start, count, factor);
            if factor > active + inactive {
                let registered = active + inactive;
                prop_assert_eq!(placed, Err(PlacementError::TooFewBrokers { wanted: factor, registered }));
                return Ok(());
            }
            let placed = placed.unwrap();
            prop_assert_eq!(placed.len(), count);
            let mut led = vec![0; active];
            for replicas in &placed {
                prop_assert_eq!(replicas.len(), factor);
                prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), factor);
                led[replicas[0].value() as usize] += 1;
                let fenced = replicas.iter().filter(|id| id.value() >= 100).count();
                prop_assert_eq!(fenced, factor.saturating_sub(active));
            }
            let (most, least) = (led.iter().max().unwrap(), led.iter().min().unwrap());
            prop_assert!(most - least <= 1, "leaders {:?}", led);
        }
    }

    #[test]
    fn without_an_active_broker_nothing_is_placed() {
        let placer = Placer { active: Vec::new(), inactive: ids(0..3) };
        assert_eq!(placer.place(0, 1, 1), Err(PlacementError::AllFenced));
        let placer = Placer { active: Vec::new(), inactive: Vec::new() };
        let error = PlacementError::TooFewBrokers { wanted: 1, registered: 0 };
        assert_eq!(placer.place(0, 1, 1), Err(error));
    }

    #[test]
    fn followers_of_one_leader_vary_from_round_to_round() {
        let placer = Placer { active: ids(0..4), inactive: Vec::new() };
        let placed = placer.place(0, 12, 2).unwrap();
        let followers: BTreeSet<_> =
            placed.iter().filter(|r| r[0].value() == 0).map(|r| r[1].value()).collect();
        assert_eq!(followers, BTreeSet::from([1, 2, 3]));
    }
}
