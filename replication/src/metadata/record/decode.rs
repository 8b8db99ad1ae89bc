//! Bytes to records; the layout stands in [`super`]. Nothing in the bytes can panic or reserve more memory
//! than a small multiple of their length.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage::leader_epoch::LeaderEpoch;
use storage::producer_state::ProducerId;
use storage::topic_partition::TopicId;

use super::{
    BrokerRegistrationChangeRecord, ConfigResource, LIST_VERSION, MetadataRecord,
    PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord,
};
use crate::identity::{BrokerEpoch, BrokerId, DirectoryId, IncarnationId, PartitionEpoch};
use crate::metadata::broker_registration::{BrokerListener, FeatureRange, SecurityProtocol};
use crate::metadata::partition_registration::{
    LeaderRecoveryState, PartitionRegistration, Replica,
};

/// Why a list of metadata records cannot be read. Positions are bytes from the start of the list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataDecodeError {
    /// Written by a later release.
    #[error("metadata record list of version {found}; this release reads {LIST_VERSION}")]
    UnknownListVersion {
        /// The version found.
        found: u8,
    },
    /// Written by a later release.
    #[error(
        "metadata record of unknown type {type_id} at byte {position}: the data was written by a later \
         release; start that release"
    )]
    UnknownType {
        /// The type found.
        type_id: u32,
        /// Where the record starts.
        position: usize,
    },
    /// Written by a later release.
    #[error(
        "metadata record {name} of version {found} at byte {position}; this release reads up to \
         {supported}: the data was written by a later release; start that release"
    )]
    NewerVersion {
        /// The record's name.
        name: &'static str,
        /// The version found.
        found: u32,
        /// The latest version that this release reads.
        supported: u32,
        /// Where the record starts.
        position: usize,
    },
    /// The bytes end inside a field.
    #[error("metadata records end inside a field at byte {position}")]
    Truncated {
        /// Where the field starts.
        position: usize,
    },
    /// Bytes are left over.
    #[error("{count} bytes left over at byte {position} of metadata records")]
    TrailingBytes {
        /// How many.
        count: usize,
        /// Where.
        position: usize,
    },
    /// A field holds what it must not.
    #[error("metadata records: {what} at byte {position}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
        /// Where the field ends.
        position: usize,
    },
}

impl MetadataDecodeError {
    /// Whether a later release wrote the bytes (exit 2), in contrast to damage.
    pub fn is_from_a_later_release(&self) -> bool {
        match self {
            MetadataDecodeError::UnknownListVersion { .. }
            | MetadataDecodeError::UnknownType { .. }
            | MetadataDecodeError::NewerVersion { .. } => true,
            MetadataDecodeError::Truncated { .. }
            | MetadataDecodeError::TrailingBytes { .. }
            | MetadataDecodeError::Invalid { .. } => false,
        }
    }
}

type Result<T> = std::result::Result<T, MetadataDecodeError>;

/// Reads one atomic list, all of `bytes`.
///
/// # Errors
/// A later release's record, or damage. What a record says of others (a topic that must exist, say) is
/// checked when it is applied.
pub fn decode_records(bytes: &[u8]) -> Result<Vec<MetadataRecord>> {
    let mut r = Reader { bytes, position: 0, end: bytes.len() };
    let version = r.u8()?;
    if version != LIST_VERSION {
        return Err(MetadataDecodeError::UnknownListVersion { found: version });
    }
    // A record takes at least four bytes and up to some two hundred in memory, so none is reserved ahead.
    let count = r.count(4)?;
    let mut records = Vec::new();
    for _ in 0..count {
        let mut body = r.sub()?;
        records.push(decode_record(&mut body)?);
        body.finish()?;
    }
    r.finish()?;
    Ok(records)
}

fn decode_record(r: &mut Reader<'_>) -> Result<MetadataRecord> {
    let start = r.position;
    let type_id = r.uvarint()?;
    let Some(name) = name_of(type_id) else {
        return Err(MetadataDecodeError::UnknownType { type_id, position: start });
    };
    let version = r.uvarint()?;
    if version > 0 {
        let (supported, position) = (0, start);
        return Err(MetadataDecodeError::NewerVersion {
            name,
            found: version,
            supported,
            position,
        });
    }
    let record = match type_id {
        0 => MetadataRecord::RegisterBroker(register_broker(r)?),
        1 => MetadataRecord::UnregisterBroker {
            broker_id: r.broker()?,
            broker_epoch: r.broker_epoch()?,
        },
        2 => MetadataRecord::Topic { topic_id: r.topic_id()?, name: r.string()? },
        3 => MetadataRecord::Partition(partition(r)?),
        4 => MetadataRecord::Config {
            resource: config_resource(r)?,
            name: r.string()?,
            value: r.optional_string()?,
        },
        5 => return partition_change(r),
        9 => MetadataRecord::RemoveTopic { topic_id: r.topic_id()? },
        12 => MetadataRecord::FeatureLevel { name: r.string()?, level: r.i16()? },
        15 => MetadataRecord::ProducerIds {
            broker_id: r.broker()?,
            broker_epoch: r.broker_epoch()?,
            next_producer_id: {
                let id = r.i64()?;
                r.checked(ProducerId::new(id), "a negative producer id")?
            },
        },
        17 => return registration_change(r),
        _ => return Err(MetadataDecodeError::UnknownType { type_id, position: start }),
    };
    r.tagged(|_, _| Ok(false))?;
    Ok(record)
}

