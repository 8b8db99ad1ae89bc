//! One whole batch, and the fields of its header.

use super::ValidationError;
use crate::crc32c::crc32c;
use crate::record_batch::{BatchHeader, HEADER_SIZE_BYTES, LOG_OVERHEAD_BYTES, MAGIC, field};

/// The smallest length field of any format there was (`LegacyRecord.RECORD_OVERHEAD_V0`).
const MIN_LENGTH: i32 = 14;

/// The bytes of the only batch in `records`. A cut batch behind it is ignored, as in Kafka.
pub(super) fn single_batch(records: &[u8]) -> Result<&[u8], ValidationError> {
    let Some(batch) = next_batch(records)? else {
        return Err(ValidationError::NoBatch { available_bytes: records.len() });
    };
    let magic = batch[field::MAGIC] as i8;
    if magic != MAGIC {
        return Err(ValidationError::OldMagic { magic });
    }
    match next_batch(&records[batch.len()..])? {
        None => Ok(batch),
        Some(_) => Err(ValidationError::MoreThanOneBatch),
    }
}

/// The batch at the start of `bytes`, of any format; `None` if it is cut. At least the magic byte is in it.
fn next_batch(bytes: &[u8]) -> Result<Option<&[u8]>, ValidationError> {
    let Some(length) = bytes.get(field::BATCH_LENGTH..).and_then(<[u8]>::first_chunk) else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    if length < MIN_LENGTH {
        return Err(ValidationError::ImpossibleLength { length });
    }
    let Some(&magic) = bytes.get(field::MAGIC) else { return Ok(None) };
    if !(0..=MAGIC).contains(&(magic as i8)) {
        return Err(ValidationError::UnknownMagic { magic: magic as i8 });
    }
    Ok(bytes.get(..LOG_OVERHEAD_BYTES + length as usize))
}

/// Checks the header and the CRC of a whole batch of format 2, in Kafka's order.
pub(super) fn check_header(
    batch: &[u8],
    max_message_bytes: usize,
    is_client: bool,
) -> Result<BatchHeader, ValidationError> {
    let i32_at = |at: usize| {
        let mut value = [0; 4];
        value.copy_from_slice(&batch[at..at + 4]);
        i32::from_be_bytes(value)
    };
    let mut base_offset = [0; 8];
    base_offset.copy_from_slice(&batch[..8]);
    let base_offset = i64::from_be_bytes(base_offset);
    if base_offset != 0 {
        return Err(ValidationError::NonZeroBaseOffset { base_offset });
    }
    if batch.len() > max_message_bytes {
        return Err(ValidationError::TooLarge { size_bytes: batch.len(), max_message_bytes });
    }
    if batch.len() < HEADER_SIZE_BYTES {
        return Err(ValidationError::ImpossibleLength { length: i32_at(field::BATCH_LENGTH) });
    }
    let (stored, computed) = (i32_at(field::CRC) as u32, crc32c(&batch[field::ATTRIBUTES..]));
    if stored != computed {
        return Err(ValidationError::WrongCrc { stored, computed });
    }
    let last_offset_delta = i32_at(field::LAST_OFFSET_DELTA);
    let record_count = i32_at(field::RECORD_COUNT);
    // Without offsets or records there is nothing to append, whoever it is.
    if record_count <= 0 || i64::from(last_offset_delta) + 1 != i64::from(record_count) {
        return Err(ValidationError::WrongCounts { record_count, last_offset_delta });
    }
    let header = match BatchHeader::parse(batch) {
        // Kafka reads the codec only after the checks below.
        Err(error) => {
            check_producer(batch, is_client)?;
            return Err(error.into());
        }
        Ok(header) => header,
    };
    check_producer(batch, is_client)?;
    Ok(header)
}

/// What a client may not write.
fn check_producer(batch: &[u8], is_client: bool) -> Result<(), ValidationError> {
    if !is_client {
        return Ok(());
    }
    let is_negative = |at: usize| batch[at] & 0x80 != 0;
    let has_producer_id = !is_negative(field::PRODUCER_ID);
    if has_producer_id && is_negative(field::BASE_SEQUENCE) {
        return Err(ValidationError::IncompleteProducer { missing: "sequence" });
    }
    let attributes = i16::from_be_bytes([batch[field::ATTRIBUTES], batch[field::ATTRIBUTES + 1]]);
    if attributes & field::CONTROL_BIT != 0 {
        return Err(ValidationError::ControlBatch);
    }
    Ok(())
}
