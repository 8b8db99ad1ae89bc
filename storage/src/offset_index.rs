//! Sparse offset index of one segment: where to start looking for an offset (`OffsetIndex.java`). Pure.
//!
//! One entry, 8 bytes, big-endian; offsets strictly increase, positions too:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | offset relative to the segment's base offset |
//! | 4 | 4 | position of a batch in the `.log` file, at or before the one that holds the offset |
//!
//! A lookup takes the greatest entry at or below its target and scans forward from there. The index has
//! no checksum; entries at or past the recovery point are never believed (see [`crate::recovery`]).
//! Files have exactly the size of their entries: nothing is preallocated.

use crate::offset::Offset;

/// Size of one entry.
pub const ENTRY_SIZE_BYTES: usize = 8;

/// Where to start looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetPosition {
    /// The entry's offset; the last of the batches whose first one starts at `position`.
    pub offset: Offset,
    /// Byte in the `.log` file at which a batch starts.
    pub position: u32,
}

/// Why the bytes are no offset index of their segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The size is no multiple of an entry's.
    #[error("{size_bytes} bytes are not a whole number of {entry_size_bytes}-byte entries")]
    PartialEntry {
        /// Size of the file.
        size_bytes: usize,
        /// Size of one entry.
        entry_size_bytes: usize,
    },
    /// Entries do not increase, or point behind the segment.
    #[error("entry {entry} does not follow from the one before it, or points out of the segment")]
    OutOfOrder {
        /// Number of the entry, from 0.
        entry: usize,
    },
}

/// An offset index as the bytes of its file.
#[derive(Clone, Copy, Debug)]
pub struct OffsetIndex<'a> {
    base_offset: Offset,
    entries: &'a [[u8; ENTRY_SIZE_BYTES]],
}

impl<'a> OffsetIndex<'a> {
    /// The index of the segment that starts at `base_offset`. A partial last entry is not looked at.
    pub fn new(base_offset: Offset, bytes: &'a [u8]) -> OffsetIndex<'a> {
        OffsetIndex { base_offset, entries: bytes.as_chunks().0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry with this number, from 0. `None` past the end, or where the offset is impossible.
    pub fn entry(&self, at: usize) -> Option<OffsetPosition> {
        let [a, b, c, d, rest @ ..] = *self.entries.get(at)?;
        let offset = self.base_offset.checked_plus(u64::from(u32::from_be_bytes([a, b, c, d])))?;
        Some(OffsetPosition { offset, position: u32::from_be_bytes(rest) })
    }

    /// The last entry.
    pub fn last(&self) -> Option<OffsetPosition> {
        self.entry(self.len().checked_sub(1)?)
    }

    /// The greatest entry at or below `target`; below the first one, the start of the segment.
    pub fn lookup(&self, target: Offset) -> OffsetPosition {
        let wanted = target.delta_from(self.base_offset).unwrap_or(0);
        let after = self.entries.partition_point(|entry| {
            u64::from(u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]])) <= wanted
        });
        after
            .checked_sub(1)
            .and_then(|at| self.entry(at))
            .unwrap_or(OffsetPosition { offset: self.base_offset, position: 0 })
    }

    /// How many of the first entries follow from one another, lie below `end_offset` and point below
    /// `log_size_bytes`. Fewer than all: what comes after them is damaged or not of this log.
    pub fn sound_prefix(&self, end_offset: Offset, log_size_bytes: u64) -> usize {
        let mut previous: Option<OffsetPosition> = None;
        for at in 0..self.len() {
            let follows = self.entry(at).is_some_and(|entry| {
                entry.offset < end_offset
                    && u64::from(entry.position) < log_size_bytes
                    && match previous {
                        None => entry.position > 0 || entry.offset >= self.base_offset,
                        Some(p) => entry.offset > p.offset && entry.position > p.position,
                    }
            });
            if !follows {
                return at;
            }
            previous = self.entry(at);
        }
        self.len()
    }
}

/// Checks a whole file, as at opening a segment: size, and the last entry (`OffsetIndex.sanityCheck`).
/// The entries before it were written in order by us and are not read, so that opening costs one page.
///
/// # Errors
/// If the file cannot be this segment's index.
pub fn sanity_check(
    base_offset: Offset,
    bytes: &[u8],
    end_offset: Offset,
    log_size_bytes: u64,
) -> Result<(), IndexError> {
    if !bytes.len().is_multiple_of(ENTRY_SIZE_BYTES) {
        return Err(IndexError::PartialEntry {
            size_bytes: bytes.len(),
            entry_size_bytes: ENTRY_SIZE_BYTES,
        });
    }
    let index = OffsetIndex::new(base_offset, bytes);
    let Some(last_entry) = index.len().checked_sub(1) else { return Ok(()) };
    let first = index.entry(0);
    let sound = index.last().is_some_and(|last| {
        last.offset < end_offset
            && u64::from(last.position) < log_size_bytes
            && first.is_some_and(|first| {
                last_entry == 0 || first.offset < last.offset && first.position < last.position
            })
    });
    if sound { Ok(()) } else { Err(IndexError::OutOfOrder { entry: last_entry }) }
}

