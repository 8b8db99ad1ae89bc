//! Golden bytes of every record, properties of the codec, and what it does with bad bytes.

use proptest::prelude::*;

use super::*;
use crate::identity::PartitionEpoch;
use crate::metadata::broker_registration::SecurityProtocol;
use storage::leader_epoch::LeaderEpoch;

pub(crate) fn broker(id: i32) -> BrokerId {
    BrokerId::new(id).unwrap()
}

fn uuid(first: u8) -> [u8; 16] {
    std::array::from_fn(|n| first.wrapping_add(n as u8))
}

fn topic(first: u8) -> TopicId {
    TopicId::from_bytes(uuid(first))
}

fn epoch(value: i64) -> BrokerEpoch {
    BrokerEpoch::new(value).unwrap()
}

/// One record of each kind, with every field set.
fn examples() -> Vec<MetadataRecord> {
    let replica =
        |id, first| Replica { broker: broker(id), directory: DirectoryId::from_bytes(uuid(first)) };
    vec![
        MetadataRecord::RegisterBroker(RegisterBrokerRecord {
            broker_id: broker(1),
            broker_epoch: None,
            incarnation_id: IncarnationId::from_bytes(uuid(0x10)),
            directory_id: DirectoryId::from_bytes(uuid(0x20)),
            is_fenced: true,
            is_in_controlled_shutdown: false,
            rack: Some("r1".into()),
            listeners: vec![BrokerListener {
                name: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9092,
                protocol: SecurityProtocol::Plaintext,
            }],
            features: BTreeMap::from([("f".into(), FeatureRange { min: 0, max: 1 })]),
        }),
        MetadataRecord::UnregisterBroker { broker_id: broker(1), broker_epoch: epoch(0x0102) },
        MetadataRecord::Topic { topic_id: topic(0x30), name: "orders".into() },
        MetadataRecord::Partition(PartitionRecord {
            topic_id: topic(0x30),
            partition: 2,
            registration: PartitionRegistration {
                replicas: vec![replica(1, 0x20), replica(2, 0x40)],
                isr: vec![broker(1)],
                elr: vec![broker(2)],
                last_known_leader: None,
                removing: vec![],
                adding: vec![broker(2)],
                leader: Some(broker(1)),
                leader_epoch: LeaderEpoch::new(5).unwrap(),
                partition_epoch: PartitionEpoch::new(7).unwrap(),
                recovery_state: LeaderRecoveryState::Recovering,
            },
        }),
        MetadataRecord::Config {
            resource: ConfigResource::Topic(topic(0x30)),
            name: "retention.ms".into(),
            value: Some("1000".into()),
        },
        MetadataRecord::Config {
            resource: ConfigResource::Broker(broker(3)),
            name: "a".into(),
            value: None,
        },
        MetadataRecord::Config {
            resource: ConfigResource::Cluster,
            name: "b".into(),
            value: Some("".into()),
        },
        MetadataRecord::PartitionChange(PartitionChangeRecord {
            topic_id: topic(0x30),
            partition: 2,
            isr: Some(vec![]),
            leader: Some(None),
            replicas: Some(vec![replica(9, 0x50)]),
            removing: Some(vec![broker(1)]),
            adding: Some(vec![broker(2)]),
            recovery_state: Some(LeaderRecoveryState::Recovered),
            elr: Some(vec![broker(1), broker(2)]),
            last_known_leader: Some(Some(broker(1))),
        }),
        MetadataRecord::RemoveTopic { topic_id: topic(0x30) },
        MetadataRecord::FeatureLevel { name: "f".into(), level: 1 },
        MetadataRecord::ProducerIds {
            broker_id: broker(1),
            broker_epoch: epoch(3),
            next_producer_id: ProducerId::new(1000).unwrap(),
        },
        MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChangeRecord {
            broker_id: broker(1),
            broker_epoch: epoch(3),
            is_fenced: Some(false),
            is_in_controlled_shutdown: Some(true),
        }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of version 0 of every record, each in a list of its own. A difference here means that a running
/// cluster's disk cannot be read: add a version instead.
#[test]
fn the_bytes_of_every_record_are_golden() {
    let golden = include_str!("golden.txt");
    let encoded: Vec<String> = examples()
        .iter()
        .map(|record| hex(&encode_records(std::slice::from_ref(record))))
        .collect();
    let expected: Vec<&str> =
        golden.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(encoded, expected);
}

#[test]
fn every_record_reads_back() {
    let records = examples();
    assert_eq!(decode_records(&encode_records(&records)), Ok(records));
    assert_eq!(decode_records(&encode_records(&[])), Ok(Vec::new()));
}

#[test]
fn an_unknown_tag_is_skipped() {
    // RemoveTopic with tags 3 (two bytes) and 9 (none).
    let mut bytes = vec![1, 1, 25, 9, 0];
    bytes.extend(uuid(0x30));
    bytes.extend([2, 3, 2, 0xaa, 0xbb, 9, 0]);
    let expected = vec![MetadataRecord::RemoveTopic { topic_id: topic(0x30) }];
    assert_eq!(decode_records(&bytes), Ok(expected));
}

#[test]
fn a_later_releases_records_are_errors_that_name_them() {
    let unknown = decode_records(&[1, 1, 3, 99, 0, 0]).unwrap_err();
    assert_eq!(unknown, MetadataDecodeError::UnknownType { type_id: 99, position: 3 });
    let newer = decode_records(&[1, 1, 3, 9, 1, 0]).unwrap_err();
    assert!(newer.to_string().contains("RemoveTopic of version 1"), "{newer}");
    let list = decode_records(&[2, 0]).unwrap_err();
    for error in [unknown, newer, list] {
        assert!(error.is_from_a_later_release(), "{error}");
    }
    assert!(!decode_records(&[1, 1]).unwrap_err().is_from_a_later_release());
}

#[test]
fn bad_bytes_are_told_apart() {
    let what = |bytes: &[u8]| match decode_records(bytes) {
        Err(MetadataDecodeError::Invalid { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let feature = |tail: &[u8]| {
        let mut bytes = vec![1, 1, 6 + tail.len() as u8, 12, 0, 1, b'f', 0, 1];
        bytes.extend(tail);
        bytes
    };
    assert!(decode_records(&feature(&[0])).is_ok());
    assert_eq!(what(&feature(&[2, 5, 0, 5, 0])), "tags out of order");
    assert_eq!(what(&[1, 1, 7, 12, 0, 1, 0xff, 0, 1, 0]), "text that is not UTF-8");
    assert_eq!(what(&[1, 0x80, 0x00]), "a number in more bytes than it needs");
    assert_eq!(what(&[1, 0xff, 0xff, 0xff, 0xff, 0x1f]), "a number past 32 bits");
    let trailing = MetadataDecodeError::TrailingBytes { count: 1, position: 2 };
    assert_eq!(decode_records(&[1, 0, 0]), Err(trailing));
    assert_eq!(decode_records(&[]), Err(MetadataDecodeError::Truncated { position: 0 }));
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused_before_anything_is_reserved() {
    // Four billion records, then four billion members of an ISR.
    let records = decode_records(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(records, Err(MetadataDecodeError::Truncated { position: 1 }));
    let mut change = vec![1, 1, 30, 5, 0];
    change.extend(uuid(0));
    change.extend([0, 0, 0, 0, 1, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    change[2] = (change.len() - 3) as u8;
    assert_eq!(decode_records(&change), Err(MetadataDecodeError::Truncated { position: 28 }));
}

fn arb_broker() -> impl Strategy<Value = BrokerId> {
    (0..=i32::MAX).prop_map(broker)
}

fn arb_brokers() -> impl Strategy<Value = Vec<BrokerId>> {
    proptest::collection::vec(arb_broker(), 0..5)
}

fn arb_text() -> impl Strategy<Value = Arc<str>> {
    proptest::string::string_regex("[a-zé.]{0,200}").unwrap().prop_map(Arc::from)
}

fn arb_change() -> impl Strategy<Value = MetadataRecord> {
    let option = proptest::option::of::<BoxedStrategy<_>>;
    let brokers = move || option(arb_brokers().boxed());
    let leader = || proptest::option::of(proptest::option::of(arb_broker()));
    let replica = (arb_broker(), any::<[u8; 16]>())
        .prop_map(|(broker, id)| Replica { broker, directory: DirectoryId::from_bytes(id) });
    (
        (any::<[u8; 16]>(), 0..=i32::MAX, brokers(), leader(), brokers(), brokers(), brokers()),
        (
            leader(),
            proptest::option::of(proptest::collection::vec(replica, 0..4)),
            any::<Option<bool>>(),
        ),
    )
        .prop_map(
            |((id, partition, isr, leader, removing, adding, elr), (last, replicas, state))| {
                MetadataRecord::PartitionChange(PartitionChangeRecord {
                    topic_id: TopicId::from_bytes(id),
                    partition,
                    isr,
                    leader,
                    replicas,
                    removing,
                    adding,
                    recovery_state: state.map(|recovering| match recovering {
                        true => LeaderRecoveryState::Recovering,
                        false => LeaderRecoveryState::Recovered,
                    }),
                    elr,
                    last_known_leader: last,
                })
            },
        )
}

fn arb_record() -> impl Strategy<Value = MetadataRecord> {
    prop_oneof![
        arb_change(),
        (any::<[u8; 16]>(), arb_text()).prop_map(|(id, name)| MetadataRecord::Topic {
            topic_id: TopicId::from_bytes(id),
            name
        }),
        (arb_broker(), arb_text(), proptest::option::of(arb_text())).prop_map(
            |(id, name, value)| {
                MetadataRecord::Config { resource: ConfigResource::Broker(id), name, value }
            }
        ),
        (arb_text(), any::<i16>())
            .prop_map(|(name, level)| MetadataRecord::FeatureLevel { name, level }),
        proptest::sample::select(examples()),
    ]
}

proptest! {
    #[test]
    fn records_read_back(records in proptest::collection::vec(arb_record(), 0..12)) {
        prop_assert_eq!(decode_records(&encode_records(&records)), Ok(records));
    }

    /// The decoder accepts exactly one encoding of each list: what decodes and has no unknown tags encodes to
    /// the same bytes.
    #[test]
    fn a_changed_byte_is_an_error_or_other_records(
        records in proptest::collection::vec(arb_record(), 1..6), at: proptest::sample::Index, to: u8
    ) {
        let mut bytes = encode_records(&records).to_vec();
        let at = at.index(bytes.len());
        let changed = bytes[at] != to;
        bytes[at] = to;
        if let Ok(decoded) = decode_records(&bytes)
            && encode_records(&decoded) == bytes
        {
            prop_assert_eq!(decoded != records, changed);
        }
    }

    #[test]
    fn a_cut_list_is_an_error(
        records in proptest::collection::vec(arb_record(), 1..6), at: proptest::sample::Index
    ) {
        let bytes = encode_records(&records);
        let is_error = decode_records(&bytes[..at.index(bytes.len())]).is_err();
        prop_assert!(is_error);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_records(&bytes);
        let mut list = vec![1];
        list.extend(bytes);
        let _ = decode_records(&list);
    }
}
