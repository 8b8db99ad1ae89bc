//! What one partition was told and what it must therefore hold. Pure.
//!
//! Each partition has one idempotent writer, so that its content is known before it is read: record by record, in the order in
//! which it was sent. A value names its partition, the incarnation of the broker it was first sent to, and the offset it
//! must get. Everything else follows: a value at another offset was moved or stored twice, a missing one was lost.

use std::collections::VecDeque;

use bytes::Bytes;

/// What a power cut may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Nothing that was acknowledged, and nothing that was ever read.
    Everything,
    /// Any number of records from the end.
    Prefix,
}

/// A batch that was sent and not answered.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// The offset it must get.
    pub base_offset: i64,
    /// Records.
    pub count: i64,
    /// As it was sent, so that it can be sent again.
    pub batch: Bytes,
}

/// What a reader found in a partition.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The log start offset.
    pub log_start: i64,
    /// The high watermark.
    pub end: i64,
    /// All records, in the order of reading.
    pub records: Vec<(i64, Option<Value>)>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Anomaly {
    /// D1 of the history checker.
    #[error("lost: it ends at {end}, but everything before {acknowledged} was acknowledged")]
    Lost { end: i64, acknowledged: i64 },
    /// D3.
    #[error("un-read: it ends at {end}, but everything before {seen} was read before the cut")]
    Unread { end: i64, seen: i64 },
    /// I3.
    #[error("phantom: it ends at {end}, but nothing was sent from {sent} on")]
    Phantom { end: i64, sent: i64 },
    /// D1, in the middle.
    #[error("hole: offset {expected} is missing, {found} comes next")]
    Hole { expected: i64, found: i64 },
    /// D2, U1 or I2.
    #[error("offset {offset} holds {found:?} instead of {expected:?}")]
    Wrong { offset: i64, expected: Value, found: Option<Value> },
    /// Nothing may take from the front of this partition. Where retention may, it may take all: unsynced records behind an
    /// old segment count for its size, and go with the power.
    #[error("records before {log_start} are gone, and nothing may take them")]
    Gone { log_start: i64 },
    /// D2: an acknowledgement names the wrong place.
    #[error("the batch for offset {expected} was acknowledged at {found}")]
    Misplaced { expected: i64, found: i64 },
}

/// What a record is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Number of the ledger.
    pub partition: u64,
    /// Of the broker it was first sent to.
    pub incarnation: u32,
    /// Where it belongs.
    pub offset: i64,
}

const VALUE_HEAD_BYTES: usize = 20;

impl Value {
    /// The record's value: this, then bytes that follow from it, `size_bytes` in all if that is more.
    pub fn to_bytes(self, size_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size_bytes.max(VALUE_HEAD_BYTES));
        bytes.extend(self.partition.to_be_bytes());
        bytes.extend(self.incarnation.to_be_bytes());
        bytes.extend(self.offset.to_be_bytes());
        bytes.extend((VALUE_HEAD_BYTES..size_bytes).map(|at| self.filler(at)));
        bytes
    }

    /// Back again; `None` for bytes that no value has.
    pub fn from_bytes(bytes: &[u8]) -> Option<Value> {
        let (partition, rest) = bytes.split_first_chunk()?;
        let (incarnation, rest) = rest.split_first_chunk()?;
        let (offset, filler) = rest.split_first_chunk()?;
        let value = Value {
            partition: u64::from_be_bytes(*partition),
            incarnation: u32::from_be_bytes(*incarnation),
            offset: i64::from_be_bytes(*offset),
        };
        let is_right =
            filler.iter().zip(VALUE_HEAD_BYTES..).all(|(byte, at)| *byte == value.filler(at));
        is_right.then_some(value)
    }

    /// Compressible in part, different for each offset.
    fn filler(self, at: usize) -> u8 {
        (self.offset as usize).wrapping_mul(31).wrapping_add(at / 8).wrapping_mul(0x9e37_79b1) as u8
    }
}

/// One partition's. Invariant: `log_start <= acknowledged <= sent` and `seen <= sent`.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Its topic.
    pub topic: String,
    /// Its number in the topic.
    pub partition: i32,
    /// Whether retention may take records from its front.
    pub is_retained: bool,
    /// Producer id and epoch, once there is one.
    pub producer: Option<(i64, i16)>,
    new_producer_id: Option<i64>,
    number: u64,
    /// From which offset on values were first sent to which incarnation.
    incarnations: Vec<(i64, u32)>,
    log_start: i64,
    acknowledged: i64,
    seen: i64,
    sent: i64,
    /// Offset of the record with sequence number 0.
    sequence_start: i64,
    unanswered: VecDeque<Unanswered>,
}

