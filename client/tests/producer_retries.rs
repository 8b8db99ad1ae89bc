//! The producer against a broker that fails on purpose: drops connections before and after the append, answers with errors
//! that pass and errors that do not. What it acknowledges is stored once, where it says, in the order of sending.

mod fake;

use std::time::Duration;

use client::producer::{Producer, ProducerConfig, ProducerRecord};
use client::retry::Backoff;
use client::{ClientError, Cluster, ClusterConfig, ResponseError};
use fake::{FakeBroker, Fault};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

async fn connect(broker: &FakeBroker) -> Cluster {
    let mut config = ClusterConfig::new([broker.address()]);
    config.retry_backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(4));
    config.connection.request_timeout = Duration::from_secs(20);
    Cluster::connect(config).await.expect("it listens")
}

/// One record a batch, so that faults fall between all of them.
fn config() -> ProducerConfig {
    ProducerConfig { batch_size_bytes: 1, ..ProducerConfig::default() }
}

fn record(number: u32) -> ProducerRecord {
    let value = Some(number.to_string().into());
    ProducerRecord { topic: "t".into(), partition: Some(0), value, ..ProducerRecord::default() }
}

type Fates = Vec<Result<i64, ClientError>>;

async fn produce(producer: &Producer, count: u32) -> Fates {
    let mut deliveries = Vec::new();
    for number in 0..count {
        deliveries.push(producer.send(record(number)).await.expect("the topic exists"));
    }
    let mut fates = Vec::new();
    for delivery in deliveries {
        fates.push(delivery.get().await.map(|metadata| metadata.offset.expect("acks=all tells")));
    }
    fates
}

/// What is in the log is ascending, and each acknowledged record is at its offset.
fn check(log: &[u32], fates: &Fates, seed: u64) {
    assert!(log.is_sorted_by(|a, b| a < b), "seed {seed}: not in order, or twice: {log:?}");
    for (fate, number) in fates.iter().zip(0u32..) {
        if let Ok(offset) = fate {
            assert_eq!(
                log.get(*offset as usize),
                Some(&number),
                "seed {seed}: record {number} at {offset}"
            );
        }
    }
}

#[tokio::test]
async fn faults_that_pass_lose_double_and_reorder_nothing() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let faults = (0..rng.random_range(1..60)).map(|_| match rng.next_u32() % 10 {
            0 => Fault::CloseBeforeAppend,
            1 => Fault::CloseAfterAppend,
            2 => Fault::ErrorBeforeAppend(ResponseError::NotLeaderOrFollower),
            3 => Fault::ErrorBeforeAppend(ResponseError::NotEnoughReplicas),
            4 => Fault::ErrorAfterAppend(ResponseError::RequestTimedOut),
            5 => Fault::ErrorAfterAppend(ResponseError::NotEnoughReplicasAfterAppend),
            _ => Fault::None,
        });
        let broker = FakeBroker::start(faults.collect()).await;
        let producer = Producer::new(&connect(&broker).await, config()).await.expect("an id");
        let fates = produce(&producer, 60).await;
        assert!(fates.iter().all(Result::is_ok), "seed {seed}: {fates:?}");
        assert_eq!(broker.log(), (0..60).collect::<Vec<_>>(), "seed {seed}");
        check(&broker.log(), &fates, seed);
    }
}

#[tokio::test]
async fn a_refused_batch_is_reported_and_those_behind_it_are_stored_in_order() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let faults = (0..rng.random_range(1..60)).map(|_| match rng.next_u32() % 12 {
            0 => Fault::CloseBeforeAppend,
            1 => Fault::CloseAfterAppend,
            2 => Fault::ErrorBeforeAppend(ResponseError::NotLeaderOrFollower),
            3 => Fault::ErrorAfterAppend(ResponseError::RequestTimedOut),
            4 | 5 => Fault::ErrorBeforeAppend(ResponseError::MessageTooLarge),
            _ => Fault::None,
        });
        let broker = FakeBroker::start(faults.collect()).await;
        let producer = Producer::new(&connect(&broker).await, config()).await.expect("an id");
        let fates = produce(&producer, 60).await;
        check(&broker.log(), &fates, seed);
        let failed = fates.iter().filter_map(|fate| fate.as_ref().err());
        assert!(
            failed.clone().all(|e| e.kafka_error() == Some(ResponseError::MessageTooLarge)),
            "seed {seed}"
        );
        // Beside the refused ones, only those that may have been stored already are given up.
        let is_clean = broker.unknowns() == 0;
        if is_clean {
            assert_eq!(failed.count(), broker.refusals(), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn what_nobody_answers_is_given_up_after_the_delivery_timeout_and_the_next_record_is_stored()
{
    let always = vec![Fault::ErrorAfterAppend(ResponseError::RequestTimedOut); 10_000];
    let broker = FakeBroker::start(always).await;
    let config = ProducerConfig { delivery_timeout: Duration::from_millis(100), ..config() };
    let producer = Producer::new(&connect(&broker).await, config).await.expect("an id");
    let fates = produce(&producer, 3).await;
    // Stored, and not acknowledged: nobody could know.
    assert!(
        fates.iter().all(|fate| matches!(fate, Err(ClientError::TimedOut { .. }))),
        "{fates:?}"
    );
    assert_eq!(broker.log()[0], 0);
    broker.heal();
    let before = broker.log().len();
    let next =
        producer.send(record(9)).await.expect("the topic exists").get().await.expect("stored");
    assert_eq!(next.offset, Some(before as i64));
    assert_eq!(broker.log().last(), Some(&9));
}

#[tokio::test]
async fn without_idempotence_a_lost_answer_may_store_a_record_twice() {
    // The fake does tell repetitions from new batches: this shows that the other tests could fail.
    let broker = FakeBroker::start(vec![Fault::CloseAfterAppend]).await;
    let config = ProducerConfig { is_idempotent: false, ..config() };
    let producer = Producer::new(&connect(&broker).await, config).await.expect("needs no id");
    producer.send(record(0)).await.expect("the topic exists").get().await.expect("stored");
    assert_eq!(broker.log(), [0, 0]);
}
