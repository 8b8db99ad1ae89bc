//! One fault at a time, in Kafka's order, and what passes.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::compression::{compress, decompress};
use crate::crc32c::crc32c;
use crate::producer_state::{ProducerEpoch, ProducerId};
use crate::record_batch::{RecordBatch, RecordBatchBuilder};

const NOW_MS: i64 = 1_700_000_000_000;

fn now() -> Timestamp {
    Timestamp::new(NOW_MS).unwrap()
}

fn at(milliseconds: i64) -> Option<Timestamp> {
    Timestamp::new(milliseconds)
}

fn three_records() -> RecordBatchBuilder {
    RecordBatchBuilder::new()
        .record(at(NOW_MS - 5), Some(b"a"), Some(b"1"), &[(b"h", Some(b"x")), (b"h", None)])
        .record(at(NOW_MS - 1), None, Some(b"2"), &[])
        .record(at(NOW_MS - 3), Some(b"c"), None, &[])
}

/// Puts `value` at `position` and makes the CRC right again.
fn patched(mut batch: Vec<u8>, position: usize, value: &[u8]) -> Vec<u8> {
    batch[position..position + value.len()].copy_from_slice(value);
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn check(batch: Vec<u8>) -> Result<ValidatedBatch, ValidationError> {
    validate(&Bytes::from(batch), &ValidationConfig::default(), now())
}

fn whole(validated: &ValidatedBatch) -> Vec<u8> {
    [validated.header.as_bytes(), &validated.body[..]].concat()
}

macro_rules! assert_refused {
    ($result:expr, $pattern:pat) => {
        let result = $result;
        assert!(matches!(result, Err($pattern)), "{result:?}");
    };
}

#[test]
fn a_good_batch_passes_untouched_and_its_body_aliases_the_frame() {
    for codec in Compression::ALL {
        let bytes = Bytes::from(three_records().compression(codec, None).build().unwrap());
        let validated = validate(&bytes, &ValidationConfig::default(), now()).unwrap();
        assert_eq!(whole(&validated), bytes);
        assert_eq!(validated.body.as_ptr(), bytes[61..].as_ptr(), "{codec:?}");
        assert_eq!(validated.log_append_time, None);
    }
}

#[test]
fn bytes_that_hold_no_whole_batch_are_refused() {
    let batch = three_records().build().unwrap();
    for cut in [0, 1, 11, 12, 16, 17, 60, batch.len() - 1] {
        assert_refused!(check(batch[..cut].to_vec()), ValidationError::NoBatch { .. });
    }
}

#[test]
fn a_cut_second_batch_is_ignored_and_a_whole_one_refused() {
    let batch = three_records().build().unwrap();
    for tail in [1, 11, 12, 17, batch.len() - 1] {
        let validated = check([&batch[..], &batch[..tail]].concat()).unwrap();
        assert_eq!(whole(&validated), batch);
    }
    assert_refused!(check(batch.repeat(2)), ValidationError::MoreThanOneBatch);
    let corrupt_tail = [&batch[..], &[0; 20]].concat();
    assert_refused!(check(corrupt_tail), ValidationError::ImpossibleLength { length: 0 });
}

#[test]
fn formats_and_lengths_that_cannot_be_are_refused() {
    let batch = || three_records().build().unwrap();
    for magic in [0, 1] {
        assert_refused!(check(patched(batch(), 16, &[magic])), ValidationError::OldMagic { .. });
    }
    for magic in [3, 0xff] {
        let result = check(patched(batch(), 16, &[magic]));
        assert_refused!(result, ValidationError::UnknownMagic { .. });
    }
    for length in [-1i32, 0, 13, 14, 48] {
        let result = check(patched(batch(), 8, &length.to_be_bytes()));
        assert_refused!(
            result,
            ValidationError::ImpossibleLength { .. } | ValidationError::UnknownMagic { .. }
        );
    }
    let result = check(patched(batch(), 8, &i32::MAX.to_be_bytes()));
    assert_refused!(result, ValidationError::NoBatch { .. });
}

#[test]
fn a_base_offset_is_refused_before_size_and_crc() {
    let mut batch = three_records().build().unwrap();
    batch[7] = 1;
    batch[30] ^= 1;
    let config = ValidationConfig { max_message_bytes: 10, ..Default::default() };
    let mut result = validate(&Bytes::from(batch.clone()), &config, now());
    assert_refused!(result, ValidationError::NonZeroBaseOffset { base_offset: 1 });
    batch[7] = 0;
    result = validate(&Bytes::from(batch.clone()), &config, now());
    assert_refused!(result, ValidationError::TooLarge { max_message_bytes: 10, .. });
    assert_refused!(check(batch), ValidationError::WrongCrc { .. });
}

#[test]
fn a_batch_may_be_as_large_as_the_topic_allows() {
    let batch = Bytes::from(three_records().build().unwrap());
    for (limit, fits) in [(batch.len(), true), (batch.len() - 1, false)] {
        let config = ValidationConfig { max_message_bytes: limit, ..Default::default() };
        assert_eq!(validate(&batch, &config, now()).is_ok(), fits);
    }
}

#[test]
fn counts_must_agree() {
    let batch = || three_records().build().unwrap();
    for (position, value) in [(57, 2i32), (57, 0), (57, -1), (57, 4), (23, 1), (23, -1), (23, 3)] {
        let result = check(patched(batch(), position, &value.to_be_bytes()));
        assert_refused!(result, ValidationError::WrongCounts { .. });
    }
    // Both lie alike: the records themselves do not agree.
    for (count, error) in [(2, "bytes follow"), (4, "ends within")] {
        let both = patched(batch(), 57, &i32::to_be_bytes(count));
        let both = patched(both, 23, &i32::to_be_bytes(count - 1));
        let refused = check(both).unwrap_err();
        assert!(matches!(refused, ValidationError::Records(_)), "{refused}");
        assert!(refused.to_string().contains(error), "{refused}");
    }
}

#[test]
fn clients_write_no_control_batches_and_coordinators_do() {
    let control = Bytes::from(three_records().control().build().unwrap());
    assert_refused!(check(control.to_vec()), ValidationError::ControlBatch);
    let config = ValidationConfig {
        origin: AppendOrigin::Coordinator,
        compression: TopicCompression::To(Compression::Gzip, None),
        ..Default::default()
    };
    let validated = validate(&control, &config, now()).unwrap();
    assert_eq!(whole(&validated), control, "and it is never compressed");
}

#[test]
fn a_producer_id_needs_sequence_and_epoch() {
    let (id, epoch) = (ProducerId::new(5).unwrap(), ProducerEpoch::ZERO);
    let batch = || three_records().producer(id, epoch, Some(0)).build().unwrap();
    assert!(check(batch()).is_ok());
    let no_sequence = patched(batch(), 53, &(-1i32).to_be_bytes());
    let missing = "sequence";
    assert!(
        matches!(check(no_sequence), Err(ValidationError::IncompleteProducer { missing: m }) if m == missing)
    );
    let no_epoch = patched(batch(), 51, &(-1i16).to_be_bytes());
    assert_refused!(check(no_epoch), ValidationError::IncompleteProducer { missing: "epoch" });
}

#[test]
fn unknown_codecs_and_corrupt_blocks_are_told_apart_from_wrong_records() {
    for codec in [5, 6, 7] {
        let result = check(patched(three_records().build().unwrap(), 22, &[codec]));
        assert_refused!(result, ValidationError::UnknownCompression { .. });
    }
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        // The records as they are are no block of the codec.
        let result = check(patched(three_records().build().unwrap(), 22, &[codec.id()]));
        assert_refused!(result, ValidationError::Compression(_));
        let batch = three_records().compression(codec, None).build().unwrap();
        let four = patched(patched(batch, 57, &4i32.to_be_bytes()), 23, &3i32.to_be_bytes());
        assert_refused!(check(four), ValidationError::Records(_));
    }
}

