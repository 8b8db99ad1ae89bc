use super::*;
use crate::record::{BatchReader, RecordBatch};
use proptest::prelude::*;

type Fields = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn arb_field() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..200))
}

fn arb_records() -> impl Strategy<Value = Vec<Fields>> {
    // Few keys, so that they repeat.
    let key = prop::sample::select(vec![b"a".to_vec(), b"b".to_vec(), b"\xff".to_vec(), vec![]]);
    let headers = prop::collection::vec((key, arb_field()), 0..4);
    prop::collection::vec((0i64..1 << 45, arb_field(), arb_field(), headers), 1..30)
}

fn headers(of: &Fields) -> Vec<Header> {
    of.3.iter()
        .map(|(key, value)| Header {
            key: key.clone().into(),
            value: value.clone().map(Bytes::from),
        })
        .collect()
}

fn build(records: &[Fields], compression: Compression, stamp: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for fields in records {
        let before = builder.size_bytes();
        let bound = BatchBuilder::record_size_bound_bytes(
            fields.1.as_deref(),
            fields.2.as_deref(),
            &headers(fields),
        );
        builder
            .push(fields.0, fields.1.as_deref(), fields.2.as_deref(), &headers(fields))
            .expect("small");
        assert!(builder.size_bytes() <= before + bound);
    }
    builder.build(compression, stamp).expect("small")
}

fn read(bytes: &Bytes) -> Vec<RecordBatch> {
    BatchReader::new(bytes.clone()).collect::<Result<_, _>>().expect("whole batches")
}

proptest! {
    #[test]
    fn records_come_back_with_every_field(records in arb_records(), codec in 0usize..5, sequence in 0i32..1000) {
        let codec = Compression::ALL[codec];
        let stamp = ProducerStamp { producer_id: 7, producer_epoch: 2, base_sequence: sequence };
        let bytes = build(&records, codec, Some(stamp));
        let batches = read(&bytes);
        prop_assert_eq!(batches.len(), 1);
        let batch = &batches[0];
        prop_assert_eq!(batch.compression, codec);
        prop_assert_eq!((batch.producer_id, batch.producer_epoch, batch.base_sequence), (Some(7), 2, sequence));
        prop_assert_eq!(batch.max_timestamp, records.iter().map(|r| r.0).max().expect("not empty"));
        let got: Vec<_> = batch.records(1 << 20).expect("unpacks").collect::<Result<_, _>>().expect("whole");
        prop_assert_eq!(got.len(), records.len());
        for ((record, fields), offset) in got.iter().zip(&records).zip(0..) {
            prop_assert_eq!(record.offset, offset);
            prop_assert_eq!(record.timestamp, Some(fields.0));
            prop_assert_eq!(record.key.as_deref(), fields.1.as_deref());
            prop_assert_eq!(record.value.as_deref(), fields.2.as_deref());
            prop_assert_eq!(record.headers.iter().collect::<Vec<_>>(), headers(fields));
        }
    }

    /// The protocol crate reads what we write, where it loses nothing: one header a record at most, UTF-8 keys.
    #[test]
    fn the_protocol_crate_reads_the_same(records in prop::collection::vec((0i64..1 << 45, arb_field(), arb_field()), 1..20)) {
        let records: Vec<Fields> = records.into_iter().map(|(t, k, v)| (t, k, v, vec![(b"h".to_vec(), None)])).collect();
        let bytes = build(&records, Compression::None, None);
        let set = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes.clone()).expect("decodes");
        prop_assert_eq!(set.records.len(), records.len());
        for (record, fields) in set.records.iter().zip(&records) {
            prop_assert_eq!(record.timestamp, fields.0);
            prop_assert_eq!(record.key.as_deref(), fields.1.as_deref());
            prop_assert_eq!(record.value.as_deref(), fields.2.as_deref());
            prop_assert_eq!(record.headers.len(), 1);
        }
    }

    #[test]
    fn a_batch_cut_short_at_the_end_is_dropped_and_those_before_it_stay(
        records in arb_records(), cut in any::<prop::sample::Index>(),
    ) {
        let one = build(&records, Compression::None, None);
        let two = [one.as_ref(), one.as_ref()].concat();
        let cut = cut.index(two.len());
        let batches = read(&Bytes::from(two).slice(..cut));
        prop_assert_eq!(batches.len(), cut / one.len());
    }

    #[test]
    fn a_flipped_bit_after_the_length_is_noticed(
        records in arb_records(), at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let mut bytes = build(&records, Compression::None, None).to_vec();
        let at = 16 + at.index(bytes.len() - 16);
        bytes[at] ^= 1 << bit;
        prop_assert!(BatchReader::new(bytes.into()).next().expect("an answer").is_err());
    }

    /// With the CRC made anew, so that damage gets past it.
    #[test]
    fn damaged_batches_never_panic(
        records in arb_records(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = build(&records, Compression::None, None).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        for batch in BatchReader::new(bytes.into()).flatten() {
            let _ = batch.next_offset();
            if let Ok(records) = batch.records(1 << 16) {
                for record in records.flatten() {
                    let _ = record.headers.iter().count();
                }
            }
        }
    }
}

#[test]
fn old_message_formats_are_named() {
    let mut bytes = vec![0; 40];
    bytes[11] = 28;
    bytes[16] = 1;
    let error = BatchReader::new(bytes.into()).next().expect("an answer");
    assert_eq!(error, Err(RecordError::MagicUnsupported { magic: 1 }));
}

#[test]
fn records_of_a_log_append_time_batch_bear_its_timestamp() {
    let mut bytes =
        build(&[(5, None, None, vec![]), (9, None, None, vec![])], Compression::None, None)
            .to_vec();
    bytes[22] |= 1 << 3;
    bytes[35..43].copy_from_slice(&77i64.to_be_bytes());
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let batch = &read(&bytes.into())[0];
    let times: Vec<_> =
        batch.records(100).expect("plain").map(|r| r.expect("whole").timestamp).collect();
    assert_eq!(times, [Some(77), Some(77)]);
}

#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
