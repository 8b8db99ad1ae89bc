//! Records to bytes; the layout stands in [`super`].

use bytes::Bytes;

use super::{
    BrokerRegistrationChangeRecord, ConfigResource, LIST_VERSION, MetadataRecord,
    PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord,
};
use crate::identity::{BrokerEpoch, BrokerId};
use crate::metadata::partition_registration::Replica;

/// The bytes of one atomic list.
///
/// # Panics
/// If a string or list has 2^32 bytes or members, which no request that was accepted can hold.
pub fn encode_records(records: &[MetadataRecord]) -> Bytes {
    let mut list = Writer(vec![LIST_VERSION]);
    list.count(records.len());
    for record in records {
        let body = encode_record(record);
        list.bytes(&body.0);
    }
    list.0.into()
}

fn encode_record(record: &MetadataRecord) -> Writer {
    let mut w = Writer(Vec::new());
    let mut tagged: Vec<(u32, Writer)> = Vec::new();
    w.uvarint(record.type_id());
    w.uvarint(0); // every type is at its first version
    match record {
        MetadataRecord::RegisterBroker(record) => register_broker(&mut w, record),
        MetadataRecord::UnregisterBroker { broker_id, broker_epoch } => {
            w.broker(Some(*broker_id));
            w.i64(broker_epoch.value());
        }
        MetadataRecord::Topic { topic_id, name } => {
            w.raw(topic_id.as_bytes());
            w.string(name);
        }
        MetadataRecord::Partition(record) => partition(&mut w, record),
        MetadataRecord::Config { resource, name, value } => {
            config_resource(&mut w, *resource);
            w.string(name);
            w.optional_string(value.as_deref());
        }
        MetadataRecord::PartitionChange(record) => {
            w.raw(record.topic_id.as_bytes());
            w.i32(record.partition);
            tagged = partition_change(record);
        }
        MetadataRecord::RemoveTopic { topic_id } => w.raw(topic_id.as_bytes()),
        MetadataRecord::FeatureLevel { name, level } => {
            w.string(name);
            w.i16(*level);
        }
        MetadataRecord::ProducerIds { broker_id, broker_epoch, next_producer_id } => {
            w.broker(Some(*broker_id));
            w.i64(broker_epoch.value());
            w.i64(next_producer_id.value());
        }
        MetadataRecord::BrokerRegistrationChange(record) => {
            w.broker(Some(record.broker_id));
            w.i64(record.broker_epoch.value());
            tagged = registration_change(record);
        }
    }
    w.count(tagged.len());
    for (tag, field) in tagged {
        w.uvarint(tag);
        w.bytes(&field.0);
    }
    w
}

impl MetadataRecord {
    fn type_id(&self) -> u32 {
        match self {
            MetadataRecord::RegisterBroker(_) => 0,
            MetadataRecord::UnregisterBroker { .. } => 1,
            MetadataRecord::Topic { .. } => 2,
            MetadataRecord::Partition(_) => 3,
            MetadataRecord::Config { .. } => 4,
            MetadataRecord::PartitionChange(_) => 5,
            MetadataRecord::RemoveTopic { .. } => 9,
            MetadataRecord::FeatureLevel { .. } => 12,
            MetadataRecord::ProducerIds { .. } => 15,
            MetadataRecord::BrokerRegistrationChange(_) => 17,
        }
    }
}

fn register_broker(w: &mut Writer, record: &RegisterBrokerRecord) {
    w.broker(Some(record.broker_id));
    w.i64(BrokerEpoch::to_wire(record.broker_epoch));
    w.raw(record.incarnation_id.as_bytes());
    w.raw(record.directory_id.as_bytes());
    w.bool(record.is_fenced);
    w.bool(record.is_in_controlled_shutdown);
    w.optional_string(record.rack.as_deref());
    w.count(record.listeners.len());
    for listener in &record.listeners {
        w.string(&listener.name);
        w.string(&listener.host);
        w.raw(&listener.port.to_be_bytes());
        w.u8(listener.protocol.id());
    }
    w.count(record.features.len());
    for (name, range) in &record.features {
        w.string(name);
        w.i16(range.min);
        w.i16(range.max);
    }
}

fn partition(w: &mut Writer, record: &PartitionRecord) {
    let registration = &record.registration;
    w.raw(record.topic_id.as_bytes());
    w.i32(record.partition);
    w.replicas(&registration.replicas);
    w.brokers(&registration.isr);
    w.brokers(&registration.elr);
    w.broker(registration.last_known_leader);
    w.brokers(&registration.removing);
    w.brokers(&registration.adding);
    w.broker(registration.leader);
    w.i32(registration.leader_epoch.value());
    w.i32(registration.partition_epoch.value());
    w.u8(registration.recovery_state.id());
}

fn config_resource(w: &mut Writer, resource: ConfigResource) {
    match resource {
        ConfigResource::Topic(topic_id) => {
            w.u8(2);
            w.raw(topic_id.as_bytes());
        }
        ConfigResource::Broker(broker_id) => {
            w.u8(4);
            w.broker(Some(broker_id));
        }
        ConfigResource::Cluster => {
            w.u8(4);
            w.broker(None);
        }
    }
}

fn partition_change(record: &PartitionChangeRecord) -> Vec<(u32, Writer)> {
    let mut tagged = Vec::new();
    let mut tag = |number: u32, write: &dyn Fn(&mut Writer)| {
        let mut field = Writer(Vec::new());
        write(&mut field);
        tagged.push((number, field));
    };
    if let Some(isr) = &record.isr {
        tag(0, &|w| w.brokers(isr));
    }
    if let Some(leader) = record.leader {
        tag(1, &|w| w.broker(leader));
    }
    if let Some(replicas) = &record.replicas {
        tag(2, &|w| w.replicas(replicas));
    }
    if let Some(removing) = &record.removing {
        tag(3, &|w| w.brokers(removing));
    }
    if let Some(adding) = &record.adding {
        tag(4, &|w| w.brokers(adding));
    }
    if let Some(recovery_state) = record.recovery_state {
        tag(5, &|w| w.u8(recovery_state.id()));
    }
    if let Some(elr) = &record.elr {
        tag(6, &|w| w.brokers(elr));
    }
    if let Some(last_known_leader) = record.last_known_leader {
        tag(7, &|w| w.broker(last_known_leader));
    }
    tagged
}

fn registration_change(record: &BrokerRegistrationChangeRecord) -> Vec<(u32, Writer)> {
    [(0, record.is_fenced), (1, record.is_in_controlled_shutdown)]
        .into_iter()
        .filter_map(|(tag, value)| Some((tag, Writer(vec![u8::from(value?)]))))
        .collect()
}

struct Writer(Vec<u8>);

impl Writer {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    fn count(&mut self, count: usize) {
        self.uvarint(u32::try_from(count).expect("requests are bounded far below 2^32 bytes"));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    fn string(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn optional_string(&mut self, text: Option<&str>) {
        self.bool(text.is_some());
        if let Some(text) = text {
            self.string(text);
        }
    }

    fn broker(&mut self, id: Option<BrokerId>) {
        self.i32(BrokerId::to_wire(id));
    }

    fn brokers(&mut self, ids: &[BrokerId]) {
        self.count(ids.len());
        for &id in ids {
            self.broker(Some(id));
        }
    }

    fn replicas(&mut self, replicas: &[Replica]) {
        self.count(replicas.len());
        for replica in replicas {
            self.broker(Some(replica.broker));
            self.raw(replica.directory.as_bytes());
        }
    }
}
