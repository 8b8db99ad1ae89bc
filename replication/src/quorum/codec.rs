//! What one batch of the metadata log, and one snapshot file, say. Pure; golden bytes at the foot.
//!
//! Both files are made of Kafka record batches of one record each, whose value is one of the payloads below, so that
//! Kafka's dump tool reads them; the batch gives length and CRC-32C. Offsets of the log count *batches*, not Raft
//! entries. All integers are big-endian.
//!
//! **Log payload** (`__cluster_metadata-0/*.log`)
//!
//! | at | bytes | field | |
//! |---|---|---|---|
//! | 0 | 1 | version | 1; a newer one is refused |
//! | 1 | 1 | body type | 0 hard state only, 1 entry, 2 restart |
//! | 2 | 8 | term | hard state: latest term seen |
//! | 10 | 8 | vote | hard state: Raft id voted for in it, 0 = none |
//! | 18 | 8 | commit | hard state: an index known committed, at most this entry's |
//! | 26 | 8 | durable end | every batch below this offset was fsynced before this one was written |
//! | 34 | 8 | index | entry only; replaces every earlier entry with an index ≥ this |
//! | 42 | 8 | entry term | entry only |
//! | 50 | 1 | entry type | entry only: 0 metadata records (empty: a new leader's first entry) |
//! | 51 | … | data | entry only: to the end of the value |
//!
//! A *restart* says that a snapshot received from the leader has replaced the log: no entry before it counts.
//!
//! **Snapshot payloads** (`<index>-<term>.checkpoint`): one header, any number of chunks, one footer.
//!
//! | at | bytes | field | |
//! |---|---|---|---|
//! | 0 | 1 | version | 1; a newer one is refused |
//! | 1 | 1 | part | 0 header, 1 chunk, 2 footer |
//! | | | *header* | |
//! | 2 | 8, 8 | index, term | of the last entry that the snapshot contains |
//! | 18 | 2 + 8·n | voters | count, Raft ids ascending |
//! | … | 2 + 8·n | learners | count, Raft ids ascending |
//! | … | 2 + n | cluster id | length, UTF-8 |
//! | | | *chunk* | |
//! | 2 | … | data | the image's bytes, in order, to the end of the value |
//! | | | *footer* | |
//! | 2 | 8 | length | of all chunks together |
//! | 10 | 4 | CRC-32C | of all chunks together |

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use super::raft_id::RaftId;
use crate::identity::ClusterId;

/// Version that this program writes, and the newest that it reads, of both payloads.
pub const PAYLOAD_VERSION: u8 = 1;

/// The longest `data` of one entry, in bytes. A larger command is refused before it is proposed.
pub const MAX_ENTRY_DATA_BYTES: usize = 8 * 1024 * 1024;

/// The most image bytes that one chunk of a snapshot file carries.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;

/// Where every group begins.
pub const BOOTSTRAP_INDEX: u64 = 1;

/// The term of the bootstrap snapshot; the first leader's is the next. Not 0, which is `raft`'s answer for "no such entry".
pub const BOOTSTRAP_TERM: u64 = 1;

const MAX_MEMBERS: usize = 4096;

/// What Raft must remember across a restart, beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: u64,
    /// Raft id voted for in that term; 0 for none.
    pub vote: u64,
    /// An index known to be committed. May lag: the leader of the next term finds out again.
    pub commit: u64,
}

/// One entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Position in the Raft log; the bootstrap snapshot stands at 1, so the first entry is 2.
    pub index: u64,
    /// Term of the leader that proposed it.
    pub term: u64,
    /// Encoded metadata records, or nothing: the entry with which a leader opens its term.
    pub data: Bytes,
}

/// What a batch carries beside the hard state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogBody {
    /// Nothing: only the hard state moved.
    HardStateOnly,
    /// One entry.
    Entry(LogEntry),
    /// A received snapshot replaced the log: entries before this batch are void.
    Restart,
}

/// The payload of one batch of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPayload {
    /// The hard state as of this batch.
    pub hard_state: HardState,
    /// Batches with an offset below this were fsynced before this one was written.
    pub durable_end: u64,
    /// The rest.
    pub body: LogBody,
}

/// Who belongs to the group. One change at a time, so there is never a joint configuration to store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// They vote and count.
    pub voters: BTreeSet<RaftId>,
    /// They only follow.
    pub learners: BTreeSet<RaftId>,
}

