//! Offsets: list by time, delete records before one. Each partition's leader answers for itself.

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, DeleteRecordsRequest, ListOffsetsRequest, TopicName};

use super::Admin;
use super::topics::{incomplete, text};
use crate::connection::Connection;
use crate::error::{ClientError, KafkaError};
use crate::retry::needs_fresh_metadata;

/// Which records count for a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IsolationLevel {
    /// Everything below the high watermark.
    #[default]
    ReadUncommitted,
    /// Only what is below the last stable offset, without aborted transactions.
    ReadCommitted,
}

impl IsolationLevel {
    pub(crate) fn on_wire(self) -> i8 {
        match self {
            IsolationLevel::ReadUncommitted => 0,
            IsolationLevel::ReadCommitted => 1,
        }
    }
}

/// Which offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The log start offset.
    Earliest,
    /// The high watermark, or the last stable offset for read_committed.
    Latest,
    /// Of the record with the largest timestamp (KIP-734, brokers since 3.0).
    MaxTimestamp,
    /// Of the first record at or after this time, milliseconds since 1970.
    Timestamp(i64),
}

/// An answer to [`Admin::list_offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset.
    pub offset: i64,
    /// Of the record, where the question was about one.
    pub timestamp: Option<i64>,
    /// Of the offset, where it is known.
    pub leader_epoch: Option<i32>,
}

impl Admin {
    /// One offset of one partition; `None` if no record is that late, or there is none at all.
    ///
    /// # Errors
    /// [`ClientError::Kafka`] as the leader answers; waits for a leader.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: i32,
        spec: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Result<Option<ListedOffset>, ClientError> {
        let subject = format!("offsets of {topic}-{partition}");
        self.cluster
            .retrying(&subject, || async {
                self.try_list_offset(topic, partition, spec, isolation).await
            })
            .await
    }

    /// Like [`Admin::list_offset`], once.
    ///
    /// # Errors
    /// As there, and whatever would have been tried again.
    pub async fn try_list_offset(
        &self,
        topic: &str,
        partition: i32,
        spec: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Result<Option<ListedOffset>, ClientError> {
        let timestamp = match spec {
            OffsetSpec::Latest => -1,
            OffsetSpec::Earliest => -2,
            OffsetSpec::MaxTimestamp => -3,
            OffsetSpec::Timestamp(timestamp) => timestamp.max(0),
        };
        let subject = format!("offsets of {topic}-{partition}");
        let leader = self.cluster.leader(topic, partition).await?;
        let connection = self.leader_connection(topic, leader.broker_id).await?;
        let version = connection.version_of::<ListOffsetsRequest>()?;
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(leader.leader_epoch.filter(|_| version >= 4).unwrap_or(-1))
            .with_timestamp(timestamp);
        let asked = ListOffsetsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(if version >= 2 { isolation.on_wire() } else { 0 })
            .with_topics(vec![asked])
            .with_timeout_ms(if version >= 10 { self.request_timeout_ms() } else { 0 });
        let response = connection
            .call_version(version, &request)
            .await
            .inspect_err(|_| self.cluster.forget_topic(topic))?;
        let answer = response
            .topics
            .into_iter()
            .filter(|t| t.name.as_str() == topic)
            .flat_map(|t| t.partitions)
            .find(|p| p.partition_index == partition)
            .ok_or_else(|| incomplete(&subject))?;
        self.check_partition(&subject, topic, answer.error_code)?;
        Ok((answer.offset >= 0).then_some(ListedOffset {
            offset: answer.offset,
            timestamp: (answer.timestamp >= 0).then_some(answer.timestamp),
            leader_epoch: (answer.leader_epoch >= 0).then_some(answer.leader_epoch),
        }))
    }

    /// Deletes the records before `before`; `None` for all up to the high watermark. The new log start offset.
    ///
    /// # Errors
    /// [`ClientError::Kafka`] as the leader answers, OFFSET_OUT_OF_RANGE beyond the high watermark.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: i32,
        before: Option<i64>,
    ) -> Result<i64, ClientError> {
        let subject = format!("records of {topic}-{partition}");
        self.cluster
            .retrying(&subject, || async {
                let leader = self.cluster.leader(topic, partition).await?;
                let connection = self.leader_connection(topic, leader.broker_id).await?;
                let asked = DeleteRecordsPartition::default()
                    .with_partition_index(partition)
                    .with_offset(before.unwrap_or(-1));
                let asked = DeleteRecordsTopic::default()
                    .with_name(TopicName(text(topic)))
                    .with_partitions(vec![asked]);
                let request = DeleteRecordsRequest::default()
                    .with_topics(vec![asked])
                    .with_timeout_ms(self.request_timeout_ms());
                let response = connection.call(&request).await.inspect_err(|_| {
                    self.cluster.forget_topic(topic);
                })?;
                let answer = response
                    .topics
                    .into_iter()
                    .filter(|t| t.name.as_str() == topic)
                    .flat_map(|t| t.partitions)
                    .find(|p| p.partition_index == partition)
                    .ok_or_else(|| incomplete(&subject))?;
                self.check_partition(&subject, topic, answer.error_code)?;
                Ok(answer.low_watermark)
            })
            .await
    }

    async fn leader_connection(
        &self,
        topic: &str,
        broker_id: i32,
    ) -> Result<Connection, ClientError> {
        self.cluster.broker(broker_id).await.inspect_err(|_| self.cluster.forget_topic(topic))
    }

    fn check_partition(&self, subject: &str, topic: &str, code: i16) -> Result<(), ClientError> {
        KafkaError::check(code, None).map_err(|error| {
            if needs_fresh_metadata(error.error) {
                self.cluster.forget_topic(topic);
            }
            ClientError::kafka(subject, error)
        })
    }
}
