//! Which partition a record goes to: by its key as the Java client decides, otherwise one for a while, then another
//! (KIP-794). Pure: randomness is an argument.

/// The Java client's hash of keys: records with one key stay in one partition, whichever client wrote them.
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index as u32);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ hash >> 15) as i32
}

/// The partition of a key.
///
/// # Panics
/// If `partitions` is 0.
pub fn partition_for_key(key: &[u8], partitions: usize) -> i32 {
    let positive = (murmur2(key) & i32::MAX) as usize;
    // In range: a topic has fewer than 2^31 partitions.
    (positive % partitions) as i32
}

/// For records without a key: stays with a partition until so many bytes went there, so that batches fill.
#[derive(Clone, Debug, Default)]
pub struct StickyPartition {
    partition: Option<i32>,
    bytes: usize,
}

impl StickyPartition {
    /// The partition for a record of `size_bytes`; `random` lies in `[0, 1)` and picks the next one when it is time.
    ///
    /// # Panics
    /// If `partitions` is 0.
    pub fn next(
        &mut self,
        size_bytes: usize,
        switch_after_bytes: usize,
        partitions: usize,
        random: f64,
    ) -> i32 {
        assert!(partitions > 0, "a topic has a partition");
        let current = self.partition.filter(|partition| (*partition as usize) < partitions);
        let partition = match current {
            Some(partition) if self.bytes < switch_after_bytes => partition,
            current => {
                self.bytes = 0;
                // Not the same one again, if there is another.
                let others =
                    if current.is_some() && partitions > 1 { partitions - 1 } else { partitions };
                let pick = ((random * others as f64) as usize).min(others - 1) as i32;
                match current {
                    Some(current) if partitions > 1 && pick >= current => pick + 1,
                    _ => pick,
                }
            }
        };
        self.partition = Some(partition);
        self.bytes += size_bytes;
        partition
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values that the Java client's own hash gives.
    #[test]
    fn murmur2_is_the_java_clients() {
        assert_eq!(murmur2(b"21"), -973_932_308);
        assert_eq!(murmur2(b"foobar"), -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string"), -985_981_536);
        assert_eq!(murmur2(b"a-little-bit-longer-string"), -1_486_304_829);
        assert_eq!(murmur2(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), -58_897_971);
        assert_eq!(murmur2(b"abc"), 479_470_107);
    }

    #[test]
    fn records_without_a_key_stay_until_a_batch_is_full() {
        let mut sticky = StickyPartition::default();
        let picks: Vec<i32> = (0..6).map(|_| sticky.next(40, 100, 3, 0.0)).collect();
        assert_eq!(picks, [0, 0, 0, 1, 1, 1]);
    }

    proptest! {
        #[test]
        fn every_partition_exists_and_a_switch_leaves_the_old_one(
            partitions in 1usize..10, randoms in prop::collection::vec(0.0f64..1.0, 1..50),
        ) {
            let mut sticky = StickyPartition::default();
            let mut last = None;
            for random in randoms {
                let pick = sticky.next(1, 1, partitions, random);
                prop_assert!((0..partitions as i32).contains(&pick));
                prop_assert!(partitions == 1 || last != Some(pick));
                last = Some(pick);
            }
        }

        #[test]
        fn a_key_always_has_a_partition(key in prop::collection::vec(any::<u8>(), 0..40), partitions in 1usize..100) {
            prop_assert!((0..partitions as i32).contains(&partition_for_key(&key, partitions)));
        }
    }
}