impl Members {
    /// Whether `id` is a voter or a learner.
    pub fn contains(&self, id: RaftId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }
}

/// State of the group and of the metadata up to one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumSnapshot {
    /// Index of the last entry inside; 1 for the bootstrap snapshot.
    pub index: u64,
    /// Term of that entry; [`BOOTSTRAP_TERM`] for the bootstrap snapshot, which no leader proposed.
    pub term: u64,
    /// Members as of `index`.
    pub members: Members,
    /// Which cluster this is.
    pub cluster_id: ClusterId,
    /// The metadata image, encoded; empty in the bootstrap snapshot.
    pub data: Bytes,
}

/// A payload that cannot be understood. A newer one means that a newer program wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumDecodeError {
    /// Written by a newer highwater.
    #[error(
        "{what} has version {found}; this program reads up to version {PAYLOAD_VERSION}, a newer highwater wrote it"
    )]
    NewerVersion {
        /// Which payload.
        what: &'static str,
        /// Its version.
        found: u8,
    },
    /// A type byte that this program does not know: also a newer highwater's.
    #[error("{what} {found} is unknown to this program, a newer highwater wrote it")]
    UnknownType {
        /// Which type byte.
        what: &'static str,
        /// Its value.
        found: u8,
    },
    /// Shorter than its fields, or longer.
    #[error("{what} does not fit its length of {length} bytes")]
    Length {
        /// Which payload.
        what: &'static str,
        /// Bytes there are.
        length: usize,
    },
    /// A field with an impossible value.
    #[error("{what} is not possible: {value}")]
    Value {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
}

impl QuorumDecodeError {
    /// Whether a newer program wrote it, so that the answer is to run that one (exit 2), not to suspect the disk.
    pub fn is_newer(&self) -> bool {
        matches!(
            self,
            QuorumDecodeError::NewerVersion { .. } | QuorumDecodeError::UnknownType { .. }
        )
    }
}

const LOG: &str = "metadata log batch";
const SNAPSHOT: &str = "metadata snapshot";

impl LogPayload {
    /// The value of the batch's only record.
    pub fn encode(&self) -> Bytes {
        let data_bytes = match &self.body {
            LogBody::Entry(entry) => 17 + entry.data.len(),
            LogBody::HardStateOnly | LogBody::Restart => 0,
        };
        let mut out = BytesMut::with_capacity(34 + data_bytes);
        out.put_u8(PAYLOAD_VERSION);
        out.put_u8(match self.body {
            LogBody::HardStateOnly => 0,
            LogBody::Entry(_) => 1,
            LogBody::Restart => 2,
        });
        out.put_u64(self.hard_state.term);
        out.put_u64(self.hard_state.vote);
        out.put_u64(self.hard_state.commit);
        out.put_u64(self.durable_end);
        if let LogBody::Entry(entry) = &self.body {
            out.put_u64(entry.index);
            out.put_u64(entry.term);
            out.put_u8(0);
            out.put_slice(&entry.data);
        }
        out.freeze()
    }

    /// Reads a payload; `value` is whole, its CRC already verified.
    ///
    /// # Errors
    /// Anything but exactly one payload of a version and types that this program knows.
    pub fn decode(value: &[u8]) -> Result<LogPayload, QuorumDecodeError> {
        let mut fields = Fields { what: LOG, rest: value, length: value.len() };
        fields.version()?;
        let body_type = fields.u8()?;
        let hard_state =
            HardState { term: fields.u64()?, vote: fields.u64()?, commit: fields.u64()? };
        let durable_end = fields.u64()?;
        let body = match body_type {
            0 => LogBody::HardStateOnly,
            1 => {
                let (index, term) = (fields.u64()?, fields.u64()?);
                match fields.u8()? {
                    0 => {}
                    found => {
                        return Err(QuorumDecodeError::UnknownType { what: "entry type", found });
                    }
                }
                // Index 1 is the bootstrap snapshot, index 0 and term 0 are before everything.
                if index < 2 {
                    return Err(QuorumDecodeError::Value { what: "entry index", value: index });
                }
                if term == 0 || term > hard_state.term {
                    return Err(QuorumDecodeError::Value { what: "entry term", value: term });
                }
                LogBody::Entry(LogEntry {
                    index,
                    term,
                    data: Bytes::copy_from_slice(fields.take_rest()),
                })
            }
            2 => LogBody::Restart,
            found => {
                return Err(QuorumDecodeError::UnknownType {
                    what: "metadata log body type",
                    found,
                });
            }
        };
        fields.end()?;
        Ok(LogPayload { hard_state, durable_end, body })
    }
}

