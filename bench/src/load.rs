//! librdkafka under load: the programs `rdkafka_load` and `rdkafka_latency`, each started, held until the broker's processor time has
//! been read, and asked for its figures. Their settings are here and equal for every broker.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::broker::{Broker, Programs};
use crate::failure::{Failure, io_failure};

/// librdkafka's settings of a producer at full speed; what a row adds or sets otherwise comes after them.
pub const PRODUCER: &[&str] =
    &["acks=all", "linger.ms=5", "enable.idempotence=false", "message.timeout.ms=60000"];
/// Of a producer whose messages' latency is measured: each is sent at once, by librdkafka and by the system.
pub const PROMPT_PRODUCER: &[&str] = &[
    "acks=all",
    "linger.ms=0",
    "enable.idempotence=false",
    "message.timeout.ms=60000",
    "socket.nagle.disable=true",
];
/// Of every consumer: the broker answers as soon as it has one byte and holds a fetch for half a second otherwise.
pub const CONSUMER: &[&str] =
    &["fetch.min.bytes=1", "fetch.wait.max.ms=500", "socket.nagle.disable=true"];

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

    /// To read all that was produced.
    pub fn all(self) -> Load {
        let messages = self.warm_up_messages + self.messages;
        Load { warm_up_messages: 0, messages, ..self }
    }
}

/// Which way the messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To all partitions of the topic in turn, until all are acknowledged.
    Produce,
    /// Partition 0 from offset 0, each offset checked to be the next.
    Consume,
    /// The same, its clocks from the first message on: for a topic that is still empty.
    Follow,
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

/// Runs one load against `topic`. `settings` are librdkafka's, as `KEY=VALUE`, after [`PRODUCER`] or [`CONSUMER`].
///
/// # Errors
/// When the client fails: a message not delivered, not received or out of order.
pub fn run(
    programs: &Programs,
    broker: &Broker,
    direction: Direction,
    topic: &str,
    load: Load,
    settings: &[String],
) -> Result<Outcome, Failure> {
    let mut client = start(programs, broker, direction, topic, load, settings)?;
    let before = broker.process.cpu()?;
    client.go();
    let figures = client.figures()?;
    let broker_cpu = broker.process.cpu()?.saturating_sub(before);
    Outcome::of(&figures, broker_cpu)
}

/// Starts one load and returns it when it is ready to go.
///
/// # Errors
/// When the client finds no broker or no topic.
pub fn start(
    programs: &Programs,
    broker: &Broker,
    direction: Direction,
    topic: &str,
    load: Load,
    settings: &[String],
) -> Result<Client, Failure> {
    let (direction, base) = match direction {
        Direction::Produce => ("produce", PRODUCER),
        Direction::Consume => ("consume", CONSUMER),
        Direction::Follow => ("follow", CONSUMER),
    };
    let mut arguments = vec![direction.to_owned(), broker.bootstrap(), topic.to_owned()];
    arguments.push(load.message_size.to_string());
    arguments.push(load.warm_up_messages.to_string());
    arguments.push(load.messages.to_string());
    arguments.extend(base.iter().map(|setting| (*setting).to_owned()));
    arguments.extend_from_slice(settings);
    Client::start(&programs.rdkafka_load, &arguments)
}

impl Outcome {
    /// From a client's figures.
    ///
    /// # Errors
    /// When there are none.
    pub fn of(figures: &Value, broker_cpu: Duration) -> Result<Outcome, Failure> {
        let elapsed = Duration::from_secs_f64(number(figures, "seconds")?);
        let client_cpu = Duration::from_secs_f64(number(figures, "cpu_seconds")?);
        Ok(Outcome { elapsed, client_cpu, broker_cpu })
    }
}

/// One figure of a client.
///
/// # Errors
/// When it has printed no such figure, or one below zero.
pub fn number(figures: &Value, key: &str) -> Result<f64, Failure> {
    let number = figures[key].as_f64().filter(|number| *number >= 0.0);
    number.ok_or_else(|| Failure::Load(format!("no {key} in {figures}")))
}

/// A client that is set up and waits for its go. It ends with this value.
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    /// Starts a program that says "ready" and then waits for a line.
    ///
    /// # Errors
    /// When it cannot be started, or ends before; with its own words.
    pub fn start(program: &Path, arguments: &[String]) -> Result<Client, Failure> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_failure(format!("starting {}", program.display())))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout was asked to be a pipe"));
        let mut client = Client { child, stdin, stdout };
        if client.line()? != "ready" {
            return Err(client.failure());
        }
        Ok(client)
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(io_failure("reading a client"))?;
        Ok(line.trim_end().to_owned())
    }

    /// Lets it begin.
    pub fn go(&mut self) {
        // A client that has failed no longer reads; its words on stderr say more than this would.
        let _ = self.stdin.take().map(|mut stdin| stdin.write_all(b"go\n"));
    }

    /// Waits until it is done. It may still live when this returns, so that the broker's connection is there to be accounted for.
    ///
    /// # Errors
    /// When it fails; with its own words.
    pub fn figures(&mut self) -> Result<Value, Failure> {
        let line = self.line()?;
        serde_json::from_str(&line).map_err(|_| self.failure())
    }

    fn failure(&mut self) -> Failure {
        self.stdin = None; // one that waits for its go ends
        let mut words = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut words);
        }
        let program = self.child.wait().map_or(String::new(), |status| status.to_string());
        Failure::Load(format!("{program}: {}", words.trim()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