#[test]
fn a_bomb_is_refused_at_the_budget() {
    let mut body = Compressor::new(Compression::Zstd, None, usize::MAX).unwrap();
    let chunk = vec![0; 1 << 20];
    // One record that announces 1 GiB and goes on past the budget.
    let length = [0xfe, 0xff, 0xff, 0xff, 0x07];
    std::io::Write::write_all(&mut body, &length).unwrap();
    std::io::Write::write_all(&mut body, &[0, 0, 0, 1, 0xe0, 0xff, 0xff, 0xff, 0x07]).unwrap();
    for _ in 0..=MAX_DECOMPRESSED_BATCH_BYTES >> 20 {
        std::io::Write::write_all(&mut body, &chunk).unwrap();
    }
    let body = body.finish().unwrap();
    assert!(body.len() < 100_000, "{}", body.len());
    let mut header = BatchHeader::parse(&RecordBatchBuilder::new().build().unwrap()).unwrap();
    header.set_body(Compression::Zstd, body.len()).unwrap();
    let batch = patched([header.as_bytes(), &body[..]].concat(), 57, &1i32.to_be_bytes());
    let max_bytes = MAX_DECOMPRESSED_BATCH_BYTES;
    let result = check(batch);
    assert!(
        matches!(result, Err(ValidationError::DecompressedTooLarge { max_bytes: m }) if m == max_bytes),
        "{result:?}"
    );
}

