//! Making batches.

use bytes::{BufMut, Bytes, BytesMut};

use super::{BATCH_HEADER_SIZE_BYTES, Compression, Header, RecordError, varint};

/// CRC-32C (Castagnoli), as Kafka's batches carry it.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    // The 64-bit interface holds a 32-bit value.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// What an idempotent producer stamps a batch with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// From InitProducerId.
    pub producer_id: i64,
    /// From InitProducerId.
    pub producer_epoch: i16,
    /// Sequence number of the batch's first record in its partition.
    pub base_sequence: i32,
}

/// Collects records into one batch with base offset 0.
#[derive(Clone, Debug, Default)]
pub struct BatchBuilder {
    block: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// Without records.
    pub fn new() -> BatchBuilder {
        BatchBuilder::default()
    }

    /// How many records it holds.
    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// The size of the batch before compression.
    pub fn size_bytes(&self) -> usize {
        BATCH_HEADER_SIZE_BYTES + self.block.len()
    }

    /// An upper bound of what one record adds to a batch before compression.
    pub fn record_size_bound_bytes(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> usize {
        let field = |bytes: Option<&[u8]>| 5 + bytes.map_or(0, <[u8]>::len);
        let headers = headers.iter().map(|h| field(Some(&h.key)) + field(h.value.as_deref()));
        5 + 1 + 10 + 5 + field(key) + field(value) + 5 + headers.sum::<usize>()
    }

    /// Appends a record; `timestamp` is milliseconds since 1970.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`] past 2 GiB; the batch is as it was then.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), RecordError> {
        let bound = Self::record_size_bound_bytes(key, value, headers);
        if self.size_bytes() + bound > i32::MAX as usize {
            return Err(RecordError::TooLarge);
        }
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        // Wrapping, as the reader adds it back the same way; timestamps that far apart are refused by brokers.
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.count);
        let header_sizes = headers.iter().map(|header| {
            nullable_size(Some(&header.key)) + nullable_size(header.value.as_deref())
        });
        let size = 1 // attributes
            + varint::size(timestamp_delta)
            + varint::size(offset_delta)
            + nullable_size(key)
            + nullable_size(value)
            + varint::size(headers.len() as i64)
            + header_sizes.sum::<usize>();
        let out = &mut self.block;
        varint::put(out, size as i64);
        let start = out.len();
        out.push(0);
        varint::put(out, timestamp_delta);
        varint::put(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        varint::put(out, headers.len() as i64);
        for header in headers {
            put_nullable(out, Some(&header.key));
            put_nullable(out, header.value.as_deref());
        }
        assert_eq!(out.len() - start, size, "a record takes the size it computed");
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        Ok(())
    }

    /// The whole batch.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`] past 2 GiB.
    ///
    /// # Panics
    /// Without a record: brokers refuse empty batches.
    pub fn build(
        &self,
        compression: Compression,
        producer: Option<ProducerStamp>,
    ) -> Result<Bytes, RecordError> {
        assert!(self.count > 0, "a batch has at least one record");
        let packed;
        let block: &[u8] = match compression {
            Compression::None => &self.block,
            codec => {
                packed = codec.compress(&self.block)?;
                &packed
            }
        };
        let size = BATCH_HEADER_SIZE_BYTES + block.len();
        let length = i32::try_from(size - 12).map_err(|_| RecordError::TooLarge)?;
        let stamp = producer.unwrap_or(ProducerStamp {
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        });
        let mut batch = BytesMut::with_capacity(size);
        batch.put_i64(0); // base offset: the leader's to assign
        batch.put_i32(length);
        batch.put_i32(-1); // leader epoch: the leader's to stamp
        batch.put_i8(2);
        batch.put_u32(0); // CRC, below
        batch.put_i16(compression.to_attributes());
        batch.put_i32(self.count - 1);
        batch.put_i64(self.base_timestamp);
        batch.put_i64(self.max_timestamp);
        batch.put_i64(stamp.producer_id);
        batch.put_i16(stamp.producer_epoch);
        batch.put_i32(stamp.base_sequence);
        batch.put_i32(self.count);
        batch.put_slice(block);
        let crc = crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        Ok(batch.freeze())
    }
}

/// Gives a built batch another producer, epoch and sequence.
///
/// # Panics
/// If `batch` is shorter than a batch's header.
pub(crate) fn restamp(batch: &Bytes, stamp: ProducerStamp) -> Bytes {
    let mut batch = BytesMut::from(&batch[..]);
    batch[43..51].copy_from_slice(&stamp.producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&stamp.producer_epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&stamp.base_sequence.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn nullable_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(varint::size(-1), |bytes| varint::size(bytes.len() as i64) + bytes.len())
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(out, -1),
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests;
