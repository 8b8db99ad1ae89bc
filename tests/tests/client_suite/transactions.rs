//! What a read_committed reader sees. The client writes no transactions, so this test writes them request by request.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use client::admin::IsolationLevel;
use client::fetcher::FetcherConfig;
use client::record::{BatchBuilder, Compression, ProducerStamp};
use client::{Connection, ResponseError};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest,
    ProduceRequest, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use storage::record_batch::{BatchHeader, HEADER_SIZE_BYTES};

use crate::{Fixture, eventually, values};

/// The last version in which the client itself adds partitions to a transaction (before KIP-890 part 2).
const PRODUCE_VERSION: i16 = 11;

/// A transactional producer on one broker that is coordinator and leader.
struct Transactions<'a> {
    fixture: &'a Fixture,
    connection: Connection,
    id: StrBytes,
    producer_id: i64,
    producer_epoch: i16,
    next_sequence: i32,
}

impl<'a> Transactions<'a> {
    /// `None` if the broker has no transactions.
    async fn start(fixture: &'a Fixture) -> Option<Transactions<'a>> {
        let leader = fixture.cluster.await_leader(&fixture.topic, 0).await.expect("a leader");
        let connection = fixture.cluster.broker(leader.broker_id).await.expect("it answers");
        let id = StrBytes::from_string(fixture.topic.clone());
        let find = FindCoordinatorRequest::default().with_key(id.clone()).with_key_type(1);
        let mut coordinator = 0;
        // Kafka makes its transaction log on the way.
        eventually("a transaction coordinator", async || {
            let found = connection.call_version(3, &find).await.map_err(|e| e.to_string())?;
            coordinator = found.error_code;
            let is_settled = [0, ResponseError::TransactionalIdAuthorizationFailed.code()]
                .contains(&coordinator);
            if is_settled { Ok(()) } else { Err(format!("error code {coordinator}")) }
        })
        .await;
        if coordinator != 0 {
            return None;
        }
        let init = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(id.clone())))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let mut identity = (0, 0);
        eventually("a producer id", async || {
            let given = connection.call_version(4, &init).await.map_err(|e| e.to_string())?;
            identity = (given.producer_id.0, given.producer_epoch);
            if given.error_code == 0 {
                Ok(())
            } else {
                Err(format!("error code {}", given.error_code))
            }
        })
        .await;
        let (producer_id, producer_epoch) = identity;
        Some(Transactions {
            fixture,
            connection,
            id,
            producer_id,
            producer_epoch,
            next_sequence: 0,
        })
    }

    fn topic(&self) -> TopicName {
        TopicName(StrBytes::from_string(self.fixture.topic.clone()))
    }

    async fn write(&mut self, value: &str) {
        let topic =
            AddPartitionsToTxnTopic::default().with_name(self.topic()).with_partitions(vec![0]);
        let add = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(self.id.clone()))
            .with_v3_and_below_producer_id(ProducerId(self.producer_id))
            .with_v3_and_below_producer_epoch(self.producer_epoch)
            .with_v3_and_below_topics(vec![topic]);
        eventually("the partition is in the transaction", async || {
            let added = self.connection.call_version(3, &add).await.map_err(|e| e.to_string())?;
            let result = &added.results_by_topic_v3_and_below[0].results_by_partition[0];
            match result.partition_error_code {
                0 => Ok(()),
                code => Err(format!("error code {code}")),
            }
        })
        .await;
        let data =
            PartitionProduceData::default().with_index(0).with_records(Some(self.batch(value)));
        let topic =
            TopicProduceData::default().with_name(self.topic()).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(TransactionalId(self.id.clone())))
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic]);
        let stored =
            self.connection.call_version(PRODUCE_VERSION, &request).await.expect("an answer");
        assert_eq!(stored.responses[0].partition_responses[0].error_code, 0);
    }

    /// One record, transactional.
    fn batch(&mut self, value: &str) -> Bytes {
        let mut builder = BatchBuilder::new();
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]).expect("small");
        let stamp = ProducerStamp {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.next_sequence,
        };
        self.next_sequence += 1;
        let mut batch =
            BytesMut::from(&builder.build(Compression::None, Some(stamp)).expect("small")[..]);
        batch[22] |= 1 << 4;
        let mut header = BatchHeader::parse(&batch).expect("a batch");
        header.recompute_crc(&batch[HEADER_SIZE_BYTES..]);
        batch[..HEADER_SIZE_BYTES].copy_from_slice(header.as_bytes());
        batch.freeze()
    }

    async fn end(&self, is_commit: bool) {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(self.id.clone()))
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.producer_epoch)
            .with_committed(is_commit);
        let ended = self.connection.call_version(3, &request).await.expect("an answer");
        assert_eq!(ended.error_code, 0);
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn aborted_and_open_transactions_are_not_seen_by_who_reads_what_is_committed() {
    let fixture = Fixture::new("transactions", 1, &[]).await;
    let Some(mut transactions) = Transactions::start(&fixture).await else {
        eprintln!("the broker has no transactions");
        return;
    };
    for (values, is_commit) in
        [(["a", "b"], true), (["c", "d"], false), (["e", "f"], true), (["g", "h"], false)]
    {
        for value in values {
            transactions.write(value).await;
        }
        transactions.end(is_commit).await;
    }
    fixture.produce(Default::default(), [fixture.record("plain")]).await.expect("stored");
    transactions.write("open").await;

    let everything = fixture.read(FetcherConfig::default(), 0, 0, 10).await;
    assert_eq!(values(&everything), ["a", "b", "c", "d", "e", "f", "g", "h", "plain", "open"]);
    // Each of four markers has an offset that nobody sees.
    assert_eq!(everything[9].offset, 13);

    let committed =
        FetcherConfig { isolation: IsolationLevel::ReadCommitted, ..FetcherConfig::default() };
    let read = fixture.read(committed, 0, 0, 5).await;
    assert_eq!(values(&read), ["a", "b", "e", "f", "plain"]);
    // From within an aborted transaction too.
    assert_eq!(values(&fixture.read(committed, 0, 4, 3).await), ["e", "f", "plain"]);

    // What is open appears when it is committed, and not before.
    let mut fetcher = client::fetcher::Fetcher::new(&fixture.cluster, committed);
    fetcher.assign(&fixture.topic, 0, 13);
    let early = fetcher.poll(Duration::from_secs(30)).await.expect("an answer");
    assert!(early.iter().all(|partition| partition.records().next().is_none()));
    transactions.end(true).await;
    assert_eq!(values(&fixture.read(committed, 0, 13, 1).await), ["open"]);
}
