//! The replay generator by hand, against any broker on loopback: `bench/README.md` shows how.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use highwater_bench::failure::{Failure, io_failure};
use highwater_bench::process::CpuReading;
use highwater_bench::replay::cores::Apart;
use highwater_bench::replay::latencies::Latencies;
use highwater_bench::replay::{fetch, produce};
use highwater_bench::wire::{self, Wire};
use serde_json::json;

/// Loads a broker with requests encoded once. Prints a line of JSON: rates, percentiles, processor time.
#[derive(Parser)]
#[command(name = "replay")]
struct Arguments {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Creates a topic, sends Produce requests to it, and deletes it.
    Produce(ProduceArguments),
    /// Creates a topic, fills it, reads it from the start, and deletes it.
    Fetch(FetchArguments),
    /// Creates a topic, sends to it at a steady rate while others read its end, and deletes it.
    Tail(FetchArguments),
}

#[derive(Args, Clone)]
struct ProduceArguments {
    /// Where the broker listens on loopback.
    #[arg(long)]
    port: u16,
    /// The broker's process: its processor time is reported.
    #[arg(long)]
    pid: Option<u32>,
    /// Keeps the broker (--pid) on one core and the generator on another meanwhile.
    #[arg(long, requires = "pid")]
    pin: bool,
    /// A topic to create.
    #[arg(long, default_value = "replay")]
    topic: String,
    /// Of that topic: KEY=VALUE, as flush.messages=1.
    #[arg(long = "config", value_name = "KEY=VALUE")]
    configs: Vec<String>,
    /// Leaves the topic there.
    #[arg(long)]
    keep: bool,
    /// Partitions of the topic, which take turns.
    #[arg(long, default_value_t = 1)]
    partitions: u16,
    /// Partitions in each request.
    #[arg(long, default_value_t = 1)]
    partitions_per_request: u16,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1024)]
    record_size: usize,
    /// Records of a batch.
    #[arg(long, default_value_t = 1, conflicts_with = "batch_size")]
    records: i32,
    /// Instead of --records: as many as fit so many bytes, the batch's header included.
    #[arg(long)]
    batch_size: Option<usize>,
    /// 1 or -1.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    acks: i16,
    /// Connections that produce.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Unanswered requests of each.
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
    /// Bytes of batches in all, in MiB.
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// No request begins later than this.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Requests a second; without it as many as the broker takes.
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Args, Clone)]
struct FetchArguments {
    #[command(flatten)]
    produce: ProduceArguments,
    /// Connections that read, each a partition.
    #[arg(long, default_value_t = 1)]
    readers: usize,
    /// Bytes of an answer.
    #[arg(long, default_value_t = 1 << 20)]
    max_bytes: i32,
    /// How long the broker may wait for records.
    #[arg(long, default_value_t = 500)]
    max_wait_ms: u64,
    /// How often everything is read.
    #[arg(long, default_value_t = 1)]
    times: u32,
}