impl QuorumSnapshot {
    /// The values of the file's records, in order.
    pub fn encode(&self) -> Vec<Bytes> {
        let mut header = BytesMut::new();
        header.put_u8(PAYLOAD_VERSION);
        header.put_u8(0);
        header.put_u64(self.index);
        header.put_u64(self.term);
        for members in [&self.members.voters, &self.members.learners] {
            header.put_u16(u16::try_from(members.len()).expect("a group has at most MAX_MEMBERS"));
            members.iter().for_each(|id| header.put_u64(id.value()));
        }
        header.put_u16(
            u16::try_from(self.cluster_id.as_str().len()).expect("a cluster id is a short name"),
        );
        header.put_slice(self.cluster_id.as_str().as_bytes());
        let mut parts = vec![header.freeze()];
        for chunk in self.data.chunks(SNAPSHOT_CHUNK_BYTES) {
            let mut part = BytesMut::with_capacity(2 + chunk.len());
            part.put_u8(PAYLOAD_VERSION);
            part.put_u8(1);
            part.put_slice(chunk);
            parts.push(part.freeze());
        }
        let mut footer = BytesMut::with_capacity(14);
        footer.put_u8(PAYLOAD_VERSION);
        footer.put_u8(2);
        footer.put_u64(self.data.len() as u64);
        footer.put_u32(crc32c(&self.data));
        parts.push(footer.freeze());
        parts
    }

    /// The same parts in one buffer, each behind its length in 4 bytes: how a snapshot travels to a peer.
    pub fn encode_contiguous(&self) -> Bytes {
        let parts = self.encode();
        let mut out = BytesMut::with_capacity(parts.iter().map(|part| 4 + part.len()).sum());
        for part in parts {
            out.put_u32(u32::try_from(part.len()).expect("parts are chunks"));
            out.put_slice(&part);
        }
        out.freeze()
    }

    /// Reads what [`QuorumSnapshot::encode_contiguous`] wrote.
    ///
    /// # Errors
    /// As [`QuorumSnapshot::decode`].
    pub fn decode_contiguous(bytes: &[u8]) -> Result<QuorumSnapshot, QuorumDecodeError> {
        let mut fields = Fields { what: SNAPSHOT, rest: bytes, length: bytes.len() };
        let mut parts = Vec::new();
        while !fields.rest.is_empty() {
            let length = fields.u32()? as usize;
            parts.push(fields.take(length)?);
        }
        QuorumSnapshot::decode(parts)
    }

    /// Reads what [`QuorumSnapshot::encode`] wrote.
    ///
    /// # Errors
    /// Anything but exactly one whole snapshot of a version that this program knows.
    pub fn decode<'a>(
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<QuorumSnapshot, QuorumDecodeError> {
        let mut parts = parts.into_iter();
        let mut snapshot = Self::decode_header(parts.next().unwrap_or_default())?;
        let mut data = BytesMut::new();
        loop {
            let part = parts.next().unwrap_or_default();
            let mut fields = Fields { what: SNAPSHOT, rest: part, length: part.len() };
            fields.version()?;
            match fields.u8()? {
                1 => data.extend_from_slice(fields.take_rest()),
                2 => {
                    let (length, crc) = (fields.u64()?, fields.u32()?);
                    fields.end()?;
                    if length != data.len() as u64 {
                        return Err(QuorumDecodeError::Value {
                            what: "length in the snapshot's footer",
                            value: length,
                        });
                    }
                    if crc != crc32c(&data) {
                        return Err(QuorumDecodeError::Value {
                            what: "CRC in the snapshot's footer",
                            value: crc.into(),
                        });
                    }
                    break;
                }
                found => {
                    return Err(QuorumDecodeError::UnknownType { what: "snapshot part", found });
                }
            }
        }
        if parts.next().is_some() {
            return Err(QuorumDecodeError::Length {
                what: "metadata snapshot behind its footer",
                length: data.len(),
            });
        }
        snapshot.data = data.freeze();
        Ok(snapshot)
    }

