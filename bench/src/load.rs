//! librdkafka under load: `rdkafka_load` started, held until the broker's processor time has been read, and its figures.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::broker::{Broker, Programs};
use crate::failure::{Failure, io_failure};

/// What is sent or read.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of each message's value.
    pub message_size: usize,
    /// Messages before the measurement, which touch the client's own memory; 0 when consuming.
    pub warm_up_messages: u64,
    /// Messages that are measured.
    pub messages: u64,
}

impl Load {
    /// Values' bytes that are measured.
    pub fn bytes(&self) -> u64 {
        self.message_size as u64 * self.messages
    }
}

/// Which way the messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// acks=all, linger 5 ms, no compression, not idempotent, until all are acknowledged.
    Produce,
    /// Partition 0 from offset 0, each offset checked to be the next.
    Consume,
}

/// What it took.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Wall time of the load.
    pub elapsed: Duration,
    /// The client's processor time in it.
    pub client_cpu: Duration,
    /// The broker's.
    pub broker_cpu: Duration,
}

/// Runs one load against partition 0 of `topic`.
///
/// # Errors
/// When the client fails: a message not delivered, not received or out of order.
pub fn run(
    programs: &Programs,
    broker: &Broker,
    direction: Direction,
    topic: &str,
    load: Load,
) -> Result<Outcome, Failure> {
    let direction = match direction {
        Direction::Produce => "produce",
        Direction::Consume => "consume",
    };
    let mut child = Command::new(&programs.rdkafka_load)
        .args([direction, &broker.bootstrap(), topic])
        .args([
            load.message_size.to_string(),
            load.warm_up_messages.to_string(),
            load.messages.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io_failure("starting rdkafka_load"))?;
    let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout was asked to be a pipe"));
    // Owns its ends of the pipes: a client that waits for its go when this has failed sees them close, and ends.
    let mut exchange = move || -> Result<(Duration, String), Failure> {
        let mut line = String::new();
        stdout.read_line(&mut line).map_err(io_failure("load"))?;
        let cpu_before = broker.process.cpu()?;
        // A client that has failed no longer reads; its words on stderr say more than this would.
        let _ = stdin.write_all(b"go\n");
        line.clear();
        stdout.read_line(&mut line).map_err(io_failure("load"))?;
        Ok((broker.process.cpu()?.saturating_sub(cpu_before), line))
    };
    let exchanged = exchange();
    drop(exchange);
    let mut words = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut words);
    }
    let status = child.wait().map_err(io_failure("waiting for the load"))?;
    let (broker_cpu, line) = exchanged?;
    let figures: Value = serde_json::from_str(&line).unwrap_or_default();
    let seconds = |key: &str| figures[key].as_f64().map(Duration::from_secs_f64);
    match (status.success(), seconds("seconds"), seconds("cpu_seconds")) {
        (true, Some(elapsed), Some(client_cpu)) => Ok(Outcome { elapsed, client_cpu, broker_cpu }),
        _ => Err(Failure::Load(format!("{status}: {}", words.trim()))),
    }
}