fn main() -> ExitCode {
    let (arguments, run): (_, Box<dyn Fn() -> Result<(), Failure>>) = match Arguments::parse().load
    {
        Load::Produce(arguments) => (arguments.clone(), Box::new(move || produce(&arguments))),
        Load::Fetch(arguments) => {
            (arguments.produce.clone(), Box::new(move || fill_and_fetch(&arguments)))
        }
        Load::Tail(arguments) => (arguments.produce.clone(), Box::new(move || tail(&arguments))),
    };
    match with_topic(&arguments, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("replay: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn with_topic(
    arguments: &ProduceArguments,
    run: impl Fn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let settings: Option<Vec<_>> =
        arguments.configs.iter().map(|config| config.split_once('=')).collect();
    let settings = settings.ok_or_else(|| Failure::Usage("--config KEY=VALUE".to_owned()))?;
    let connect = || Wire::connect(arguments.port).map_err(io_failure("connecting"));
    connect()?
        .create_topic_with(&arguments.topic, i32::from(arguments.partitions), &settings)
        .map_err(io_failure("the topic"))?;
    fetch::log_ends(&mut connect()?, &arguments.topic, usize::from(arguments.partitions))
        .map_err(io_failure("the topic"))?;
    let done = run();
    if !arguments.keep {
        connect()?.delete_topic(&arguments.topic).map_err(io_failure("the topic"))?;
    }
    done
}

impl ProduceArguments {
    fn load(&self) -> produce::Load {
        let batch = match self.batch_size {
            Some(size) => wire::batch_of_bytes(size, self.record_size),
            None => wire::batch(self.records, self.record_size),
        };
        let request_bytes = batch.len() as u64 * u64::from(self.partitions_per_request);
        produce::Load {
            topic: self.topic.clone(),
            partitions: usize::from(self.partitions),
            partitions_per_request: usize::from(self.partitions_per_request),
            batch,
            acks: self.acks,
            connections: self.connections,
            in_flight: self.in_flight,
            requests: ((self.mib << 20) / request_bytes).max(1),
            time_limit: Duration::from_secs(self.seconds),
            rate: self.rate,
        }
    }

    fn generator(&self) -> Result<produce::Generator, Failure> {
        produce::Generator::connect(self.port, self.load()).map_err(io_failure("connecting"))
    }

    /// Runs `work` beside the broker's accounting, on a core of its own if so asked.
    fn measured<T>(
        &self,
        work: impl FnOnce() -> io::Result<T>,
    ) -> Result<(T, Option<Duration>), Failure> {
        let _apart = match self.pid {
            Some(pid) if self.pin => Apart::set(pid)?,
            _ => None,
        };
        let before = self.pid.map(CpuReading::of).transpose()?;
        let done = work().map_err(io_failure("load"))?;
        let after = self.pid.map(CpuReading::of).transpose()?;
        Ok((done, after.zip(before).map(|(after, before)| after.since(before))))
    }
}

impl FetchArguments {
    fn readers(&self, times: u32) -> Result<fetch::Readers, Failure> {
        let load = fetch::Load {
            topic: self.produce.topic.clone(),
            partitions: usize::from(self.produce.partitions),
            connections: self.readers,
            max_bytes: self.max_bytes,
            max_wait: Duration::from_millis(self.max_wait_ms),
            times,
        };
        fetch::Readers::connect(self.produce.port, load).map_err(io_failure("connecting"))
    }

    fn log_ends(&self) -> Result<Vec<i64>, Failure> {
        let mut wire = Wire::connect(self.produce.port).map_err(io_failure("connecting"))?;
        let partitions = usize::from(self.produce.partitions);
        fetch::log_ends(&mut wire, &self.produce.topic, partitions)
            .map_err(io_failure("the log's end"))
    }
}

fn produce(arguments: &ProduceArguments) -> Result<(), Failure> {
    let mut generator = arguments.generator()?;
    let (outcome, broker_cpu) = arguments.measured(|| generator.run())?;
    print_produced(&outcome);
    print("broker", outcome.requests, outcome.bytes, broker_cpu);
    Ok(())
}

fn fill_and_fetch(arguments: &FetchArguments) -> Result<(), Failure> {
    arguments.produce.generator()?.run().map_err(io_failure("filling the topic"))?;
    let ends = arguments.log_ends()?;
    let readers = arguments.readers(arguments.times)?;
    let ((outcome, _running), broker_cpu) = arguments.produce.measured(|| {
        let mut running = readers.start(|partition| ends[partition as usize])?;
        Ok((running.finish()?, running))
    })?;
    print_fetched(&outcome);
    print("broker", outcome.answers, outcome.bytes, broker_cpu);
    Ok(())
}

fn tail(arguments: &FetchArguments) -> Result<(), Failure> {
    let load = arguments.produce.load();
    let requests = load.rate.map_or(load.requests, |rate| {
        load.requests.min((rate * load.time_limit.as_secs_f64()) as u64)
    });
    let load = produce::Load { requests, time_limit: Duration::MAX, ..load };
    let ends = fetch::ends_after(&load);
    let mut generator = produce::Generator::connect(arguments.produce.port, load)
        .map_err(io_failure("connecting"))?;
    let readers = arguments.readers(1)?;
    let ((produced, fetched, _running), broker_cpu) = arguments.produce.measured(|| {
        let mut running = readers.start(|partition| ends[partition as usize])?;
        let produced = generator.run()?;
        Ok((produced, running.finish()?, running))
    })?;
    print_produced(&produced);
    print_fetched(&fetched);
    print("broker, in and out", fetched.answers, produced.bytes + fetched.bytes, broker_cpu);
    Ok(())
}

fn print_produced(outcome: &produce::Outcome) {
    print_rates("produce", outcome.requests, outcome.bytes, outcome.elapsed, &outcome.latencies);
    print("generator", outcome.requests, outcome.bytes, Some(outcome.own_cpu));
}

fn print_fetched(outcome: &fetch::Outcome) {
    print_rates("fetch", outcome.answers, outcome.bytes, outcome.elapsed, &outcome.latencies);
    print("readers", outcome.answers, outcome.bytes, Some(outcome.own_cpu));
}

fn print_rates(what: &str, requests: u64, bytes: u64, elapsed: Duration, latencies: &Latencies) {
    let [p50, p99, p999, greatest] = latencies.percentiles([500, 990, 999, 1000]);
    let seconds = elapsed.as_secs_f64();
    let line = json!({
        "load": what,
        "requests": requests,
        "bytes": bytes,
        "seconds": rounded(seconds),
        "requests_s": (requests as f64 / seconds).round(),
        "mb_s": (bytes as f64 / 1e6 / seconds).round(),
        "p50_us": p50.as_micros(),
        "p99_us": p99.as_micros(),
        "p999_us": p999.as_micros(),
        "max_us": greatest.as_micros(),
    });
    println!("{line}");
}

fn print(whose: &str, requests: u64, bytes: u64, cpu: Option<Duration>) {
    let Some(cpu) = cpu else {
        return;
    };
    let line = json!({
        "cpu_of": whose,
        "cpu_seconds": rounded(cpu.as_secs_f64()),
        "ns_per_byte": rounded(cpu.as_secs_f64() * 1e9 / bytes as f64),
        "us_per_request": rounded(cpu.as_secs_f64() * 1e6 / requests as f64),
    });
    println!("{line}");
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
