//! The replay generator against a real broker, the null broker: what it says it sent is there, and what is refused is an error.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater_bench::replay::{fetch, produce};
use highwater_bench::wire::{self, Wire};

/// Ends with the test.
struct NullBroker {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl NullBroker {
    fn start() -> NullBroker {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(env!("CARGO_BIN_EXE_null_broker"))
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the null broker is built");
        let stdout = child.stdout.take().expect("a pipe");
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
            .expect("a line");
        let port = line.trim().parse().expect("a port");
        NullBroker { child, port, _directory: directory }
    }
}

impl Drop for NullBroker {
    fn drop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }
}

fn load() -> produce::Load {
    produce::Load {
        topic: "replayed".to_owned(),
        partitions: 3,
        partitions_per_request: 2,
        batch: wire::batch(5, 100),
        acks: -1,
        connections: 4,
        in_flight: 3,
        requests: 50,
        time_limit: Duration::MAX,
        rate: None,
    }
}

#[test]
fn what_was_produced_is_there_and_read_to_its_end() {
    let broker = NullBroker::start();
    let mut wire = Wire::connect(broker.port).expect("it listens");
    wire.create_topic("replayed", 3).expect("created");
    let mut generator = produce::Generator::connect(broker.port, load()).expect("connected");
    let produced = generator.run().expect("taken");
    assert_eq!((produced.requests, produced.latencies.len()), (50, 50));
    assert_eq!(produced.bytes, 100 * wire::batch(5, 100).len() as u64);
    let ends = fetch::log_ends(&mut wire, "replayed", 3).expect("led");
    assert_eq!(ends, fetch::ends_after(&load()));
    let readers = fetch::Load {
        topic: "replayed".to_owned(),
        partitions: 3,
        connections: 3,
        max_bytes: 4096,
        max_wait: Duration::from_millis(500),
        times: 2,
    };
    let readers = fetch::Readers::connect(broker.port, readers).expect("connected");
    let mut running = readers.start(|partition| ends[partition as usize]).expect("started");
    assert_eq!(running.finish().expect("read").bytes, 2 * produced.bytes);
}

#[test]
fn a_paced_load_counts_latency_from_when_a_request_was_due() {
    let broker = NullBroker::start();
    Wire::connect(broker.port).expect("it listens").create_topic("replayed", 3).expect("created");
    let paced = produce::Load { rate: Some(1000.0), ..load() };
    let mut generator = produce::Generator::connect(broker.port, paced).expect("connected");
    let produced = generator.run().expect("taken");
    assert_eq!(produced.requests, 50);
    // The last of 50 is due 49 ms after the first: it cannot have been sent before.
    assert!(produced.elapsed >= Duration::from_millis(49), "{:?}", produced.elapsed);
}

#[test]
fn a_partition_that_does_not_exist_is_an_error() {
    let broker = NullBroker::start();
    Wire::connect(broker.port).expect("it listens").create_topic("replayed", 2).expect("created");
    let mut generator = produce::Generator::connect(broker.port, load()).expect("connected");
    let error = generator.run().expect_err("there is no partition 2");
    assert!(error.to_string().contains("UnknownTopicOrPartition"), "{error}");
}
