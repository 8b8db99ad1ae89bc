//! What is written is stored as it was.

use std::time::Duration;

use bytes::Bytes;
use client::fetcher::FetcherConfig;
use client::producer::{Acks, ProducerConfig, ProducerRecord};
use client::record::{Compression, Header};
use client::{ClientError, ResponseError};

use crate::{Fixture, values};

fn header(key: &'static str, value: Option<&'static [u8]>) -> Header {
    Header { key: Bytes::from_static(key.as_bytes()), value: value.map(Bytes::from_static) }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn every_field_of_a_record_comes_back_with_every_codec() {
    let fixture = Fixture::new("fields", 1, &[]).await;
    let mut from = 0;
    for compression in Compression::ALL {
        let config = ProducerConfig { compression, ..ProducerConfig::default() };
        let mut records: Vec<ProducerRecord> = (0..200)
            .map(|n| ProducerRecord {
                key: (n % 3 > 0).then(|| Bytes::from(format!("key {}", n % 7))),
                value: (n % 5 > 0).then(|| Bytes::from("value ".repeat(n))),
                headers: match n % 2 {
                    0 => Vec::new(),
                    _ => vec![header("h", Some(b"1")), header("h", None), header("", Some(b""))],
                },
                timestamp: Some(1_700_000_000_000 + n as i64),
                ..fixture.record("")
            })
            .collect();
        records[7].value = Some(Bytes::new());
        let stored = fixture.produce(config, records.clone()).await.expect("stored");
        let read = fixture.read(FetcherConfig::default(), 0, from, records.len()).await;
        for ((read, sent), stored) in read.iter().zip(&records).zip(&stored) {
            assert_eq!(Some(read.offset), stored.offset, "{compression}");
            assert_eq!(read.offset, from, "{compression}");
            assert_eq!(
                (&read.key, &read.value, read.timestamp),
                (&sent.key, &sent.value, sent.timestamp)
            );
            assert_eq!(read.headers.iter().collect::<Vec<_>>(), sent.headers, "{compression}");
            from += 1;
        }
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn each_batch_keeps_the_codec_of_its_producer() {
    let fixture = Fixture::new("codec", 1, &[]).await;
    for compression in Compression::ALL {
        let config = ProducerConfig { compression, ..ProducerConfig::default() };
        fixture.produce(config, [fixture.record(&"x".repeat(500))]).await.expect("stored");
    }
    let mut fetcher = client::fetcher::Fetcher::new(&fixture.cluster, FetcherConfig::default());
    fetcher.assign(&fixture.topic, 0, 0);
    let mut codecs = Vec::new();
    while codecs.len() < Compression::ALL.len() {
        for partition in fetcher.poll(Duration::from_secs(30)).await.expect("an answer") {
            codecs.extend(partition.batches().iter().map(|batch| batch.compression));
        }
    }
    assert_eq!(codecs, Compression::ALL);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn many_batches_in_flight_are_stored_once_and_in_order() {
    let fixture = Fixture::new("order", 3, &[]).await;
    let config = ProducerConfig { batch_size_bytes: 200, ..ProducerConfig::default() };
    let records = (0..3000)
        .map(|n| ProducerRecord { partition: Some(n % 3), ..fixture.record(&n.to_string()) });
    let stored = fixture.produce(config, records).await.expect("stored");
    for (stored, n) in stored.iter().zip(0..) {
        assert_eq!((stored.partition, stored.offset), (n % 3, Some(i64::from(n / 3))));
    }
    for partition in 0..3 {
        let read = fixture.read(FetcherConfig::default(), partition, 0, 1000).await;
        let expected: Vec<String> = (0..1000).map(|n| (3 * n + partition).to_string()).collect();
        assert_eq!(values(&read), expected);
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn keys_decide_the_partition_as_in_java() {
    let fixture = Fixture::new("keys", 10, &[]).await;
    // Java's murmur2, positive, modulo 10.
    for (key, partition) in [("21", 0), ("foobar", 6), ("abc", 7)] {
        let record =
            ProducerRecord { partition: None, key: Some(key.into()), ..fixture.record("v") };
        let expected = client::producer::partitioner::partition_for_key(key.as_bytes(), 10);
        assert_eq!(expected, partition, "{key}");
        let stored = fixture.produce(ProducerConfig::default(), [record]).await.expect("stored");
        assert_eq!(stored[0].partition, expected, "{key}");
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_record_that_is_too_large_is_refused_and_the_others_are_stored() {
    let fixture = Fixture::new("large", 1, &[("max.message.bytes", "2000")]).await;
    let producer =
        fixture.producer(ProducerConfig { batch_size_bytes: 1, ..ProducerConfig::default() }).await;
    let sizes = [10, 20, 5000, 30, 6000, 7000, 40, 50, 60, 70];
    let mut deliveries = Vec::new();
    for size in sizes {
        deliveries
            .push(producer.send(fixture.record(&"x".repeat(size))).await.expect("handed over"));
    }
    for (delivery, size) in deliveries.into_iter().zip(sizes) {
        match delivery.get().await {
            Ok(_) => assert!(size < 2000, "{size} bytes were accepted"),
            Err(error) => {
                assert!(size > 2000, "{size}: {error}");
                assert_eq!(error.kafka_error(), Some(ResponseError::MessageTooLarge));
            }
        }
    }
    let read = fixture.read(FetcherConfig::default(), 0, 0, 7).await;
    let read: Vec<usize> = values(&read).iter().map(String::len).collect();
    assert_eq!(read, [10, 20, 30, 40, 50, 60, 70]);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_record_of_a_million_bytes_is_stored() {
    let fixture = Fixture::new("million", 1, &[]).await;
    let value: String =
        (0..1_000_000u32).map(|n| char::from(b'a' + (n.wrapping_mul(n) >> 7) as u8 % 26)).collect();
    for compression in Compression::ALL {
        let config = ProducerConfig { compression, ..ProducerConfig::default() };
        fixture.produce(config, [fixture.record(&value)]).await.expect("stored");
    }
    let read = fixture.read(FetcherConfig::default(), 0, 0, Compression::ALL.len()).await;
    assert!(values(&read).iter().all(|read| *read == value));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn fewer_acks_store_records_too() {
    let fixture = Fixture::new("acks", 1, &[]).await;
    let leader = ProducerConfig { acks: Acks::Leader, ..ProducerConfig::default() };
    let stored = fixture.produce(leader, [fixture.record("leader")]).await.expect("stored");
    assert_eq!(stored[0].offset, Some(0));
    let none = ProducerConfig { acks: Acks::None, ..ProducerConfig::default() };
    let stored = fixture.produce(none, [fixture.record("none")]).await.expect("sent");
    assert_eq!(stored[0].offset, None);
    assert_eq!(values(&fixture.read(FetcherConfig::default(), 0, 0, 2).await), ["leader", "none"]);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_topic_may_set_the_timestamps() {
    let fixture = Fixture::new("time", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let record = ProducerRecord { timestamp: Some(5), ..fixture.record("v") };
    let stored = fixture.produce(ProducerConfig::default(), [record]).await.expect("stored");
    assert!(stored[0].timestamp > 1_600_000_000_000, "{stored:?}");
    let read = fixture.read(FetcherConfig::default(), 0, 0, 1).await;
    assert_eq!(read[0].timestamp, Some(stored[0].timestamp));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn partitions_that_do_not_exist_are_refused() {
    let fixture = Fixture::new("nowhere", 1, &[]).await;
    let producer = fixture.producer(ProducerConfig::default()).await;
    let record = ProducerRecord { partition: Some(1), ..fixture.record("v") };
    let error = producer.send(record).await.expect_err("there is only partition 0");
    assert!(matches!(error, ClientError::Kafka { .. }), "{error}");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn flush_waits_for_everything() {
    let fixture = Fixture::new("flush", 2, &[]).await;
    let config = ProducerConfig { linger: Duration::from_millis(50), ..ProducerConfig::default() };
    let producer = fixture.producer(config).await;
    for n in 0..100 {
        let record = ProducerRecord { partition: Some(n % 2), ..fixture.record("v") };
        drop(producer.send(record).await.expect("handed over"));
    }
    producer.flush().await;
    for partition in 0..2 {
        assert_eq!(fixture.read(FetcherConfig::default(), partition, 0, 50).await.len(), 50);
    }
}
