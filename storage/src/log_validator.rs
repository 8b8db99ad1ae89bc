//! Everything the leader checks of a batch before it is appended, but for what needs the log's state
//! (`LogValidator.java`, `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`).
//! Sequences are checked by [`crate::producer_state`] under the partition's lock; this needs none.
//!
//! The bytes pass through (DESIGN D5): the header is copied so that it can be patched, the records stay
//! where they came in, unless the topic wants another codec. Order of the checks is Kafka's, because a
//! batch with several faults must get the same error.

mod error;
mod framing;
mod records;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use error::{InvalidRecord, MAX_INVALID_RECORDS, ValidationError};

use crate::compression::{Compression, CompressionError, Compressor, Decompressor};
use crate::record_batch::{BatchHeader, HEADER_SIZE_BYTES, TimestampType};
use crate::timestamp::Timestamp;

/// The most that one batch may decompress to. Kafka has no such limit; a client would have to compress
/// batches of this size into `max.message.bytes`. Time, not memory: see [`crate::compression`].
pub const MAX_DECOMPRESSED_BATCH_BYTES: usize = 256 * 1024 * 1024;

/// Who appends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A client's Produce: trusted with nothing.
    #[default]
    Client,
    /// The group or transaction coordinator of this broker: offset commits, markers.
    Coordinator,
    /// A follower copying its leader, or recovery: the leader has checked.
    Replication,
}

/// `compression.type` of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicCompression {
    /// Batches are kept as they come.
    #[default]
    Producer,
    /// Batches in another codec are converted, at this level (`None`: the codec's default).
    To(Compression, Option<i32>),
}

/// The topic's settings that a batch is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationConfig {
    /// `max.message.bytes`: greatest size of a batch, header included.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a record's timestamp may lie in the past.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a record's timestamp may lie in the future.
    pub after_max_ms: i64,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// Whether `cleanup.policy` contains `compact`: then every record needs a key.
    pub compacted: bool,
    /// Who appends.
    pub origin: AppendOrigin,
}

impl Default for ValidationConfig {
    /// Kafka's defaults of the topic settings.
    fn default() -> ValidationConfig {
        ValidationConfig {
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            compression: TopicCompression::Producer,
            compacted: false,
            origin: AppendOrigin::Client,
        }
    }
}

/// A batch that may be appended: header and body are written one after the other. Base offset and leader
/// epoch are still to be set in the header, outside the CRC.
#[derive(Clone, Debug)]
pub struct ValidatedBatch {
    /// The header, patched.
    pub header: BatchHeader,
    /// Everything after the 61 bytes. Aliases the frame, unless the batch was converted.
    pub body: Bytes,
    /// The time of the append, on LogAppendTime topics: what Produce answers.
    pub log_append_time: Option<Timestamp>,
}

/// Checks what a partition of a Produce request holds, at the time `now`, and patches or converts it as the
/// topic wants.
///
/// # Errors
/// The first fault found, in Kafka's order; nothing of the batch may be appended then.
pub fn validate(
    records: &Bytes,
    config: &ValidationConfig,
    now: Timestamp,
) -> Result<ValidatedBatch, ValidationError> {
    let is_client = config.origin == AppendOrigin::Client;
    let batch = framing::single_batch(records)?;
    let header = framing::check_header(batch, config.max_message_bytes, is_client)?;
    let body = &batch[HEADER_SIZE_BYTES..];
    let true_max_timestamp = records::check_records(&header, body, config, now)?;

    let mut patched = header;
    match config.timestamp_type {
        TimestampType::CreateTime => {
            patched.set_max_timestamp(true_max_timestamp, TimestampType::CreateTime)
        }
        TimestampType::LogAppendTime => {
            patched.set_max_timestamp(Some(now), TimestampType::LogAppendTime);
        }
    }
    let body = match config.compression {
        // A control batch is never compressed.
        TopicCompression::To(target, level)
            if target != header.compression() && !header.is_control() =>
        {
            let converted = convert(&header, body, target, level, config.max_message_bytes)?;
            patched.set_body(target, converted.len())?;
            Bytes::from(converted)
        }
        _ => records.slice(HEADER_SIZE_BYTES..batch.len()),
    };
    if patched != header {
        patched.recompute_crc(&body);
    }
    let log_append_time = (config.timestamp_type == TimestampType::LogAppendTime).then_some(now);
    Ok(ValidatedBatch { header: patched, body, log_append_time })
}

/// The body in another codec. The records themselves are the same bytes: their deltas were found to be
/// 0, 1, 2, … and the base timestamp stays.
fn convert(
    header: &BatchHeader,
    body: &[u8],
    target: Compression,
    level: Option<i32>,
    max_message_bytes: usize,
) -> Result<Vec<u8>, ValidationError> {
    let max_body_bytes = max_message_bytes.saturating_sub(HEADER_SIZE_BYTES);
    let too_large = |error| match error {
        CompressionError::OutputTooLarge { .. } => {
            ValidationError::ConvertedTooLarge { codec: target, max_message_bytes }
        }
        other => ValidationError::Compression(other),
    };
    let mut reader = Decompressor::new(header.compression(), body, MAX_DECOMPRESSED_BATCH_BYTES)?;
    let mut writer = Compressor::new(target, level, max_body_bytes)?;
    loop {
        let chunk = match std::io::BufRead::fill_buf(&mut reader) {
            Ok([]) => break,
            Ok(chunk) => chunk,
            Err(error) => return Err(reader.error(error).into()),
        };
        if let Err(error) = std::io::Write::write_all(&mut writer, chunk) {
            return Err(too_large(writer.error(error)));
        }
        let count = chunk.len();
        std::io::BufRead::consume(&mut reader, count);
    }
    writer.finish().map_err(too_large)
}
