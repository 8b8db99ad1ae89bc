//! What the node was sent and what it said: the naive twin that its answers and its logs are compared with.

use std::collections::BTreeMap;

use broker::replica_manager::PartitionKey;
use broker::replica_manager::partition::PartitionSnapshot;
use bytes::Bytes;
use replication::metadata::MetadataImage;
use storage::log::Log;
use storage::offset::Offset;
use storage::producer_state::MAX_CACHED_BATCHES;
use storage::record_batch::{HEADER_SIZE_BYTES, batches};
use storage::timestamp::Timestamp;

/// A batch as a producer sent it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Never given twice; a retry has the number of the first time.
    pub(super) number: u64,
    pub(super) bytes: Bytes,
    pub(super) count: i64,
    /// Producer id and first sequence number.
    pub(super) producer: Option<(i64, i32)>,
}

/// A batch in a log.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) base: i64,
    pub(super) sent: Sent,
    pub(super) is_acknowledged: bool,
}

impl Written {
    pub(super) fn end(&self) -> i64 {
        self.base + self.sent.count
    }
}

/// One partition.
#[derive(Clone, Debug)]
pub(super) struct PartitionHistory {
    pub(super) name: String,
    /// `flush.messages=1`.
    pub(super) flushes: bool,
    /// In order; also those below the log start, which a crash may show again.
    pub(super) written: Vec<Written>,
    /// A batch whose append failed with the disk: it may be there or not.
    pub(super) in_doubt: Option<Sent>,
    pub(super) log_start: i64,
    pub(super) log_end: i64,
    pub(super) high_watermark: i64,
    /// What the node says an fsync covers.
    pub(super) flushed_end: i64,
    /// How far a deletion that the disk did not let end may have moved the log start.
    pub(super) deleting: i64,
    /// End of what a reader has seen.
    pub(super) shown: i64,
    pub(super) leader_epoch: i32,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) partitions: BTreeMap<PartitionKey, PartitionHistory>,
    /// The committed metadata, and with a change in doubt.
    pub(super) image: Option<MetadataImage>,
    pub(super) image_in_doubt: Option<MetadataImage>,
    /// First producer id that was never given out.
    pub(super) next_producer_id: i64,
}

impl History {
    /// The image after a start is the fold of what was committed, and perhaps of what was in doubt.
    pub(super) fn check_image(&self, found: &MetadataImage) -> Result<(), String> {
        let Some(committed) = &self.image else { return Ok(()) };
        let found = found.encode_snapshot();
        let is_it = |image: &MetadataImage| image.encode_snapshot() == found;
        if is_it(committed) || self.image_in_doubt.as_ref().is_some_and(is_it) {
            return Ok(());
        }
        Err("the metadata is not the fold of what was committed".to_owned())
    }
}

impl PartitionHistory {
    pub(super) fn new(name: String, flushes: bool) -> PartitionHistory {
        PartitionHistory {
            name,
            flushes,
            written: Vec::new(),
            in_doubt: None,
            log_start: 0,
            log_end: 0,
            high_watermark: 0,
            flushed_end: 0,
            deleting: 0,
            shown: 0,
            leader_epoch: -1,
        }
    }

    /// The batch at an offset that a batch begins with.
    pub(super) fn at(&self, base: i64) -> Option<&Written> {
        let index = self.written.binary_search_by_key(&base, |written| written.base).ok()?;
        self.written.get(index)
    }

    /// The batch of this number, where the log still has it.
    pub(super) fn find(&self, number: u64) -> Option<&Written> {
        let mut present = self.written.iter().rev().take_while(|one| one.end() > self.log_start);
        present.find(|written| written.sent.number == number)
    }

    /// The last five batches of a producer that the log still has: a retry of them is known.
    pub(super) fn window(&self, producer_id: i64) -> Vec<&Written> {
        let of_it = |one: &&Written| one.sent.producer.is_some_and(|(id, _)| id == producer_id);
        let present = self.written.iter().rev().take_while(|one| one.base >= self.log_start);
        let mut window: Vec<&Written> = present.filter(of_it).take(MAX_CACHED_BATCHES).collect();
        window.reverse();
        window
    }

    /// Whether an acknowledgement of this batch at `base` is true.
    pub(super) fn acknowledge(&mut self, number: u64, base: i64) -> Result<(), String> {
        let name = &self.name;
        let index = self.written.binary_search_by_key(&base, |written| written.base);
        let Some(written) = index.ok().and_then(|index| self.written.get_mut(index)) else {
            return Err(format!(
                "{name}: batch {number} is acknowledged at {base}, where nothing is"
            ));
        };
        if written.sent.number != number {
            let there = written.sent.number;
            return Err(format!(
                "{name}: batch {number} is acknowledged at {base}, {there} is there"
            ));
        }
        if self.flushes && written.end() > self.flushed_end {
            let flushed_end = self.flushed_end;
            return Err(format!(
                "{name}: batch {number} at {base} is acknowledged, synced is up to {flushed_end}"
            ));
        }
        written.is_acknowledged = true;
        Ok(())
    }

