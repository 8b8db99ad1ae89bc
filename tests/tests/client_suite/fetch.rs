//! What is stored is read from where one asks.

use std::collections::BTreeMap;
use std::time::Duration;

use client::ResponseError;
use client::admin::IsolationLevel;
use client::fetcher::{Fetcher, FetcherConfig, OffsetReset};
use client::producer::{ProducerConfig, ProducerRecord};

use crate::{Fixture, values};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
#[ignore = "needs a broker"]
async fn reading_may_begin_within_a_batch() {
    let fixture = Fixture::new("within", 1, &[]).await;
    let records: Vec<_> = (0..10).map(|n| fixture.record(&n.to_string())).collect();
    fixture
        .produce(ProducerConfig { linger: PATIENCE / 300, ..ProducerConfig::default() }, records)
        .await
        .expect("stored");
    for from in 0..10 {
        let read = fixture.read(FetcherConfig::default(), 0, from, 10 - from as usize).await;
        assert_eq!(read[0].offset, from);
        assert_eq!(values(&read), (from..10).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn many_partitions_are_read_whole_with_small_answers() {
    let fixture = Fixture::new("many", 8, &[]).await;
    let config = ProducerConfig { batch_size_bytes: 3000, ..ProducerConfig::default() };
    // Partition 7 stays empty.
    let records = (0..1400).map(|n| ProducerRecord {
        partition: Some(n % 7),
        ..fixture.record(&format!("{n:0>500}"))
    });
    fixture.produce(config, records).await.expect("stored");
    let config =
        FetcherConfig { max_bytes: 10_000, partition_max_bytes: 4000, ..FetcherConfig::default() };
    let mut fetcher = Fetcher::new(&fixture.cluster, config);
    (0..8).for_each(|partition| fetcher.assign(&fixture.topic, partition, 0));
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    while next.values().sum::<i64>() < 1400 {
        let fetched = fetcher.poll(PATIENCE).await.expect("an answer");
        assert!(!fetched.is_empty(), "nothing within {PATIENCE:?}: {next:?}");
        for partition in fetched {
            for record in partition.records() {
                let record = record.expect("whole");
                let next = next.entry(partition.partition).or_default();
                assert_eq!(record.offset, *next, "partition {}", partition.partition);
                let expected =
                    format!("{:0>500}", record.offset * 7 + i64::from(partition.partition));
                assert_eq!(values(&[record]), [expected]);
                *next += 1;
            }
            assert_eq!(partition.high_watermark, if partition.partition == 7 { 0 } else { 200 });
        }
    }
    assert_eq!(next.len(), 7);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_reader_at_the_end_gets_what_comes() {
    let fixture = Fixture::new("tail", 1, &[]).await;
    for isolation in [IsolationLevel::ReadUncommitted, IsolationLevel::ReadCommitted] {
        let producer = fixture.producer(ProducerConfig::default()).await;
        let mut fetcher =
            Fetcher::new(&fixture.cluster, FetcherConfig { isolation, ..FetcherConfig::default() });
        let first = producer
            .send(fixture.record("first"))
            .await
            .expect("sent")
            .get()
            .await
            .expect("stored");
        let end = first.offset.expect("acks=all") + 1;
        fetcher.assign(&fixture.topic, 0, end);
        // The long poll is under way when the record comes.
        let empty = fetcher.poll(Duration::ZERO).await.expect("an answer");
        assert!(empty.iter().all(|partition| partition.records().next().is_none()));
        drop(producer.send(fixture.record("second")).await.expect("sent"));
        let second = loop {
            let fetched = fetcher.poll(PATIENCE).await.expect("an answer");
            assert!(!fetched.is_empty(), "nothing within {PATIENCE:?}");
            if let Some(record) = fetched.iter().flat_map(|partition| partition.records()).next() {
                break record.expect("whole");
            }
        };
        assert_eq!((second.offset, values(&[second]).remove(0).as_str()), (end, "second"));
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn records_that_were_deleted_are_out_of_range_unless_the_reader_starts_over() {
    let fixture = Fixture::new("deleted", 1, &[]).await;
    let records: Vec<_> = (0..10).map(|n| fixture.record(&n.to_string())).collect();
    fixture
        .produce(ProducerConfig { batch_size_bytes: 1, ..ProducerConfig::default() }, records)
        .await
        .expect("stored");
    let start = fixture.admin.delete_records(&fixture.topic, 0, Some(6)).await.expect("deleted");
    assert_eq!(start, 6);
    let error = fixture
        .admin
        .delete_records(&fixture.topic, 0, Some(11))
        .await
        .expect_err("beyond the end");
    assert_eq!(error.kafka_error(), Some(ResponseError::OffsetOutOfRange));

    for from in [0, 11] {
        let mut fetcher = Fetcher::new(&fixture.cluster, FetcherConfig::default());
        fetcher.assign(&fixture.topic, 0, from);
        let error = fetcher.poll(PATIENCE).await.expect_err("out of range");
        assert_eq!(error.kafka_error(), Some(ResponseError::OffsetOutOfRange), "from {from}");
    }
    let config = FetcherConfig { offset_reset: OffsetReset::Earliest, ..FetcherConfig::default() };
    let read = fixture.read(config, 0, 0, 4).await;
    assert_eq!(values(&read), ["6", "7", "8", "9"]);

    let start = fixture.admin.delete_records(&fixture.topic, 0, None).await.expect("deleted");
    assert_eq!(start, 10);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_fetcher_forgets_a_partition_that_is_given_back() {
    let fixture = Fixture::new("unassign", 2, &[]).await;
    let records =
        (0..2).map(|n| ProducerRecord { partition: Some(n), ..fixture.record(&n.to_string()) });
    fixture.produce(ProducerConfig::default(), records).await.expect("stored");
    let mut fetcher = Fetcher::new(&fixture.cluster, FetcherConfig::default());
    (0..2).for_each(|partition| fetcher.assign(&fixture.topic, partition, 0));
    // A request for both is under way.
    let _ = fetcher.poll(Duration::ZERO).await.expect("an answer");
    fetcher.unassign(&fixture.topic, 0);
    fetcher.assign(&fixture.topic, 1, 0);
    let mut read = Vec::new();
    while read.is_empty() {
        let fetched = fetcher.poll(PATIENCE).await.expect("an answer");
        assert!(!fetched.is_empty(), "nothing within {PATIENCE:?}");
        for partition in fetched {
            assert_eq!(partition.partition, 1);
            read.extend(partition.records().map(|record| record.expect("whole")));
        }
    }
    assert_eq!(values(&read), ["1"]);
    assert_eq!(fetcher.position(&fixture.topic, 1), Some(1));
    assert_eq!(fetcher.position(&fixture.topic, 0), None);
}