#[test]
fn wrong_inner_offsets_are_refused_in_every_codec() {
    for codec in Compression::ALL {
        let batch = RecordBatchBuilder::new()
            .compression(codec, None)
            .record_at(1, at(NOW_MS), None, Some(b"x"), &[])
            .record_at(1, at(NOW_MS), None, Some(b"x"), &[]);
        let batch_index = 0;
        let result = check(batch.build().unwrap());
        assert!(
            matches!(result, Err(ValidationError::WrongOffsetDelta { batch_index: b, offset_delta: 1 }) if b == batch_index),
            "{codec:?}: {result:?}"
        );
    }
}

#[test]
fn each_record_without_key_is_named_on_a_compacted_topic() {
    let config = ValidationConfig { compacted: true, ..Default::default() };
    for codec in Compression::ALL {
        let batch = three_records().record(at(NOW_MS), None, None, &[]).compression(codec, None);
        let result = validate(&Bytes::from(batch.build().unwrap()), &config, now());
        let error = result.unwrap_err();
        assert!(matches!(error, ValidationError::InvalidRecords { .. }), "{error}");
        let named: Vec<_> = error.invalid_records().iter().map(|r| r.batch_index).collect();
        assert_eq!(named, [1, 3]);
    }
}

#[test]
fn timestamps_out_of_range_are_named_to_the_millisecond() {
    let config = ValidationConfig { before_max_ms: 100, after_max_ms: 10, ..Default::default() };
    let times = [NOW_MS - 100, NOW_MS - 101, NOW_MS + 10, NOW_MS + 11, -1];
    let mut builder = RecordBatchBuilder::new();
    for time in times {
        builder.push(at(time), None, None, &[]);
    }
    let error = validate(&Bytes::from(builder.build().unwrap()), &config, now()).unwrap_err();
    assert!(matches!(error, ValidationError::InvalidTimestamps { .. }), "{error}");
    let named: Vec<_> = error.invalid_records().iter().map(|r| r.batch_index).collect();
    assert_eq!(named, [1, 3], "no timestamp is no fault");
}

#[test]
fn the_list_of_bad_records_has_an_end() {
    let config = ValidationConfig { compacted: true, ..Default::default() };
    let mut builder = RecordBatchBuilder::new();
    for _ in 0..MAX_INVALID_RECORDS + 5 {
        builder.push(at(NOW_MS), None, None, &[]);
    }
    let error = validate(&Bytes::from(builder.build().unwrap()), &config, now()).unwrap_err();
    assert_eq!(error.invalid_records().len(), MAX_INVALID_RECORDS);
}

#[test]
fn a_false_maximum_timestamp_is_made_true() {
    let honest = three_records().build().unwrap();
    let lie = patched(honest.clone(), 35, &(NOW_MS + 77).to_be_bytes());
    let validated = check(lie).unwrap();
    assert_eq!(validated.header.max_timestamp(), at(NOW_MS - 1));
    assert_eq!(whole(&validated), honest, "with its CRC");
}

