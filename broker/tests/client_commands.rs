//! The client commands of the `highwater` binary, against a broker of the same binary.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A broker on a free port; ends with the value.
struct Broker {
    process: Child,
    bootstrap: String,
    dir: tempfile::TempDir,
}

impl Broker {
    fn start() -> Broker {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut process = Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args(["--listen", "127.0.0.1:0", "--exit-with-stdin", "--data-dir"])
            .arg(dir.path().join("data"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut ready = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut ready).expect("a ready line");
        // highwater ready: node 1, 127.0.0.1:9092, 12 ms
        let bootstrap = ready.split(", ").nth(1).expect("an address").to_owned();
        Broker { process, bootstrap, dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.args(arguments).args(["--bootstrap", &self.bootstrap]);
        command
    }

    /// Runs a command with `input` on stdin.
    fn run(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that does not read it may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Ran::new(child.wait_with_output().expect("it ends"))
    }

    fn ok(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run(arguments, input);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
        ran.stdout
    }
}

impl Broker {
    fn stop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn lines_go_in_and_come_out() {
    let broker = Broker::start();
    broker.ok(&["topic", "create", "t"], "");
    let ran = broker.run(&["produce", "t"], "one\ntwo\n\nfour");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "produced 4 records to t\n"));
    assert_eq!(broker.ok(&["consume", "t", "--once"], ""), "one\ntwo\n\nfour\n");
    assert_eq!(broker.ok(&["consume", "t", "--once", "--from", "-1"], ""), "four\n");
    assert_eq!(broker.ok(&["consume", "t", "-n", "1", "--from", "1"], ""), "two\n");
    assert_eq!(broker.ok(&["consume", "t", "--once", "--from", "end"], ""), "");
    assert_eq!(
        broker.ok(&["consume", "t", "--once", "--from", "@0", "--format", "%p:%o "], ""),
        "0:0 0:1 0:2 0:3 "
    );
}

#[test]
fn what_consume_prints_as_json_produce_takes_back() {
    let broker = Broker::start();
    broker.ok(&["topic", "create", "a", "--partitions", "2"], "");
    broker.ok(&["topic", "create", "b", "--partitions", "2"], "");
    let with_keys =
        ["--key-separator", ":", "--header", "h=1", "--header", "h=2", "--compression", "zstd"];
    broker.ok(&[&["produce", "a"][..], &with_keys].concat(), "k1:v1\nk2:v2\nk3:\n");
    broker.ok(
        &["produce", "a", "--format", "json"],
        "{\"key_base64\":\"/w==\",\"value\":null,\"timestamp\":7}\n",
    );
    let a = broker.ok(&["consume", "a", "--once", "--json"], "");
    broker.ok(&["produce", "b", "--format", "json"], &a);
    let b = broker.ok(&["consume", "b", "--once", "--json"], "");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&a.replace("\"topic\":\"a\"", "\"topic\":\"b\"")), sorted(&b));
    assert_eq!(sorted(&a).len(), 4);
    let record =
        a.lines().map(json).find(|record| record["key"] == "k1").expect("the first record");
    assert_eq!(record["value"], "v1");
    assert_eq!(record["headers"], json(r#"[{"key":"h","value":"1"},{"key":"h","value":"2"}]"#));
    let bytes =
        a.lines().map(json).find(|record| record["key_base64"] == "/w==").expect("the last record");
    assert_eq!((bytes["value"].is_null(), bytes["timestamp"].as_i64()), (true, Some(7)));
}

#[test]
fn topics_are_made_shown_and_deleted() {
    let broker = Broker::start();
    let create = ["topic", "create", "t", "--partitions", "2", "--config", "retention.ms=60000"];
    assert_eq!(broker.ok(&create, ""), "created topic t: partitions 2, replication factor 1\n");
    let again = broker.run(&create, "");
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("--if-not-exists"), "{}", again.stderr);
    broker.ok(&["topic", "create", "t", "--if-not-exists"], "");

    let listed = json(&broker.ok(&["topic", "list", "--json"], ""));
    assert_eq!((&listed[0]["name"], &listed[0]["partitions"]), (&json("\"t\""), &json("2")));
    broker.ok(&["produce", "t", "--partition", "1"], "x\ny\n");
    let described = json(&broker.ok(&["topic", "describe", "t", "--json"], ""));
    assert_eq!(described[0]["configs"], json(r#"{"retention.ms":"60000"}"#));
    assert_eq!(described[0]["partitions"][1]["end_offset"], 2);
    assert_eq!(described[0]["partitions"][0]["isr"], json("[1]"));
    let text = broker.ok(&["topic", "describe", "t"], "");
    assert!(text.contains("PARTITION  LEADER  EPOCH  REPLICAS  ISR  START  END"), "{text}");

    assert_eq!(broker.ok(&["topic", "delete", "t"], ""), "deleted topic t\n");
    let gone = broker.run(&["topic", "delete", "t"], "");
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("--if-exists"), "{}", gone.stderr);
    broker.ok(&["topic", "delete", "t", "--if-exists"], "");
    let missing = broker.run(&["consume", "t", "--once"], "");
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("highwater topic create"), "{}", missing.stderr);
}