/// The offset index of a segment that is still written: whole in memory, in the file's format.
#[derive(Clone, Debug, Default)]
pub struct OffsetIndexBuilder {
    bytes: Vec<u8>,
}

impl OffsetIndexBuilder {
    /// An index without entries.
    pub fn new() -> OffsetIndexBuilder {
        OffsetIndexBuilder::default()
    }

    /// Goes on from the first `entries` entries of `bytes`.
    pub fn from_bytes(bytes: &[u8], entries: usize) -> OffsetIndexBuilder {
        OffsetIndexBuilder { bytes: bytes[..entries * ENTRY_SIZE_BYTES].to_vec() }
    }

    /// Adds an entry; one that does not increase both numbers is left out, which only makes the index
    /// sparser.
    ///
    /// # Panics
    /// If `offset` is not within `u32::MAX` of the base: the segment should have been rolled.
    pub fn append(&mut self, base_offset: Offset, offset: Offset, position: u32) {
        if self
            .view(base_offset)
            .last()
            .is_some_and(|l| l.offset >= offset || l.position >= position)
        {
            return;
        }
        let relative = offset.delta_from(base_offset).and_then(|delta| u32::try_from(delta).ok());
        let relative = relative.expect("a segment is rolled before its relative offsets overflow");
        self.bytes.extend_from_slice(&relative.to_be_bytes());
        self.bytes.extend_from_slice(&position.to_be_bytes());
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
    pub fn view(&self, base_offset: Offset) -> OffsetIndex<'_> {
        OffsetIndex::new(base_offset, &self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offset(value: u64) -> Offset {
        Offset::ZERO.plus(value)
    }

    proptest! {
        /// Ascending entries, looked up at every offset, against a walk over all of them.
        #[test]
        fn a_lookup_finds_what_a_scan_finds(
            base in 0u64..1000,
            steps in prop::collection::vec((1u64..20, 1u32..5000), 0..60),
        ) {
            let mut builder = OffsetIndexBuilder::new();
            let (mut at, mut position, mut entries) = (base, 0, Vec::new());
            for (step, size) in steps {
                at += step;
                position += size;
                builder.append(offset(base), offset(at), position);
                entries.push(OffsetPosition { offset: offset(at), position });
            }
            let index = builder.view(offset(base));
            prop_assert_eq!(index.sound_prefix(offset(at + 1), u64::from(position) + 1), entries.len());
            sanity_check(offset(base), builder.bytes(), offset(at + 1), u64::from(position) + 1).unwrap();
            for target in base..at + 3 {
                let scanned = entries.iter().rev().find(|entry| entry.offset <= offset(target)).copied();
                let start = OffsetPosition { offset: offset(base), position: 0 };
                prop_assert_eq!(index.lookup(offset(target)), scanned.unwrap_or(start));
            }
            for cut in base..at + 2 {
                let mut cut_index = builder.clone();
                cut_index.truncate(offset(base), offset(cut));
                let kept = entries.iter().filter(|entry| entry.offset < offset(cut)).count();
                prop_assert_eq!(cut_index.view(offset(base)).len(), kept);
            }
        }

        /// Any bytes at all are looked up without a panic.
        #[test]
        fn damaged_bytes_are_looked_up_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            base in 0i64..,
            target in 0i64..,
        ) {
            let (base, target) = (Offset::new(base).unwrap(), Offset::new(target).unwrap());
            let index = OffsetIndex::new(base, &bytes);
            let _ = index.lookup(target);
            let sound = index.sound_prefix(Offset::MAX, u64::MAX);
            prop_assert!(sound <= index.len());
            let _ = sanity_check(base, &bytes, Offset::MAX, u64::MAX);
        }
    }

    #[test]
    fn zeroes_after_a_crash_are_not_sound() {
        let mut builder = OffsetIndexBuilder::new();
        builder.append(offset(0), offset(5), 100);
        let mut bytes = builder.bytes().to_vec();
        bytes.extend([0; 16]);
        assert_eq!(OffsetIndex::new(offset(0), &bytes).sound_prefix(offset(9), 200), 1);
        assert!(sanity_check(offset(0), &bytes, offset(9), 200).is_err());
        assert!(sanity_check(offset(0), &bytes[..9], offset(9), 200).is_err());
    }
}
