//! The records of a batch: count, offset deltas, keys, timestamps.

use super::{
    InvalidRecord, MAX_DECOMPRESSED_BATCH_BYTES, MAX_INVALID_RECORDS, ValidationConfig,
    ValidationError,
};
use crate::record::{RecordSummary, WalkError, walk_records};
use crate::record_batch::{BatchHeader, TimestampType};
use crate::timestamp::Timestamp;

/// Walks all records and checks them. Returns their greatest timestamp.
pub(super) fn check_records(
    header: &BatchHeader,
    body: &[u8],
    config: &ValidationConfig,
    now: Timestamp,
) -> Result<Option<Timestamp>, ValidationError> {
    let mut checks = Checks::new(header, config, now);
    let walked = walk_records(
        header.compression(),
        body,
        header.record_count(),
        MAX_DECOMPRESSED_BATCH_BYTES,
        |record| checks.see(record),
    );
    walked.map_err(|error| match error {
        WalkError::Compression(error) => error.into(),
        WalkError::Record(error) => ValidationError::Records(error),
    })?;
    checks.finish()
}

struct Checks<'a> {
    header: &'a BatchHeader,
    config: &'a ValidationConfig,
    /// Timestamps that pass, both inclusive, in milliseconds.
    earliest: i64,
    latest: i64,
    producer_claims_append_time: bool,
    next_index: i32,
    max_timestamp: i64,
    wrong_offset: Option<(i32, i32)>,
    has_invalid_timestamp: bool,
    invalid: Vec<InvalidRecord>,
}

const NO_TIMESTAMP: i64 = -1;

impl<'a> Checks<'a> {
    fn new(header: &'a BatchHeader, config: &'a ValidationConfig, now: Timestamp) -> Checks<'a> {
        Checks {
            header,
            config,
            earliest: now.value().saturating_sub(config.before_max_ms),
            latest: now.value().saturating_add(config.after_max_ms),
            producer_claims_append_time: header.timestamp_type() == TimestampType::LogAppendTime,
            next_index: 0,
            max_timestamp: NO_TIMESTAMP,
            wrong_offset: None,
            has_invalid_timestamp: false,
            invalid: Vec::new(),
        }
    }

    #[inline]
    fn see(&mut self, record: RecordSummary) {
        let index = self.next_index;
        self.next_index += 1;
        if record.offset_delta != index && self.wrong_offset.is_none() {
            self.wrong_offset = Some((index, record.offset_delta));
        }
        let timestamp = if self.producer_claims_append_time {
            Timestamp::to_wire(self.header.max_timestamp())
        } else {
            self.header.base_timestamp().wrapping_add(record.timestamp_delta)
        };
        self.max_timestamp = self.max_timestamp.max(timestamp);
        if self.config.compacted && !record.has_key {
            self.refuse_key(index);
            return; // one fault a record, as in Kafka
        }
        let is_checked =
            self.config.timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP;
        if is_checked {
            if timestamp < self.earliest || timestamp > self.latest {
                self.refuse_timestamp(index, timestamp);
            }
        } else if self.producer_claims_append_time {
            self.refuse_append_time(index);
        }
    }

    #[cold]
    fn refuse_key(&mut self, batch_index: i32) {
        self.refuse(batch_index, || "a record on a compacted topic must have a key".to_owned());
    }

    #[cold]
    fn refuse_timestamp(&mut self, batch_index: i32, timestamp: i64) {
        self.has_invalid_timestamp = true;
        let (earliest, latest) = (self.earliest, self.latest);
        self.refuse(batch_index, || {
            format!("timestamp {timestamp} is out of range, it must be in [{earliest}, {latest}]")
        });
    }

    #[cold]
    fn refuse_append_time(&mut self, batch_index: i32) {
        self.has_invalid_timestamp = true;
        self.refuse(batch_index, || "a producer may not set LogAppendTime".to_owned());
    }

    fn refuse(&mut self, batch_index: i32, message: impl FnOnce() -> String) {
        if self.invalid.len() < MAX_INVALID_RECORDS {
            self.invalid.push(InvalidRecord { batch_index, message: message() });
        }
    }

    fn finish(self) -> Result<Option<Timestamp>, ValidationError> {
        let records = self.invalid;
        if self.has_invalid_timestamp {
            return Err(ValidationError::InvalidTimestamps { records });
        }
        if !records.is_empty() {
            return Err(ValidationError::InvalidRecords { records });
        }
        if let Some((batch_index, offset_delta)) = self.wrong_offset {
            return Err(ValidationError::WrongOffsetDelta { batch_index, offset_delta });
        }
        Ok(Timestamp::new(self.max_timestamp))
    }
}