#[test]
fn the_cluster_is_shown_and_waited_for() {
    let broker = Broker::start();
    let ready = json(&broker.ok(&["wait", "ready", "--json"], ""));
    assert_eq!((&ready["ready"], &ready["brokers"]), (&Value::Bool(true), &json("1")));
    let cluster = json(&broker.ok(&["cluster", "describe", "--json"], ""));
    assert_eq!(cluster["cluster_id"], ready["cluster_id"]);
    assert_eq!(cluster["brokers"][0]["id"], cluster["controller"]);
    let text = broker.ok(&["cluster", "describe"], "");
    assert!(text.contains(&broker.bootstrap) && text.contains("controller"), "{text}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let broker = Broker::start();
    broker.ok(&["topic", "create", "t"], "");
    let lines: String = (0..20_000).map(|n| format!("{n:0>50}\n")).collect();
    broker.ok(&["produce", "t", "--compression", "lz4"], &lines);
    for command in [&["consume", "t"][..], &["consume", "t", "--json"]] {
        let mut consume = broker
            .command(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let mut stdout = BufReader::new(consume.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("a record");
        drop(stdout);
        let ran = Ran::new(consume.wait_with_output().expect("it ends"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{command:?}");
    }
}

#[test]
fn without_a_broker_the_error_says_where_and_what_to_do() {
    // Bound and not listening: nobody else gets it, and nobody answers.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    drop(taken);
    for command in
        [&["topic", "list"][..], &["produce", "t"], &["consume", "t"], &["cluster", "describe"]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args(command)
            .args(["--bootstrap", &address])
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        let ran = Ran::new(output);
        assert_eq!(ran.code, Some(1), "{command:?}");
        assert!(
            ran.stderr.contains(&address) && ran.stderr.contains("--bootstrap"),
            "{command:?}: {}",
            ran.stderr
        );
    }
    let waited = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["wait", "ready", "--timeout", "0", "--bootstrap", &address])
        .output()
        .expect("the binary runs");
    assert_eq!(waited.status.code(), Some(1));
}

#[test]
fn a_command_line_or_line_that_makes_no_sense_ends_with_exit_code_2() {
    let broker = Broker::start();
    broker.ok(&["topic", "create", "t"], "");
    for command in [
        &["consume", "t", "--from", "soon"][..],
        &["consume", "t", "--format", "%q"],
        &["produce", "t", "--compression", "rar"],
        &["topic", "create", "t", "--config", "novalue"],
        &["topic", "create", "t", "--partitions", "0"],
        &["topic"],
    ] {
        assert_eq!(broker.run(command, "").code, Some(2), "{command:?}");
    }
    let ran = broker.run(&["produce", "t", "--format", "json"], "{\"value\":\"good\"}\nnot json\n");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("line 2"), "{}", ran.stderr);
    assert_eq!(broker.ok(&["consume", "t", "--once"], ""), "good\n");
}

#[test]
fn the_files_of_a_broker_can_be_looked_into_while_it_runs_and_after() {
    let mut broker = Broker::start();
    broker.ok(&["topic", "create", "t"], "");
    broker.ok(&["produce", "t", "--compression", "gzip"], "one\ntwo\n");
    let dump = |arguments: &[&str], file: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        Ran::new(
            command
                .args(["log", "dump"])
                .args(arguments)
                .arg(file)
                .output()
                .expect("the binary runs"),
        )
    };
    let partition = broker.dir.path().join("data/t-0");
    let log = partition.join("00000000000000000000.log");
    let printed = dump(&["--json"], &log);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let values: Vec<Value> =
        printed.stdout.lines().map(json).filter(|line| line["type"] == "record").collect();
    assert_eq!((&values[0]["value"], &values[1]["value"]), (&json("\"one\""), &json("\"two\"")));
    broker.stop();
    let snapshot = partition.join("00000000000000000002.snapshot");
    let indexes = ["log", "index", "timeindex"].map(|extension| log.with_extension(extension));
    for file in indexes.iter().chain([&snapshot]) {
        let verified = dump(&["--verify"], file);
        assert_eq!(
            verified.code,
            Some(0),
            "{}: {}{}",
            file.display(),
            verified.stdout,
            verified.stderr
        );
    }
    let producers = dump(&["--json"], &snapshot).stdout;
    assert_eq!(json(producers.lines().next().expect("a producer"))["last_sequence"], 1);
    let mut bytes = std::fs::read(&log).expect("there");
    *bytes.last_mut().expect("not empty") ^= 1;
    let damaged = broker.dir.path().join("00000000000000000000.log");
    std::fs::write(&damaged, bytes).expect("written");
    let verified = dump(&["--verify"], &damaged);
    assert_eq!(verified.code, Some(1));
    assert!(verified.stdout.contains("CRC-32C"), "{}", verified.stdout);
}
