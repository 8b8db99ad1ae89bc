//! Sparse time index of one segment: up to which offset every record is older than a time
//! (`TimeIndex.java`). Pure.
//!
//! One entry, 12 bytes, big-endian; timestamps strictly increase, offsets too:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | the largest timestamp so far in the segment |
//! | 8 | 4 | last offset, relative to the base offset, of the batch that holds it |
//!
//! So nothing at or before an entry's offset is younger than its timestamp. When a segment is sealed its
//! largest timestamp is written as the last entry, if it is not there already.

use crate::offset::Offset;
use crate::offset_index::IndexError;
use crate::timestamp::Timestamp;

/// Size of one entry.
pub const ENTRY_SIZE_BYTES: usize = 12;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Largest timestamp of the segment up to and with `offset`.
    pub timestamp: Timestamp,
    /// Last offset of the first batch that has it.
    pub offset: Offset,
}

/// A time index as the bytes of its file.
#[derive(Clone, Copy, Debug)]
pub struct TimeIndex<'a> {
    base_offset: Offset,
    entries: &'a [[u8; ENTRY_SIZE_BYTES]],
}

fn timestamp_of(entry: &[u8; ENTRY_SIZE_BYTES]) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = *entry;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl<'a> TimeIndex<'a> {
    /// The index of the segment that starts at `base_offset`. A partial last entry is not looked at.
    pub fn new(base_offset: Offset, bytes: &'a [u8]) -> TimeIndex<'a> {
        TimeIndex { base_offset, entries: bytes.as_chunks().0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry with this number, from 0. `None` past the end, or where its numbers are impossible.
    pub fn entry(&self, at: usize) -> Option<TimestampOffset> {
        let entry = self.entries.get(at)?;
        let [.., a, b, c, d] = *entry;
        let offset = self.base_offset.checked_plus(u64::from(u32::from_be_bytes([a, b, c, d])))?;
        Some(TimestampOffset { timestamp: Timestamp::new(timestamp_of(entry))?, offset })
    }

    /// The last entry: in a sealed segment, its largest timestamp.
    pub fn last(&self) -> Option<TimestampOffset> {
        self.entry(self.len().checked_sub(1)?)
    }

    /// The greatest entry below `target`: everything at or before its offset is older than `target`.
    pub fn last_before(&self, target: Timestamp) -> Option<TimestampOffset> {
        let at = self.entries.partition_point(|entry| timestamp_of(entry) < target.value());
        self.entry(at.checked_sub(1)?)
    }

    /// The bytes of the first `entries` entries.
    pub(crate) fn prefix_bytes(&self, entries: usize) -> &'a [u8] {
        self.entries[..entries].as_flattened()
    }

    /// How many of the first entries follow from one another and lie below `end_offset`.
    pub fn sound_prefix(&self, end_offset: Offset) -> usize {
        let mut previous: Option<TimestampOffset> = None;
        for at in 0..self.len() {
            let Some(entry) = self.entry(at) else { return at };
            let follows = entry.offset < end_offset
                && previous
                    .is_none_or(|p| entry.timestamp > p.timestamp && entry.offset > p.offset);
            if !follows {
                return at;
            }
            previous = Some(entry);
        }
        self.len()
    }
}

/// Checks a whole file, as at opening a segment: size, first and last entry (`TimeIndex.sanityCheck`).
///
/// # Errors
/// If the file cannot be this segment's index.
pub fn sanity_check(
    base_offset: Offset,
    bytes: &[u8],
    end_offset: Offset,
) -> Result<(), IndexError> {
    if !bytes.len().is_multiple_of(ENTRY_SIZE_BYTES) {
        return Err(IndexError::PartialEntry {
            size_bytes: bytes.len(),
            entry_size_bytes: ENTRY_SIZE_BYTES,
        });
    }
    let index = TimeIndex::new(base_offset, bytes);
    let Some(last_entry) = index.len().checked_sub(1) else { return Ok(()) };
    let sound = match (index.entry(0), index.last()) {
        (Some(first), Some(last)) => {
            last.offset < end_offset && (last_entry == 0 || first.timestamp < last.timestamp)
        }
        _ => false,
    };
    if sound { Ok(()) } else { Err(IndexError::OutOfOrder { entry: last_entry }) }
}

/// Whether a sealed segment with records may end its index so. Sealing writes the largest timestamp last, and that entry is
/// synced only by the next flush of everything: a power cut in between leaves no entry, or one of zeroes, and retention by
/// time would take the segment for one of 1970. Where the records really have no timestamp, or that one, reading the
/// segment again costs time and changes nothing.
pub fn may_end_sealed(base_offset: Offset, last: Option<TimestampOffset>) -> bool {
    let zeroes = TimestampOffset { timestamp: Timestamp::ZERO, offset: base_offset };
    last.is_some_and(|last| last != zeroes)
}

/// The time index of a segment that is still written: whole in memory, in the file's format.
#[derive(Clone, Debug, Default)]
pub struct TimeIndexBuilder {
    bytes: Vec<u8>,
}

impl TimeIndexBuilder {
    /// An index without entries.
    pub fn new() -> TimeIndexBuilder {
        TimeIndexBuilder::default()
    }

    /// Goes on from the first `entries` entries of `bytes`.
    pub fn from_bytes(bytes: &[u8], entries: usize) -> TimeIndexBuilder {
        TimeIndexBuilder { bytes: bytes[..entries * ENTRY_SIZE_BYTES].to_vec() }
    }

    /// Adds an entry, unless the last one has this timestamp or a larger one already
    /// (`TimeIndex.maybeAppend`).
    ///
    /// # Panics
    /// If the offset is not within `u32::MAX` of the base: the segment should have been rolled.
    pub fn maybe_append(&mut self, base_offset: Offset, entry: TimestampOffset) {
        let last = self.view(base_offset).last();
        if last.is_some_and(|last| last.timestamp >= entry.timestamp || last.offset >= entry.offset)
        {
            return;
        }
        let relative = entry.offset.delta_from(base_offset).and_then(|d| u32::try_from(d).ok());
        let relative = relative.expect("a segment is rolled before its relative offsets overflow");
        self.bytes.extend_from_slice(&entry.timestamp.value().to_be_bytes());
        self.bytes.extend_from_slice(&relative.to_be_bytes());
    }

    /// Drops the entries at or past `offset`.
    pub fn truncate(&mut self, base_offset: Offset, offset: Offset) {
        let view = self.view(base_offset);
        let keep = (0..view.len())
            .rev()
            .find(|at| view.entry(*at).is_some_and(|entry| entry.offset < offset))
            .map_or(0, |at| at + 1);
        self.bytes.truncate(keep * ENTRY_SIZE_BYTES);
    }

    /// What the file holds, or will.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// To look things up.
    pub fn view(&self, base_offset: Offset) -> TimeIndex<'_> {
        TimeIndex::new(base_offset, &self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offset(value: u64) -> Offset {
        Offset::ZERO.plus(value)
    }

    fn time(value: i64) -> Timestamp {
        Timestamp::new(value).unwrap()
    }

    #[test]
    fn a_sealed_index_of_no_entry_or_of_a_zeroed_one_is_not_believed() {
        let base = Offset::ZERO.plus(40);
        let zeroed = TimeIndex::new(base, &[0; ENTRY_SIZE_BYTES]).last();
        assert!(sanity_check(base, &[0; ENTRY_SIZE_BYTES], base.plus(9)).is_ok());
        assert!(!may_end_sealed(base, zeroed));
        assert!(!may_end_sealed(base, None));
        let later = TimestampOffset { timestamp: Timestamp::ZERO, offset: base.plus(1) };
        assert!(may_end_sealed(base, Some(later)));
    }

    proptest! {
        /// Batches with any timestamps: what the index skips really is older than the target.
        #[test]
        fn what_a_lookup_skips_is_older_than_the_target(
            base in 0u64..1000,
            stamps in prop::collection::vec((0i64..50, any::<bool>()), 1..80),
        ) {
            let mut builder = TimeIndexBuilder::new();
            let mut largest: Option<TimestampOffset> = None;
            for (at, (stamp, indexed)) in stamps.iter().enumerate() {
                let entry = TimestampOffset { timestamp: time(*stamp), offset: offset(base + at as u64) };
                if largest.is_none_or(|largest| entry.timestamp > largest.timestamp) {
                    largest = Some(entry);
                }
                if *indexed {
                    builder.maybe_append(offset(base), largest.unwrap());
                }
            }
            let end = offset(base + stamps.len() as u64);
            let index = builder.view(offset(base));
            prop_assert_eq!(index.sound_prefix(end), index.len());
            sanity_check(offset(base), builder.bytes(), end).unwrap();
            for target in 0..52 {
                let skipped = index.last_before(time(target))
                    .map_or(0, |entry| entry.offset.delta_from(offset(base)).unwrap() + 1);
                for (stamp, _) in &stamps[..skipped as usize] {
                    prop_assert!(*stamp < target, "{stamp} is skipped for {target}");
                }
                // And it is the greatest such entry.
                if let Some(next) = (0..index.len()).filter_map(|at| index.entry(at))
                    .find(|entry| entry.offset.value() >= (base + skipped) as i64) {
                    prop_assert!(next.timestamp >= time(target));
                }
            }
        }

        /// Any bytes at all are looked up without a panic.
        #[test]
        fn damaged_bytes_are_looked_up_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            base in 0i64..,
            target in 0i64..,
        ) {
            let index = TimeIndex::new(Offset::new(base).unwrap(), &bytes);
            let _ = index.last_before(time(target));
            prop_assert!(index.sound_prefix(Offset::MAX) <= index.len());
            let _ = sanity_check(Offset::new(base).unwrap(), &bytes, Offset::MAX);
        }
    }

    #[test]
    fn a_truncated_index_keeps_what_lies_before_the_cut() {
        let mut builder = TimeIndexBuilder::new();
        for at in 1..5 {
            builder.maybe_append(
                offset(0),
                TimestampOffset { timestamp: time(at * 10), offset: offset(at as u64) },
            );
        }
        builder.truncate(offset(0), offset(3));
        assert_eq!(
            builder.view(offset(0)).last(),
            Some(TimestampOffset { timestamp: time(20), offset: offset(2) })
        );
    }
}
