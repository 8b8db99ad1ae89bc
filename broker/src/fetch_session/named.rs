//! What a request names, in order before the lock of all sessions is taken.
//!
//! A request may have hundreds of thousands of partitions under one name of 32 KiB, so names are compared once for each topic
//! of the request, and partitions by their index.

use super::TopicKey;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A partition named twice counts once, in its last form, at the place of its first.
pub fn last_of_each<K: Ord + Clone, P>(topics: Vec<(K, Vec<(i32, P)>)>) -> Vec<(K, i32, P)> {
    let count = topics.iter().map(|(_, partitions)| partitions.len()).sum();
    let mut unique: Vec<(K, i32, P)> = Vec::with_capacity(count);
    let mut places: BTreeMap<K, BTreeMap<i32, usize>> = BTreeMap::new();
    for (topic, partitions) in topics {
        if count == 1 {
            // The fetch that most consumers send needs no map.
            unique.extend(partitions.into_iter().map(|(index, at)| (topic.clone(), index, at)));
            continue;
        }
        let places = places.entry(topic.clone()).or_default();
        for (partition, position) in partitions {
            match places.entry(partition) {
                Entry::Occupied(place) => unique[*place.get()].2 = position,
                Entry::Vacant(place) => {
                    place.insert(unique.len());
                    unique.push((topic.clone(), partition, position));
                }
            }
        }
    }
    unique
}

/// What a session is to forget: for each topic the partitions, ascending and once each.
#[derive(Debug, Default)]
pub struct Forgotten(BTreeMap<TopicKey, Vec<i32>>);

impl Forgotten {
    /// As a request names them: in any order, and any number of times.
    pub fn new(topics: impl IntoIterator<Item = (TopicKey, Vec<i32>)>) -> Forgotten {
        let mut by_topic: BTreeMap<TopicKey, Vec<i32>> = BTreeMap::new();
        for (topic, partitions) in topics {
            by_topic.entry(topic).or_default().extend(partitions);
        }
        for partitions in by_topic.values_mut() {
            partitions.sort_unstable();
            partitions.dedup();
        }
        Forgotten(by_topic)
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = (&TopicKey, &[i32])> {
        self.0.iter().map(|(topic, partitions)| (topic, &**partitions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::cmp::Ordering;

    #[derive(Clone, PartialEq, Eq)]
    struct CountsComparisons<'a>(&'a str, &'a Cell<usize>);

    impl Ord for CountsComparisons<'_> {
        fn cmp(&self, other: &Self) -> Ordering {
            self.1.update(|count| count + 1);
            self.0.cmp(other.0)
        }
    }

    impl PartialOrd for CountsComparisons<'_> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    #[test]
    fn names_are_compared_once_a_topic_however_many_partitions_it_has() {
        let count = Cell::new(0);
        let partitions = || (0..1000).map(|index| (index, ())).collect::<Vec<_>>();
        let topics = ["a", "b", "a"].map(|name| (CountsComparisons(name, &count), partitions()));
        assert_eq!(last_of_each(topics.into()).len(), 2000);
        assert!(count.get() < 10, "{}", count.get());
    }

    proptest! {
        #[test]
        fn each_partition_stands_where_it_was_first_named_as_it_was_last_named(
            topics in prop::collection::vec((0..3u8, prop::collection::vec((0..4i32, any::<u8>()), 0..4)), 0..4),
        ) {
            let mut slow: Vec<(u8, i32, u8)> = Vec::new();
            for (topic, partitions) in &topics {
                for (partition, position) in partitions {
                    match slow.iter_mut().find(|one| (one.0, one.1) == (*topic, *partition)) {
                        Some(known) => known.2 = *position,
                        None => slow.push((*topic, *partition, *position)),
                    }
                }
            }
            prop_assert_eq!(last_of_each(topics), slow);
        }
    }
}
