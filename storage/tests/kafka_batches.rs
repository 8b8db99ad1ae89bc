//! Batches as Apache Kafka 4.1.0 stored them, sent by its Java client in every codec: three records with
//! null key, null value, and the header `h` twice, once null. The one set of bytes here we did not write.

use bytes::Bytes;
use storage::compression::{Compression, decompress};
use storage::log_validator::{ValidationConfig, validate};
use storage::producer_state::ProducerId;
use storage::record::{Record, records};
use storage::record_batch::RecordBatch;
use storage::timestamp::Timestamp;

const BATCHES: [(Compression, &str); 5] = [
    (
        Compression::None,
        "0000000000000000000000950000000002df1d569e0000000000020000018bcfe568000000018bcfe568\
         0200000000000000000000000000000000000354000000086b6579303276616c75652030206f66206120\
         676f6c64656e20626174636804026802310268014c000202013276616c75652031206f66206120676f6c\
         64656e206261746368040268023102680122000404086b657932010402680231026801",
    ),
    (
        Compression::Gzip,
        "0000000000000000000000840000000002e9c16baa0001000000020000018bcfe568000000018bcfe568\
         020000000000000002000000000000000000031f8b08000000000000ff0b616060e0c84ead34302a4bcc\
         294d553050c84f53485448cfcf4949cd53484a2c49ce6061ca603264ca60f461606262842a33c4ad4c89\
         81850564a211234c0400cbc0edd664000000",
    ),
    (
        Compression::Snappy,
        "0000000000000000000000920000000002af6c44990002000000020000018bcfe568000000018bcfe568\
         0200000000000000040000000000000000000382534e415050590000000001000000010000004d64c054\
         000000086b6579303276616c75652030206f66206120676f6c64656e2062617463680402680231026801\
         4c0002020132092700316627004422000404086b657932010402680231026801",
    ),
    (
        Compression::Lz4,
        "00000000000000000000008b00000000024c96183a0003000000020000018bcfe568000000018bcfe568\
         0200000000000000060000000000000000000304224d186040824b000000f32154000000086b65793032\
         76616c75652030206f66206120676f6c64656e20626174636804026802310268014c0002020127001f31\
         27000740220004045200a03201040268023102680100000000",
    ),
    (
        Compression::Zstd,
        "0000000000000000000000850000000002d15c51100004000000020000018bcfe568000000018bcfe568\
         0200000000000000080000000000000000000328b52ffd005844020032440f1690b90d80f932605e843c\
         36ddfbe7360e2433c2d6dc32d8dff713516365320f58fc2fc0febe9f4d246950848bc50e4d6a303dcaca\
         4a0b3a8d95b93b210200c00a50ae8202010000",
    ),
];

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.bytes().map(|c| (c as char).to_digit(16).expect("a hex digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn batches_of_kafka_are_read_in_every_codec() {
    for (number, (codec, hex)) in BATCHES.into_iter().enumerate() {
        let bytes = bytes_of(hex);
        let (batch, size) = RecordBatch::parse(&bytes).unwrap();
        assert_eq!(size, bytes.len());
        assert_eq!(batch.verify_crc(), Ok(()));
        assert_eq!(batch.compression(), codec);
        assert_eq!(batch.producer().unwrap().id, ProducerId::new(2 * number as i64).unwrap());

        let block = decompress(codec, batch.records_block(), 1 << 20).unwrap();
        let all: Vec<Record<'_>> =
            records(&block, batch.record_count()).map(|record| record.unwrap()).collect();
        let keys: Vec<_> = all.iter().map(|record| record.key).collect();
        assert_eq!(keys, [Some(&b"key0"[..]), None, Some(b"key2")]);
        let values: Vec<_> = all.iter().map(|record| record.value).collect();
        let first = &b"value 0 of a golden batch"[..];
        assert_eq!(values, [Some(first), Some(b"value 1 of a golden batch"), None]);
        for (index, record) in all.iter().enumerate() {
            let timestamp = batch.record_timestamp(record.timestamp_delta);
            assert_eq!(timestamp, Timestamp::new(1_700_000_000_000 + index as i64));
            let headers: Vec<_> = record.headers.map(|header| (header.key, header.value)).collect();
            assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (b"h", None)]);
        }
    }
}

#[test]
fn batches_of_kafkas_client_pass_validation_unchanged() {
    let now = Timestamp::new(1_700_000_000_000).unwrap();
    for (codec, hex) in BATCHES {
        let bytes = Bytes::from(bytes_of(hex));
        let validated = validate(&bytes, &ValidationConfig::default(), now).unwrap();
        assert_eq!(validated.header.as_bytes()[..], bytes[..61], "{codec:?}");
        assert_eq!(validated.body, bytes[61..]);
    }
}