    fn decode_header(part: &[u8]) -> Result<QuorumSnapshot, QuorumDecodeError> {
        let mut fields = Fields { what: SNAPSHOT, rest: part, length: part.len() };
        fields.version()?;
        match fields.u8()? {
            0 => {}
            found => {
                return Err(QuorumDecodeError::UnknownType {
                    what: "first part of a snapshot",
                    found,
                });
            }
        }
        let (index, term) = (fields.u64()?, fields.u64()?);
        let members = Members { voters: fields.raft_ids()?, learners: fields.raft_ids()? };
        let cluster_id_bytes = fields.u16()?.into();
        let cluster_id = std::str::from_utf8(fields.take(cluster_id_bytes)?)
            .ok()
            .and_then(ClusterId::new)
            .ok_or(QuorumDecodeError::Value {
                what: "length of something that is no cluster id",
                value: cluster_id_bytes as u64,
            })?;
        fields.end()?;
        if index < BOOTSTRAP_INDEX {
            return Err(QuorumDecodeError::Value { what: "snapshot index", value: index });
        }
        if term < BOOTSTRAP_TERM {
            return Err(QuorumDecodeError::Value { what: "snapshot term", value: term });
        }
        if members.voters.is_empty()
            || members.voters.intersection(&members.learners).next().is_some()
        {
            return Err(QuorumDecodeError::Value {
                what: "count of voters",
                value: members.voters.len() as u64,
            });
        }
        Ok(QuorumSnapshot { index, term, members, cluster_id, data: Bytes::new() })
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes))
        .expect("a CRC-32C has 32 bits")
}

