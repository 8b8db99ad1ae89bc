//! Aborted transactions of one segment, in the order of their abort markers (`AbortedTxn.java`,
//! `TransactionIndex.java`). Pure: the codec of `N.txnindex` and the lookup over its entries.
//!
//! One entry, 34 bytes, big-endian:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 2 | version, 0 |
//! | 2 | 8 | producer id |
//! | 10 | 8 | first offset of the transaction |
//! | 18 | 8 | last offset: its abort marker (inclusive) |
//! | 26 | 8 | last stable offset once the marker is written |

use crate::offset::Offset;
use crate::producer_state::ProducerId;

/// Size of one entry.
pub const ENTRY_SIZE_BYTES: usize = 34;

/// One aborted transaction that wrote data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: ProducerId,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Offset of its abort marker, inclusive.
    pub last_offset: Offset,
    /// The last stable offset right after the marker, exclusive. Entries of one log have it ascending, so
    /// a lookup may stop at one that lies at or past the range it looks at.
    pub last_stable_offset: Offset,
}

/// An entry that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionIndexError {
    /// The size is no multiple of [`ENTRY_SIZE_BYTES`].
    #[error("{size_bytes} bytes are not a whole number of {ENTRY_SIZE_BYTES}-byte entries")]
    PartialEntry {
        /// Size of the file.
        size_bytes: usize,
    },
    /// A version we do not know.
    #[error("entry {entry} has version {version}, known is 0")]
    UnknownVersion {
        /// Number of the entry, from 0.
        entry: usize,
        /// What it says.
        version: i16,
    },
    /// A number out of its range, or the first offset behind the last.
    #[error("entry {entry} holds impossible offsets or an impossible producer id")]
    OutOfRange {
        /// Number of the entry, from 0.
        entry: usize,
    },
}

impl AbortedTransaction {
    /// The entry's bytes.
    pub fn to_bytes(&self) -> [u8; ENTRY_SIZE_BYTES] {
        let mut bytes = [0; ENTRY_SIZE_BYTES];
        bytes[2..10].copy_from_slice(&self.producer_id.value().to_be_bytes());
        bytes[10..18].copy_from_slice(&self.first_offset.value().to_be_bytes());
        bytes[18..26].copy_from_slice(&self.last_offset.value().to_be_bytes());
        bytes[26..34].copy_from_slice(&self.last_stable_offset.value().to_be_bytes());
        bytes
    }

    fn from_bytes(
        entry: usize,
        bytes: &[u8; ENTRY_SIZE_BYTES],
    ) -> Result<AbortedTransaction, TransactionIndexError> {
        let version = i16::from_be_bytes([bytes[0], bytes[1]]);
        if version != 0 {
            return Err(TransactionIndexError::UnknownVersion { entry, version });
        }
        let long = |at: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[at..at + 8]);
            i64::from_be_bytes(value)
        };
        let read = || {
            let aborted = AbortedTransaction {
                producer_id: ProducerId::new(long(2))?,
                first_offset: Offset::new(long(10))?,
                last_offset: Offset::new(long(18))?,
                last_stable_offset: Offset::new(long(26))?,
            };
            (aborted.first_offset <= aborted.last_offset).then_some(aborted)
        };
        read().ok_or(TransactionIndexError::OutOfRange { entry })
    }

    /// Whether the transaction has an offset in `[from, upper)`.
    pub fn overlaps(&self, from: Offset, upper: Offset) -> bool {
        self.first_offset < upper && self.last_offset >= from
    }
}

/// All entries of a file's bytes, in order.
///
/// # Errors
/// If any byte of it is not of a valid entry: then the index has to be rebuilt from the log.
pub fn decode(bytes: &[u8]) -> Result<Vec<AbortedTransaction>, TransactionIndexError> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_SIZE_BYTES>();
    if !rest.is_empty() {
        return Err(TransactionIndexError::PartialEntry { size_bytes: bytes.len() });
    }
    entries
        .iter()
        .enumerate()
        .map(|(at, entry)| AbortedTransaction::from_bytes(at, entry))
        .collect()
}

/// Collects the entries that overlap `[from, upper)` into `found`. Returns `true` once no later entry (of
/// this segment or a later one) can: the caller then stops.
pub fn collect_aborted(
    entries: &[AbortedTransaction],
    from: Offset,
    upper: Offset,
    found: &mut Vec<AbortedTransaction>,
) -> bool {
    for entry in entries {
        if entry.overlaps(from, upper) {
            found.push(*entry);
        }
        // Everything below its LSO is decided; a transaction aborted later starts at or past it.
        if entry.last_stable_offset >= upper {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn aborted(id: i64, first: i64, last: i64, lso: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: ProducerId::new(id).unwrap(),
            first_offset: Offset::new(first).unwrap(),
            last_offset: Offset::new(last).unwrap(),
            last_stable_offset: Offset::new(lso).unwrap(),
        }
    }

    #[test]
    fn an_entry_has_kafkas_34_bytes() {
        let bytes = aborted(1, 2, 3, 4).to_bytes();
        let mut expected = vec![0, 0];
        for value in [1i64, 2, 3, 4] {
            expected.extend(value.to_be_bytes());
        }
        assert_eq!(bytes.as_slice(), expected);
    }

    #[test]
    fn damaged_entries_are_refused() {
        let mut bytes = aborted(1, 2, 3, 4).to_bytes();
        assert_eq!(
            decode(&bytes[..33]),
            Err(TransactionIndexError::PartialEntry { size_bytes: 33 })
        );
        bytes[1] = 1;
        assert_eq!(
            decode(&bytes),
            Err(TransactionIndexError::UnknownVersion { entry: 0, version: 1 })
        );
        let backwards = aborted(1, 9, 3, 4).to_bytes();
        assert_eq!(decode(&backwards), Err(TransactionIndexError::OutOfRange { entry: 0 }));
        let mut negative = aborted(1, 2, 3, 4).to_bytes();
        negative[26] = 0x80;
        assert_eq!(decode(&negative), Err(TransactionIndexError::OutOfRange { entry: 0 }));
    }

    #[test]
    fn a_lookup_stops_where_everything_is_decided() {
        let entries = [aborted(1, 0, 10, 5), aborted(2, 5, 20, 21), aborted(3, 30, 40, 41)];
        let mut found = Vec::new();
        assert!(collect_aborted(&entries, Offset::ZERO, Offset::new(12).unwrap(), &mut found));
        assert_eq!(found, entries[..2]);
        found.clear();
        assert!(!collect_aborted(
            &entries,
            Offset::new(11).unwrap(),
            Offset::new(99).unwrap(),
            &mut found
        ));
        assert_eq!(found, entries[1..]);
    }

    proptest! {
        #[test]
        fn entries_read_back(values in prop::collection::vec(any::<(u32, u32, u16, u32)>(), 0..20)) {
            let entries: Vec<_> = values.into_iter().map(|(id, first, length, lso)| {
                aborted(id.into(), first.into(), i64::from(first) + i64::from(length), lso.into())
            }).collect();
            let bytes: Vec<u8> = entries.iter().flat_map(AbortedTransaction::to_bytes).collect();
            prop_assert_eq!(decode(&bytes), Ok(entries));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