fn name_of(type_id: u32) -> Option<&'static str> {
    Some(match type_id {
        0 => "RegisterBroker",
        1 => "UnregisterBroker",
        2 => "Topic",
        3 => "Partition",
        4 => "Config",
        5 => "PartitionChange",
        9 => "RemoveTopic",
        12 => "FeatureLevel",
        15 => "ProducerIds",
        17 => "BrokerRegistrationChange",
        _ => return None,
    })
}

fn register_broker(r: &mut Reader<'_>) -> Result<RegisterBrokerRecord> {
    Ok(RegisterBrokerRecord {
        broker_id: r.broker()?,
        broker_epoch: match r.i64()? {
            -1 => None,
            epoch => Some(r.checked(BrokerEpoch::new(epoch), "a negative broker epoch")?),
        },
        incarnation_id: IncarnationId::from_bytes(r.array()?),
        directory_id: DirectoryId::from_bytes(r.array()?),
        is_fenced: r.bool()?,
        is_in_controlled_shutdown: r.bool()?,
        rack: r.optional_string()?,
        listeners: {
            let count = r.count(5)?;
            let mut listeners = Vec::new();
            for _ in 0..count {
                listeners.push(listener(r)?);
            }
            listeners
        },
        features: features(r)?,
    })
}

fn listener(r: &mut Reader<'_>) -> Result<BrokerListener> {
    Ok(BrokerListener {
        name: r.string()?,
        host: r.string()?,
        port: u16::from_be_bytes(r.array()?),
        protocol: {
            let id = r.u8()?;
            r.checked(SecurityProtocol::from_id(id), "an unknown security protocol")?
        },
    })
}

fn features(r: &mut Reader<'_>) -> Result<BTreeMap<Arc<str>, FeatureRange>> {
    let mut features = BTreeMap::new();
    for _ in 0..r.count(5)? {
        let name = r.string()?;
        let ascends = features.last_key_value().is_none_or(|(last, _)| *last < name);
        r.checked(ascends.then_some(()), "features out of order")?;
        features.insert(name, FeatureRange { min: r.i16()?, max: r.i16()? });
    }
    Ok(features)
}

fn partition(r: &mut Reader<'_>) -> Result<PartitionRecord> {
    Ok(PartitionRecord {
        topic_id: r.topic_id()?,
        partition: r.partition()?,
        registration: PartitionRegistration {
            replicas: r.replicas()?,
            isr: r.brokers()?,
            elr: r.brokers()?,
            last_known_leader: r.optional_broker()?,
            removing: r.brokers()?,
            adding: r.brokers()?,
            leader: r.optional_broker()?,
            leader_epoch: {
                let epoch = r.i32()?;
                r.checked(LeaderEpoch::new(epoch), "a negative leader epoch")?
            },
            partition_epoch: {
                let epoch = r.i32()?;
                r.checked(PartitionEpoch::new(epoch), "a negative partition epoch")?
            },
            recovery_state: r.recovery_state()?,
        },
    })
}

fn config_resource(r: &mut Reader<'_>) -> Result<ConfigResource> {
    match r.u8()? {
        2 => Ok(ConfigResource::Topic(r.topic_id()?)),
        4 => Ok(r.optional_broker()?.map_or(ConfigResource::Cluster, ConfigResource::Broker)),
        _ => Err(r.invalid("an unknown config resource type")),
    }
}