/// Big-endian fields off the front of a payload.
struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
    length: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], QuorumDecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(QuorumDecodeError::Length { what: self.what, length: self.length })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], QuorumDecodeError> {
        Ok(self.take(N)?.try_into().expect("take gives what was asked for"))
    }

    fn u8(&mut self) -> Result<u8, QuorumDecodeError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, QuorumDecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, QuorumDecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, QuorumDecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn version(&mut self) -> Result<(), QuorumDecodeError> {
        match self.u8()? {
            PAYLOAD_VERSION => Ok(()),
            0 => Err(QuorumDecodeError::Value { what: "payload version", value: 0 }),
            found => Err(QuorumDecodeError::NewerVersion { what: self.what, found }),
        }
    }

    fn raft_ids(&mut self) -> Result<BTreeSet<RaftId>, QuorumDecodeError> {
        let count = usize::from(self.u16()?);
        if count > MAX_MEMBERS {
            return Err(QuorumDecodeError::Value { what: "count of members", value: count as u64 });
        }
        let mut ids = BTreeSet::new();
        for _ in 0..count {
            let value = self.u64()?;
            let id = RaftId::from_value(value)
                .ok_or(QuorumDecodeError::Value { what: "Raft id", value })?;
            if !ids.insert(id) {
                return Err(QuorumDecodeError::Value { what: "Raft id named twice", value });
            }
        }
        Ok(ids)
    }

    fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn end(&self) -> Result<(), QuorumDecodeError> {
        match self.rest {
            [] => Ok(()),
            _ => Err(QuorumDecodeError::Length { what: self.what, length: self.length }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{BrokerId, DirectoryId};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn raft_id(node_id: i32, directory: u8) -> RaftId {
        RaftId::new(BrokerId::new(node_id).unwrap(), &DirectoryId::from_bytes([directory; 16]))
    }

    #[test]
    fn golden_bytes_of_the_log_s_payloads() {
        let hard_state = HardState { term: 3, vote: raft_id(1, 7).value(), commit: 41 };
        let entry = LogEntry { index: 42, term: 3, data: Bytes::from_static(b"records") };
        let golden = [
            (LogBody::HardStateOnly, GOLDEN_HARD_STATE),
            (LogBody::Entry(entry), GOLDEN_ENTRY),
            (LogBody::Restart, GOLDEN_RESTART),
        ];
        for (body, bytes) in golden {
            let payload = LogPayload { hard_state, durable_end: 17, body };
            assert_eq!(hex(&payload.encode()), bytes);
            assert_eq!(LogPayload::decode(&payload.encode()), Ok(payload));
        }
    }

    const GOLDEN_HARD_STATE: &str =
        "010000000000000000030000000255f5a13200000000000000290000000000000011";
    const GOLDEN_ENTRY: &str = concat!(
        "010100000000000000030000000255f5a13200000000000000290000000000000011",
        "000000000000002a0000000000000003007265636f726473"
    );
    const GOLDEN_RESTART: &str =
        "010200000000000000030000000255f5a13200000000000000290000000000000011";

    #[test]
    fn golden_bytes_of_a_snapshot_s_parts() {
        let snapshot = QuorumSnapshot {
            index: 42,
            term: 3,
            members: Members {
                voters: [raft_id(1, 7), raft_id(2, 8)].into(),
                learners: [raft_id(3, 9)].into(),
            },
            cluster_id: ClusterId::new("MkU3OEVBNTcwNTJENDM2Qk").unwrap(),
            data: Bytes::from_static(b"image"),
        };
        let parts = snapshot.encode();
        assert_eq!(parts.iter().map(|part| hex(part)).collect::<Vec<_>>(), GOLDEN_SNAPSHOT);
        assert_eq!(
            QuorumSnapshot::decode(parts.iter().map(|part| &part[..])),
            Ok(snapshot.clone())
        );
        assert_eq!(QuorumSnapshot::decode_contiguous(&snapshot.encode_contiguous()), Ok(snapshot));
    }

    const GOLDEN_SNAPSHOT: [&str; 3] = [
        concat!(
            "0100000000000000002a000000000000000300020000000255f5a132000000037d13b3aa",
            "0001000000047affd68200164d6b55334f4556424e5463774e544a454e444d32516b"
        ),
        "0101696d616765",
        "0102000000000000000595fbfcbe",
    ];

    #[test]
    fn what_a_newer_program_wrote_is_named_as_such() {
        let payload = LogPayload {
            hard_state: HardState { term: 3, vote: 0, commit: 1 },
            durable_end: 0,
            body: LogBody::Entry(LogEntry { index: 2, term: 3, data: Bytes::new() }),
        };
        for (position, value) in [(0, 2), (1, 3), (50, 1)] {
            let mut bytes = payload.encode().to_vec();
            bytes[position] = value;
            let error = LogPayload::decode(&bytes).unwrap_err();
            assert!(error.is_newer(), "byte {position}: {error}");
        }
    }

    #[test]
    fn an_image_larger_than_a_chunk_comes_back_whole_and_a_missing_chunk_is_seen() {
        let snapshot = QuorumSnapshot {
            index: 5,
            term: 2,
            members: Members { voters: [raft_id(0, 1)].into(), learners: [].into() },
            cluster_id: ClusterId::new("c").unwrap(),
            data: (0..SNAPSHOT_CHUNK_BYTES * 2 + 10).map(|at| (at / 7) as u8).collect(),
        };
        let mut parts = snapshot.encode();
        assert_eq!(parts.len(), 5);
        assert_eq!(QuorumSnapshot::decode(parts.iter().map(|part| &part[..])), Ok(snapshot));
        parts.swap(1, 2);
        assert!(QuorumSnapshot::decode(parts.iter().map(|part| &part[..])).is_err(), "swapped");
        parts.remove(1);
        assert!(QuorumSnapshot::decode(parts.iter().map(|part| &part[..])).is_err(), "missing");
        parts.pop();
        assert!(QuorumSnapshot::decode(parts.iter().map(|part| &part[..])).is_err(), "no footer");
    }

    proptest! {
        #[test]
        fn any_entry_survives_its_bytes(index in 2u64.., term in 1u64.., data: Vec<u8>, vote: u64, commit: u64, durable_end: u64) {
            let body = LogBody::Entry(LogEntry { index, term, data: data.into() });
            let hard_state = HardState { term, vote, commit };
            let payload = LogPayload { hard_state, durable_end, body };
            prop_assert_eq!(LogPayload::decode(&payload.encode()), Ok(payload));
        }

        #[test]
        fn no_bytes_panic_a_decoder(bytes: Vec<u8>, known in any::<bool>()) {
            let mut bytes = bytes;
            if known && bytes.len() > 1 {
                bytes[0] = PAYLOAD_VERSION;
                bytes[1] %= 3;
            }
            let _ = LogPayload::decode(&bytes);
            let _ = QuorumSnapshot::decode([&bytes[..]]);
            let _ = QuorumSnapshot::decode_contiguous(&bytes);
        }
    }
}