impl Ledger {
    /// Of a new partition; `number` is its own for as long as its directory lives.
    pub fn new(topic: &str, partition: i32, number: u64) -> Ledger {
        Ledger {
            topic: topic.to_owned(),
            partition,
            is_retained: false,
            producer: None,
            new_producer_id: None,
            number,
            incarnations: Vec::new(),
            log_start: 0,
            acknowledged: 0,
            seen: 0,
            sent: 0,
            sequence_start: 0,
            unanswered: VecDeque::new(),
        }
    }

    /// The next offset to send, and its sequence number.
    pub fn next(&self) -> (i64, i32) {
        (self.sent, (self.sent - self.sequence_start) as i32)
    }

    /// End of what was acknowledged, exclusive.
    pub fn acknowledged(&self) -> i64 {
        self.acknowledged
    }

    /// What the record at `offset`, sent now or earlier, is.
    pub fn value(&self, offset: i64) -> Value {
        let at = self.incarnations.partition_point(|(start, _)| *start <= offset);
        let incarnation = at.checked_sub(1).map_or(0, |at| self.incarnations[at].1);
        Value { partition: self.number, incarnation, offset }
    }

    /// What is sent from now on is first sent to this incarnation, under a new producer id if the old one's sequence broke off.
    pub fn begin(&mut self, incarnation: u32) {
        self.incarnations.push((self.sent, incarnation));
    }

    /// Under a new producer id sequence numbers start over.
    pub fn set_producer(&mut self, producer_id: i64, producer_epoch: i16) {
        self.producer = Some((producer_id, producer_epoch));
        self.new_producer_id = Some(producer_id);
        self.sequence_start = self.sent;
    }

    /// The producer id that it got since the last call, if it got one.
    pub fn take_new_producer(&mut self) -> Option<i64> {
        self.new_producer_id.take()
    }

    /// A batch of `count` records at [`Ledger::next`] leaves.
    pub fn send(&mut self, count: i64, batch: Bytes) {
        self.unanswered.push_back(Unanswered { base_offset: self.sent, count, batch });
        self.sent += count;
    }

    /// Batches without an answer, in their order.
    pub fn unanswered(&self) -> impl Iterator<Item = &Unanswered> {
        self.unanswered.iter()
    }

    /// The oldest unanswered batch is acknowledged, at `base_offset`.
    ///
    /// # Errors
    /// [`Anomaly::Misplaced`].
    pub fn acknowledge(&mut self, base_offset: i64) -> Result<(), Anomaly> {
        let oldest = self.unanswered.pop_front().expect("answers come to what was sent");
        if oldest.base_offset != base_offset {
            return Err(Anomaly::Misplaced { expected: oldest.base_offset, found: base_offset });
        }
        self.acknowledged = self.acknowledged.max(oldest.base_offset + oldest.count);
        Ok(())
    }

    /// Compares with what is there after a cut, and takes that as the new beginning. How many acknowledged records are gone,
    /// where `promise` allows that.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn check(&mut self, found: &Found, promise: Promise) -> Result<u64, Anomaly> {
        let Found { log_start, end, ref records } = *found;
        if end > self.sent {
            return Err(Anomaly::Phantom { end, sent: self.sent });
        }
        if promise == Promise::Everything {
            if end < self.acknowledged {
                return Err(Anomaly::Lost { end, acknowledged: self.acknowledged });
            }
            if end < self.seen {
                return Err(Anomaly::Unread { end, seen: self.seen });
            }
        }
        if !self.is_retained && log_start != 0 {
            return Err(Anomaly::Gone { log_start });
        }
        let mut expected = log_start;
        for (offset, value) in records {
            if *offset != expected {
                return Err(Anomaly::Hole { expected, found: *offset });
            }
            let right = self.value(*offset);
            if *value != Some(right) {
                return Err(Anomaly::Wrong { offset: *offset, expected: right, found: *value });
            }
            expected += 1;
        }
        if expected < end {
            return Err(Anomaly::Hole { expected, found: end });
        }
        self.log_start = log_start;
        self.seen = expected;
        // Stored, as was just seen. Sent again after retention took them, nobody could know them for repetitions.
        while self.is_retained
            && self.unanswered.front().is_some_and(|first| first.base_offset + first.count <= end)
        {
            self.unanswered.pop_front();
        }
        let lost = self.acknowledged.saturating_sub(end).max(0) as u64;
        if promise == Promise::Prefix {
            // What is gone stays gone, and its offsets go to others.
            self.unanswered.clear();
            self.producer = None;
            self.sent = expected;
            self.acknowledged = expected;
            self.incarnations.retain(|(start, _)| *start < expected);
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests;