fn partition_change(r: &mut Reader<'_>) -> Result<MetadataRecord> {
    let mut record = PartitionChangeRecord::new(r.topic_id()?, r.partition()?);
    r.tagged(|tag, r| {
        match tag {
            0 => record.isr = Some(r.brokers()?),
            1 => record.leader = Some(r.optional_broker()?),
            2 => record.replicas = Some(r.replicas()?),
            3 => record.removing = Some(r.brokers()?),
            4 => record.adding = Some(r.brokers()?),
            5 => record.recovery_state = Some(r.recovery_state()?),
            6 => record.elr = Some(r.brokers()?),
            7 => record.last_known_leader = Some(r.optional_broker()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(MetadataRecord::PartitionChange(record))
}

fn registration_change(r: &mut Reader<'_>) -> Result<MetadataRecord> {
    let mut record = BrokerRegistrationChangeRecord {
        broker_id: r.broker()?,
        broker_epoch: r.broker_epoch()?,
        is_fenced: None,
        is_in_controlled_shutdown: None,
    };
    r.tagged(|tag, r| {
        match tag {
            0 => record.is_fenced = Some(r.bool()?),
            1 => record.is_in_controlled_shutdown = Some(r.bool()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(MetadataRecord::BrokerRegistrationChange(record))
}

/// Reads `bytes[position..end]`; positions count from the start of the whole list.
struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    fn invalid(&self, what: &'static str) -> MetadataDecodeError {
        MetadataDecodeError::Invalid { what, position: self.position }
    }

    fn checked<T>(&self, value: Option<T>, what: &'static str) -> Result<T> {
        value.ok_or_else(|| self.invalid(what))
    }

    fn raw(&mut self, size: usize) -> Result<&'a [u8]> {
        if size > self.end - self.position {
            return Err(MetadataDecodeError::Truncated { position: self.position });
        }
        let start = self.position;
        self.position += size;
        Ok(&self.bytes[start..self.position])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.raw(N)?.try_into().expect("raw returns what was asked for"))
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.raw(1)?[0])
    }

    fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid("a boolean that is neither 0 nor 1")),
        }
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn uvarint(&mut self) -> Result<u32> {
        let mut value: u32 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(self.invalid("a number in more bytes than it needs"));
                }
                return Ok(value);
            }
        }
        Err(self.invalid("a number past 32 bits"))
    }

    /// A count of things that take at least `min_bytes` each: refused at once if they cannot all be there.
    fn count(&mut self, min_bytes: usize) -> Result<usize> {
        let position = self.position;
        let count = self.uvarint()? as usize;
        if count > (self.end - self.position) / min_bytes {
            return Err(MetadataDecodeError::Truncated { position });
        }
        Ok(count)
    }

    /// The next length-prefixed bytes, as a reader of their own.
    fn sub(&mut self) -> Result<Reader<'a>> {
        let size = self.count(1)?;
        let position = self.position;
        self.position += size; // `count` has seen that they are there
        Ok(Reader { bytes: self.bytes, position, end: self.position })
    }

    fn finish(&self) -> Result<()> {
        match self.end - self.position {
            0 => Ok(()),
            count => Err(MetadataDecodeError::TrailingBytes { count, position: self.position }),
        }
    }

    /// Reads the tagged fields; `read` says whether it knows the tag. What it does not know is skipped.
    fn tagged(&mut self, mut read: impl FnMut(u32, &mut Reader<'a>) -> Result<bool>) -> Result<()> {
        let mut last = None;
        for _ in 0..self.count(2)? {
            let tag = self.uvarint()?;
            if last.is_some_and(|last| tag <= last) {
                return Err(self.invalid("tags out of order"));
            }
            last = Some(tag);
            let mut field = self.sub()?;
            if read(tag, &mut field)? {
                field.finish()?;
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Arc<str>> {
        let size = self.count(1)?;
        let bytes = self.raw(size)?;
        let text = self.checked(std::str::from_utf8(bytes).ok(), "text that is not UTF-8")?;
        Ok(text.into())
    }

    fn optional_string(&mut self) -> Result<Option<Arc<str>>> {
        if self.bool()? { Ok(Some(self.string()?)) } else { Ok(None) }
    }

    fn topic_id(&mut self) -> Result<TopicId> {
        Ok(TopicId::from_bytes(self.array()?))
    }

    fn partition(&mut self) -> Result<i32> {
        let partition = self.i32()?;
        self.checked((partition >= 0).then_some(partition), "a negative partition")
    }

    fn broker(&mut self) -> Result<BrokerId> {
        let id = self.i32()?;
        self.checked(BrokerId::new(id), "a negative broker id")
    }

    fn optional_broker(&mut self) -> Result<Option<BrokerId>> {
        match self.i32()? {
            -1 => Ok(None),
            id => Ok(Some(self.checked(BrokerId::new(id), "a negative broker id")?)),
        }
    }

    fn broker_epoch(&mut self) -> Result<BrokerEpoch> {
        let epoch = self.i64()?;
        self.checked(BrokerEpoch::new(epoch), "a negative broker epoch")
    }

    fn brokers(&mut self) -> Result<Vec<BrokerId>> {
        let count = self.count(4)?;
        (0..count).map(|_| self.broker()).collect()
    }

    fn replicas(&mut self) -> Result<Vec<Replica>> {
        let count = self.count(20)?;
        (0..count)
            .map(|_| {
                Ok(Replica {
                    broker: self.broker()?,
                    directory: DirectoryId::from_bytes(self.array()?),
                })
            })
            .collect()
    }

    fn recovery_state(&mut self) -> Result<LeaderRecoveryState> {
        let id = self.u8()?;
        self.checked(LeaderRecoveryState::from_id(id), "an unknown recovery state")
    }
}
