//! `bench/run`: see its head and `bench/README.md`.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use highwater_bench::broker::{Kind, Programs};
use highwater_bench::failure::{Failure, io_failure};
use highwater_bench::results::Results;
use highwater_bench::rows::{self, Context, Row, Size};
use highwater_bench::{load, machine, report, schedule, table};
use serde_json::json;

/// Speed and size of highwater beside Apache Kafka and a null broker.
#[derive(Parser)]
#[command(name = "bench/run")]
struct Arguments {
    /// Only these rows; --list names them.
    rows: Vec<String>,
    /// Prints the rows and what each measures.
    #[arg(long)]
    list: bool,
    /// Every row once with little data, without Kafka unless named by --brokers: does it run?
    #[arg(long)]
    smoke: bool,
    /// How often each broker takes its turn.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Which brokers: highwater, null, null_memory, kafka. Ratios need highwater.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    brokers: Vec<String>,
    /// Goes on with the results in this file; rows that it holds are not measured again.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Measures nothing; makes docs/performance.md and its pictures from the results in this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Where the brokers keep their data: the file system that is measured.
    #[arg(long, value_name = "DIR", default_value = "target/bench/data")]
    data_dir: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("bench/run: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Whether every row was measured.
fn run(arguments: &Arguments) -> Result<bool, Failure> {
    if arguments.list {
        for row in rows::all() {
            println!("{:16} {}", row.name, row.what);
        }
        return Ok(true);
    }
    allow_open_files();
    if let Some(results) = &arguments.report {
        for complaint in report::write(results)? {
            eprintln!("{complaint}");
        }
        return Ok(true);
    }
    let brokers = chosen_brokers(arguments)?;
    let mut rows = chosen_rows(&arguments.rows)?;
    if arguments.smoke && arguments.rows.is_empty() && !brokers.contains(&Kind::Kafka) {
        rows.retain(|row| !rows::needs_java(row));
    }
    let rounds = arguments.rounds.unwrap_or(if arguments.smoke { 1 } else { 5 });
    let context = Context {
        programs: programs()?,
        scratch: arguments.data_dir.clone(),
        size: if arguments.smoke { Size::Smoke } else { Size::Full },
    };
    fs::create_dir_all(&context.scratch).map_err(io_failure("the data directory"))?;
    let kafka_version = if brokers.contains(&Kind::Kafka) {
        fetch_kafka(&context.programs)?
    } else {
        String::new()
    };

    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    let path = arguments.resume.clone().unwrap_or_else(|| {
        let kind = if arguments.smoke { "smoke" } else { "run" };
        PathBuf::from(format!("bench/results/{kind}-{seconds}.jsonl"))
    });
    let mut results = Results::open(&path)?;
    if !arguments.smoke {
        machine::advice().iter().for_each(|advice| eprintln!("{advice}"));
    }
    let machine = machine::describe(&context.scratch);
    let settings = json!({
        "smoke": arguments.smoke,
        "rounds": rounds,
        "started_at": seconds,
        "highwater": first_line(&context.programs.highwater, &["--version"]),
        "commit": first_line("git", &["describe", "--always", "--dirty"]),
        "rustc": first_line("rustc", &["--version"]),
        "kafka": kafka_version,
        "java": first_line("java", &["--version"]),
        "librdkafka": first_line(&context.programs.rdkafka_load, &["version"]),
        "librdkafka_producer": load::PRODUCER,
        "librdkafka_producer_where_latency_is_measured": load::PROMPT_PRODUCER,
        "librdkafka_consumer": load::CONSUMER,
        "kafka_producer_perf_test": rows::PERF_TEST_SETTINGS,
        "brokers": "their defaults, and log.segment.delete.delay.ms=500; Kafka: 1 GiB of heap, collector settings of its start script",
    });
    results.header(&machine, &settings)?;
    schedule::run(&context, &rows, &brokers, rounds, &mut results)?;
    println!("{machine:#}\n{settings:#}");
    println!("{}", table::render(&results, &rows, &brokers));
    println!("{}", path.display());
    Ok(results.failures().is_empty())
}

/// As many as the system lets this process and the brokers, which inherit it: a thousand connections need them at both ends.
fn allow_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A row that needs more than there are says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn chosen_rows(names: &[String]) -> Result<Vec<&'static Row>, Failure> {
    if let Some(unknown) = names.iter().find(|name| rows::all().all(|row| row.name != **name)) {
        return Err(Failure::Usage(format!("no row {unknown}; --list names them")));
    }
    let wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| name == row.name);
    Ok(rows::all().filter(wanted).collect())
}

fn chosen_brokers(arguments: &Arguments) -> Result<Vec<Kind>, Failure> {
    if arguments.brokers.is_empty() {
        let without_kafka = |kind: &Kind| !arguments.smoke || *kind != Kind::Kafka;
        return Ok(Kind::WITH_NULL_MEMORY.into_iter().filter(without_kafka).collect());
    }
    let known = |name: &String| {
        let unknown = || {
            Failure::Usage(format!(
                "no broker {name}; there are highwater, null, null_memory, kafka"
            ))
        };
        Kind::named(name).ok_or_else(unknown)
    };
    let mut brokers = arguments.brokers.iter().map(known).collect::<Result<Vec<_>, _>>()?;
    brokers.sort();
    brokers.dedup();
    Ok(brokers)
}

/// Beside this program, except what `bench/run` names or builds.
fn programs() -> Result<Programs, Failure> {
    let here = std::env::current_exe().map_err(io_failure("where am I"))?;
    let highwater = std::env::var_os("HIGHWATER").map(PathBuf::from);
    Ok(Programs {
        highwater: highwater.unwrap_or_else(|| here.with_file_name("highwater")),
        null_broker: here.with_file_name("null_broker"),
        apache_kafka: PathBuf::from("tests/tools/apache-kafka"),
        rdkafka_load: PathBuf::from("target/bench/rdkafka_load"),
        rdkafka_latency: PathBuf::from("target/bench/rdkafka_latency"),
    })
}

/// The first use of the script fetches Kafka's jars, which is nobody's start time. Returns its version.
fn fetch_kafka(programs: &Programs) -> Result<String, Failure> {
    let output = Command::new(&programs.apache_kafka)
        .args(["tool", "org.apache.kafka.tools.TopicCommand", "--version"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(io_failure("starting tests/tools/apache-kafka"))?;
    if !output.status.success() {
        return Err(Failure::Broker {
            broker: "kafka",
            what: "is not to be had (Java 17 and Maven?); leave it out by --brokers highwater,null"
                .to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a program says first, of itself; nothing where it is not there.
fn first_line(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let output = Command::new(program.as_ref()).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}
