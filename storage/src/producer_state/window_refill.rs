//! Fetches the batches that a snapshot does not hold from the batch headers before it (DESIGN D7).
//!
//! The log shows parts of itself, newest first, each in full and in ascending order. It asks
//! [`WindowRefill::wanted_below`] where to look next and may jump there by its offset index: the batches
//! of one producer lie close together, long-silent ones far back. It may stop whenever it has read enough;
//! what is missing then is only the power to recognise old retries.

use std::collections::BTreeMap;

use super::{BatchMetadata, MAX_CACHED_BATCHES, ProducerEpoch, ProducerId, ProducerStateManager};
use crate::offset::Offset;
use crate::record_batch::BatchHeader;

/// A search for the last five batches of each producer of a snapshot.
#[derive(Debug)]
pub struct WindowRefill {
    producers: BTreeMap<ProducerId, Search>,
    log_start: Offset,
}

#[derive(Debug)]
struct Search {
    epoch: ProducerEpoch,
    /// Everything at or past this offset has been seen.
    wanted_below: Offset,
    /// Newest first.
    found: Vec<BatchMetadata>,
    /// No older batch counts: five are found, or the epoch's first.
    is_complete: bool,
}

impl ProducerStateManager {
    /// Begins the search; call it on the state of [`ProducerStateManager::from_snapshot`], before any
    /// batch past the snapshot is replayed. The log begins at `log_start`.
    pub fn start_window_refill(&self, log_start: Offset) -> WindowRefill {
        let searches = self.producers.values().filter_map(|entry| {
            // The last batch itself is looked for too: its own timestamp is not in the snapshot.
            let last = entry.batches.last()?;
            let search = Search {
                epoch: entry.epoch,
                wanted_below: last.last_offset.next(),
                found: Vec::new(),
                is_complete: false,
            };
            Some((entry.producer_id, search))
        });
        WindowRefill { producers: searches.collect(), log_start }
    }

    /// Takes over what was found.
    pub fn finish_window_refill(&mut self, refill: WindowRefill) {
        for (id, search) in refill.producers {
            let Some(entry) = self.producers.get_mut(&id) else { continue };
            let Some(last) = entry.batches.last() else { continue };
            // The newest found is the snapshot's last one, or the log is not the snapshot's.
            if search.found.first().is_some_and(|found| found.last_offset == last.last_offset) {
                entry.batches = search.found;
                entry.batches.reverse();
            }
        }
    }
}

impl WindowRefill {
    /// Where to look next: show the part of the log that ends with the batch just before this offset.
    /// `None` when nothing more is wanted, or the log start is reached.
    pub fn wanted_below(&self) -> Option<Offset> {
        let open = self.producers.values().filter(|search| !search.is_complete);
        open.map(|search| search.wanted_below).max().filter(|wanted| *wanted > self.log_start)
    }

    /// Shows all batches from `from` up to at least [`WindowRefill::wanted_below`], ascending; those at or
    /// past it are skipped, so a part may reach further.
    pub fn add_part(&mut self, from: Offset, headers: &[BatchHeader]) {
        for header in headers.iter().rev() {
            let Some(producer) = header.producer() else { continue };
            let Some(search) = self.producers.get_mut(&producer.id) else { continue };
            if search.is_complete || header.base_offset() >= search.wanted_below {
                continue;
            }
            if producer.epoch != search.epoch {
                search.is_complete = true;
                continue;
            }
            if header.is_control() {
                continue; // of the same epoch: it ended a transaction and kept the window
            }
            if let Some(sequences) = producer.sequences {
                search.found.push(BatchMetadata::of(header, sequences.last));
                search.is_complete = search.found.len() == MAX_CACHED_BATCHES;
            }
        }
        for search in self.producers.values_mut() {
            search.wanted_below = search.wanted_below.min(from);
        }
    }
}