#[test]
fn a_producers_append_time_bit_is_cleared_on_create_time_topics() {
    let batch = three_records().log_append_time(now()).build().unwrap();
    let validated = check(batch.clone()).unwrap();
    assert_eq!(validated.header.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(validated.header.max_timestamp(), Some(now()), "as Kafka reads its records");
    assert_eq!(validated.header.verify_crc(&validated.body), Ok(()));
    // Without a time, or on the other kind of topic, it is an error.
    let no_time = patched(batch.clone(), 35, &(-1i64).to_be_bytes());
    assert_refused!(check(no_time), ValidationError::InvalidTimestamps { .. });
    let timestamp_type = TimestampType::LogAppendTime;
    let config = ValidationConfig { timestamp_type, ..Default::default() };
    let result = validate(&Bytes::from(batch), &config, now());
    assert_refused!(result, ValidationError::InvalidTimestamps { .. });
}

#[test]
fn log_append_time_topics_stamp_the_batch_and_leave_the_records() {
    let timestamp_type = TimestampType::LogAppendTime;
    let config = ValidationConfig { timestamp_type, after_max_ms: 0, ..Default::default() };
    // Far in the future: no matter here.
    let batch = RecordBatchBuilder::new().record(at(NOW_MS * 2), None, Some(b"x"), &[]);
    let bytes = Bytes::from(batch.build().unwrap());
    let validated = validate(&bytes, &config, now()).unwrap();
    assert_eq!(validated.log_append_time, Some(now()));
    assert_eq!(validated.header.max_timestamp(), Some(now()));
    assert_eq!(validated.header.timestamp_type(), timestamp_type);
    assert_eq!(validated.header.verify_crc(&validated.body), Ok(()));
    assert_eq!(validated.body, bytes[61..]);
}

#[test]
fn conversion_changes_codec_size_and_crc_and_nothing_else() {
    let producer = (ProducerId::new(5).unwrap(), ProducerEpoch::new(2).unwrap());
    for from in Compression::ALL {
        for to in Compression::ALL {
            let batch = three_records()
                .compression(from, None)
                .producer(producer.0, producer.1, Some(9))
                .transactional();
            let bytes = Bytes::from(batch.build().unwrap());
            let config = ValidationConfig {
                compression: TopicCompression::To(to, None),
                ..Default::default()
            };
            let validated = validate(&bytes, &config, now()).unwrap();
            let stored = whole(&validated);
            let (stored, _) = RecordBatch::parse(&stored).unwrap();
            let (sent, _) = RecordBatch::parse(&bytes).unwrap();
            assert_eq!(stored.verify_crc(), Ok(()));
            assert_eq!(stored.compression(), to);
            assert_eq!(stored.producer(), sent.producer());
            assert!(stored.is_transactional());
            assert_eq!(
                decompress(to, stored.records_block(), 1 << 20).unwrap(),
                decompress(from, sent.records_block(), 1 << 20).unwrap(),
            );
            if from == to {
                assert_eq!(validated.body.as_ptr(), bytes[61..].as_ptr(), "in place");
            }
        }
    }
}

#[test]
fn the_size_is_checked_again_after_conversion() {
    let value = vec![0; 100_000];
    let batch = RecordBatchBuilder::new().compression(Compression::Zstd, None).record(
        at(NOW_MS),
        None,
        Some(&value),
        &[],
    );
    let bytes = Bytes::from(batch.build().unwrap());
    let config = ValidationConfig {
        max_message_bytes: 50_000,
        compression: TopicCompression::To(Compression::None, None),
        ..Default::default()
    };
    let result = validate(&bytes, &config, now());
    assert_refused!(
        result,
        ValidationError::ConvertedTooLarge { codec: Compression::None, max_message_bytes: 50_000 }
    );
}

proptest! {
    /// Whatever is flipped, inside and outside the CRC's reach: an answer, and what passes is a batch whose
    /// CRC is right and whose records are those announced.
    #[test]
    fn damaged_batches_are_refused_or_whole(
        codec in 0u8..5,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        makes_crc_right: bool,
        target in prop::option::of(0u8..5),
    ) {
        let codec = Compression::from_id(codec).unwrap();
        let mut batch = three_records().compression(codec, None).build().unwrap();
        for (position, byte) in damage {
            let position = position.index(batch.len());
            batch[position] = byte;
        }
        if makes_crc_right {
            batch = patched(batch, 0, &[]);
        }
        let target = target.and_then(Compression::from_id);
        let config = ValidationConfig {
            compression: target.map_or(TopicCompression::Producer, |to| TopicCompression::To(to, None)),
            ..Default::default()
        };
        if let Ok(validated) = validate(&Bytes::from(batch), &config, now()) {
            let stored = whole(&validated);
            let (stored, size) = RecordBatch::parse(&stored).unwrap();
            prop_assert_eq!(size, stored.bytes().len());
            prop_assert_eq!(stored.verify_crc(), Ok(()));
            let block = decompress(stored.compression(), stored.records_block(), 1 << 20).unwrap();
            let deltas: Vec<_> = crate::record::records(&block, stored.record_count())
                .map(|record| record.unwrap().offset_delta)
                .collect();
            prop_assert!(deltas.into_iter().eq(0..=stored.last_offset_delta()));
        }
    }

    #[test]
    fn noise_in_a_codec_is_no_panic(noise in prop::collection::vec(any::<u8>(), 0..300), codec in 0u8..5, count in 1i32..) {
        let codec = Compression::from_id(codec).unwrap();
        let body = compress(codec, None, &noise).unwrap();
        let mut header = BatchHeader::parse(&RecordBatchBuilder::new().build().unwrap()).unwrap();
        header.set_body(codec, body.len()).unwrap();
        let batch = [header.as_bytes(), &body[..]].concat();
        let batch = patched(batch, 23, &(count - 1).to_be_bytes());
        let _ = check(patched(batch, 57, &count.to_be_bytes()));
    }
}
