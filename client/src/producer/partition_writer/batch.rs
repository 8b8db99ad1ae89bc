//! One batch on its way: its records' deliveries, its bytes, what is known of its fate.

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::error::ClientError;
use crate::producer::{Queued, RecordMetadata};
use crate::record::{BatchBuilder, Compression, ProducerStamp, RecordError, restamp};

/// What remains of a record once its bytes are in a batch.
#[derive(Debug)]
struct Undelivered {
    timestamp: i64,
    delivery: oneshot::Sender<Result<RecordMetadata, ClientError>>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Content {
    Collected(BatchBuilder),
    /// Compressed and whole.
    Built(Bytes),
}

/// See the module. First it collects, then it is sent, possibly several times.
#[derive(Debug)]
pub(super) struct Batch {
    content: Content,
    records: Vec<Undelivered>,
    opened: Instant,
    stamp: Option<ProducerStamp>,
    is_retry: bool,
    is_unknown: bool,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            content: Content::Collected(BatchBuilder::new()),
            records: Vec::new(),
            opened: Instant::now(),
            stamp: None,
            is_retry: false,
            is_unknown: false,
        }
    }

    /// When its first record came.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// Whether the record fits; an empty batch has room for any.
    pub(super) fn has_room(&self, queued: &Queued, limit_bytes: usize) -> bool {
        let Content::Collected(builder) = &self.content else { return false };
        let record = &queued.record;
        let size = BatchBuilder::record_size_bound_bytes(
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
        builder.record_count() == 0 || builder.size_bytes() + size <= limit_bytes
    }

    pub(super) fn is_full(&self, limit_bytes: usize) -> bool {
        matches!(&self.content, Content::Collected(builder) if builder.size_bytes() >= limit_bytes)
    }

    /// Adds a record, or tells its sender why not.
    pub(super) fn push(&mut self, queued: Queued, subject: impl Fn() -> String) {
        let Content::Collected(builder) = &mut self.content else {
            unreachable!("nothing is added to a batch that was built")
        };
        let Queued { record, timestamp, delivery, permit } = queued;
        match builder.push(
            timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        ) {
            Ok(()) => self.records.push(Undelivered { timestamp, delivery, _permit: permit }),
            // Who does not listen does not care.
            Err(error) => {
                drop(delivery.send(Err(ClientError::Record { subject: subject(), error })))
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Records, which is also how many sequence numbers it takes.
    pub(super) fn record_count(&self) -> i32 {
        self.records.len() as i32 // bounded by the batch's 2 GiB
    }

    /// What it was sent under; none before the first time.
    pub(super) fn stamp(&self) -> Option<ProducerStamp> {
        self.stamp
    }

    /// Its bytes, built now if they were not. A stamp that differs from the last replaces it.
    pub(super) fn bytes(
        &mut self,
        compression: Compression,
        stamp: Option<ProducerStamp>,
    ) -> Result<Bytes, RecordError> {
        let bytes = match (&self.content, stamp) {
            (Content::Collected(builder), stamp) => builder.build(compression, stamp)?,
            (Content::Built(bytes), Some(stamp)) if self.stamp != Some(stamp) => {
                restamp(bytes, stamp)
            }
            (Content::Built(bytes), _) => bytes.clone(),
        };
        self.stamp = stamp;
        self.content = Content::Built(bytes.clone());
        Ok(bytes)
    }

    /// It is certain that it was not stored, and its sequence number leads nowhere: the next try takes another.
    pub(super) fn unstamp(&mut self) {
        self.stamp = None;
    }

    /// Whether some try may have stored it.
    pub(super) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// Whether it was tried before.
    pub(super) fn is_retry(&self) -> bool {
        self.is_retry
    }

    /// A try failed; `is_unknown` if it may have stored it all the same, which no later failure makes undone.
    pub(super) fn mark_tried(&mut self, is_unknown: bool) {
        self.is_retry = true;
        self.is_unknown |= is_unknown;
    }

    pub(super) fn succeed(
        self,
        partition: i32,
        base_offset: Option<i64>,
        log_append_time: Option<i64>,
    ) {
        for (record, index) in self.records.into_iter().zip(0..) {
            let metadata = RecordMetadata {
                partition,
                offset: base_offset.map(|base| base.saturating_add(index)),
                timestamp: log_append_time.unwrap_or(record.timestamp),
            };
            // Who does not listen does not care.
            let _ = record.delivery.send(Ok(metadata));
        }
    }

    pub(super) fn fail(self, error: &ClientError) {
        for record in self.records {
            let _ = record.delivery.send(Err(error.clone()));
        }
    }
}
