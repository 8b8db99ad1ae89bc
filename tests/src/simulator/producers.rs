//! The load: what producers send, and what they would send again.

use broker::replica_manager::PartitionKey;
use bytes::Bytes;
use storage::producer_state::{ProducerEpoch, ProducerId};
use storage::record_batch::RecordBatchBuilder;
use storage::timestamp::Timestamp;

use super::history::Sent;
use super::random::Random;

/// An idempotent producer of one partition.
#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) key: PartitionKey,
    pub(super) id: i64,
    pub(super) next_sequence: i32,
    /// Sent and not acknowledged, in order.
    pub(super) unacknowledged: Vec<Sent>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Producers {
    pub(super) idempotent: Vec<Producer>,
    /// Ids of the block that the controller gave: next, end.
    pub(super) ids: (i64, i64),
    next_number: u64,
}

/// As many unacknowledged batches an idempotent producer may have.
pub(super) const MAX_IN_FLIGHT: usize = 5;

impl Producers {
    pub(super) fn acknowledged(&mut self, number: u64) {
        for producer in &mut self.idempotent {
            producer.unacknowledged.retain(|sent| sent.number != number);
        }
    }

    /// A new batch; of the producer with this place, or of none.
    pub(super) fn batch(&mut self, of: Option<usize>, now: Timestamp, random: &mut Random) -> Sent {
        let number = self.next_number;
        self.next_number += 1;
        let count = 1 + random.below(4) as i64;
        let mut builder = RecordBatchBuilder::new();
        let producer = of.map(|place| {
            let producer = &mut self.idempotent[place];
            let first = producer.next_sequence;
            producer.next_sequence += count as i32;
            (producer.id, first)
        });
        if let Some((id, first)) = producer {
            let id = ProducerId::new(id).expect("the controller gave it");
            builder = builder.producer(id, ProducerEpoch::new(0).expect("an epoch"), Some(first));
        }
        for record in 0..count {
            // Mostly small; some are larger than an index interval, few than several.
            let size = match random.below(10) {
                0 => 400 + random.below(3000),
                1..=3 => 100 + random.below(200),
                _ => random.below(60),
            };
            let value = vec![(number + record as u64) as u8; size as usize];
            let key = number.to_be_bytes();
            builder.push(Some(now), Some(&key), Some(&value), &[]);
        }
        let bytes = Bytes::from(builder.build().expect("small records"));
        let sent = Sent { number, bytes, count, producer };
        if let Some(place) = of {
            self.idempotent[place].unacknowledged.push(sent.clone());
        }
        sent
    }
}