    /// Takes in what the partition publishes, after an event in one life.
    pub(super) fn observe(&mut self, snapshot: &PartitionSnapshot) -> Result<(), String> {
        let offsets = snapshot.offsets;
        let [log_start, last_stable, high_watermark, log_end, flushed_end] = [
            offsets.log_start,
            offsets.last_stable,
            offsets.high_watermark,
            offsets.log_end,
            offsets.flushed_end,
        ]
        .map(Offset::value);
        let epoch = snapshot.leader_epoch().map_or(-1, |epoch| epoch.value());
        let bound = if self.flushes { flushed_end } else { log_end };
        let wrong = if log_end != self.log_end {
            Some("the log end is not where the last append left it")
        } else if high_watermark > bound {
            Some("the high watermark is above the durable end")
        } else if high_watermark < self.high_watermark {
            Some("the high watermark falls")
        } else if log_start < self.log_start {
            Some("the log start falls")
        } else if log_start > high_watermark {
            Some("the log start is above the high watermark")
        } else if last_stable != high_watermark {
            Some("without transactions the last stable offset is the high watermark")
        } else if flushed_end < self.flushed_end || flushed_end > log_end {
            Some("the synced end falls, or is above the log end")
        } else if epoch != self.leader_epoch {
            Some("the leader epoch changed without an election")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(format!("{}: {wrong}: {offsets:?}, before {self:?}", self.name));
        }
        self.high_watermark = high_watermark;
        self.log_start = log_start;
        self.flushed_end = flushed_end;
        Ok(())
    }

    /// Checks bytes that were read from `from` on; returns the offset after them.
    pub(super) fn check_read(&self, from: i64, bytes: &[u8]) -> Result<i64, String> {
        let name = &self.name;
        let mut next = from;
        for batch in batches(bytes) {
            // The last one may be cut off by the byte limit.
            let Ok(batch) = batch else { break };
            batch.verify_crc().map_err(|error| format!("{name}: read at {next}: {error}"))?;
            let base = batch.base_offset().value();
            let Some(written) = self.at(base).filter(|one| one.base <= next && next < one.end())
            else {
                return Err(format!("{name}: read at {next}: a batch at {base} that nobody wrote"));
            };
            let end = batch.next_offset().value();
            // All but base offset, length and epoch, which the CRC does not cover either.
            let is_same = batch.bytes().get(HEADER_SIZE_BYTES - 44..)
                == written.sent.bytes.get(HEADER_SIZE_BYTES - 44..);
            if !is_same || end != written.end() {
                return Err(format!("{name}: the batch at {base} is not the one that was sent"));
            }
            next = end;
        }
        Ok(next)
    }

    /// Reads all of a log and compares it.
    pub(super) fn check_log(&self, log: &mut Log, now: Timestamp) -> Result<(), String> {
        let name = &self.name;
        let offsets = log.offsets();
        let mut next = offsets.log_start;
        while next < offsets.log_end {
            let wrong =
                |error: &dyn std::fmt::Display| format!("{name} cannot be read at {next}: {error}");
            let plan = log.read_plan(next, offsets.log_end, now).map_err(|error| wrong(&error))?;
            let fetched = plan.execute(4096, true).map_err(|error| wrong(&error))?;
            let bytes = fetched.read().map_err(|error| wrong(&error))?;
            let end = self.check_read(next.value(), &bytes)?;
            if end <= next.value() {
                return Err(format!("{name}: nothing is read at {next}: {offsets:?}"));
            }
            next = Offset::new(end).expect("it was one");
        }
        self.check_producers(log, now)
    }

    /// Producer state is the fold of the log: the last five batches of each producer are known, in order.
    pub(super) fn check_producers(&self, log: &mut Log, now: Timestamp) -> Result<(), String> {
        let name = &self.name;
        let known = log.producers(now).map_err(|error| format!("{name}: {error}"))?;
        let mut ids: Vec<i64> =
            self.written.iter().filter_map(|one| Some(one.sent.producer?.0)).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let window: Vec<(i32, i64)> = self
                .window(id)
                .iter()
                .map(|one| {
                    let first = one.sent.producer.map_or(0, |(_, first)| first);
                    (first + one.sent.count as i32 - 1, one.base)
                })
                .collect();
            let entry = known.iter().find(|entry| entry.producer_id().value() == id);
            let found: Vec<(i32, i64)> = entry
                .map(|entry| {
                    let batch = entry.batches().iter();
                    batch.map(|one| (one.last_sequence, one.base_offset().value())).collect()
                })
                .unwrap_or_default();
            if !found.ends_with(&window) {
                return Err(format!(
                    "{name}: producer {id}: known {found:?}, the log has {window:?}"
                ));
            }
        }
        Ok(())
    }
}
