//! Producers of a `.snapshot` file.

use std::io::Write;

use storage::offset::Offset;
use storage::producer_state::ProducerStateManager;
use storage::timestamp::Timestamp;

use super::{CommandError, Line, LogFile, Output};

/// Reads the file, with the producers that have expired too.
pub(super) fn read(
    file: &LogFile<'_>,
) -> Result<Result<ProducerStateManager, String>, CommandError> {
    let bytes = file.read()?;
    let state =
        ProducerStateManager::from_snapshot(&bytes, file.base_offset, Timestamp::ZERO, i64::MAX);
    Ok(state.map_err(|error| error.to_string()))
}

/// Prints the file; how many problems there were.
pub(super) fn dump(file: &LogFile<'_>, out: &mut Output<impl Write>) -> Result<u64, CommandError> {
    let state = match read(file)? {
        Ok(state) => state,
        Err(error) => {
            out.line(Line::problem(0, error))?;
            return Ok(1);
        }
    };
    for producer in state.producers() {
        let last = producer.batches().last();
        out.line(
            Line::new("producer")
                .field("producer_id", producer.producer_id().value())
                .field("producer_epoch", producer.epoch().value())
                .field("last_sequence", producer.last_sequence())
                .field("last_offset", last.map(|batch| batch.last_offset.value()))
                .field("last_batch_records", last.map(|batch| i64::from(batch.offset_delta) + 1))
                .field("last_timestamp", Timestamp::to_wire(producer.last_timestamp()))
                .field("coordinator_epoch", producer.coordinator_epoch())
                .field(
                    "transaction_first_offset",
                    producer.current_txn_first_offset().map(Offset::value),
                ),
        )?;
    }
    Ok(0)
}
