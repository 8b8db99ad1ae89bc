//! `highwater serve` from outside: the ready line and file, how it stops, what it refuses.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

/// A running broker. Stdin is a pipe: with `--exit-with-stdin` it cannot outlive the test.
struct Broker {
    child: Child,
    address: String,
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command
        .args(arguments)
        .arg("--exit-with-stdin")
        .env_clear()
        .env("TMPDIR", directory)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Broker {
    fn start(directory: &Path, arguments: &[&str]) -> Broker {
        let mut child = command(directory, arguments).spawn().expect("the binary runs");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("stdout is text");
        let mut words =
            line.strip_prefix("highwater ready: node 1, ").unwrap_or_default().split(", ");
        let (address, took) = (words.next().unwrap_or_default().to_owned(), words.last());
        if !took.is_some_and(|took| took.trim_end().ends_with(" ms")) {
            child.kill().expect("it is ours");
            let mut said = String::new();
            let _ = child.stderr.take().expect("it is a pipe").read_to_string(&mut said);
            panic!("no ready line but {line:?}; stderr:\n{said}");
        }
        Broker { child, address }
    }

    fn stop(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().expect("it is ours")
    }

    fn client(&self, arguments: &[&str]) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args(arguments)
            .args(["--json", "--bootstrap", &self.address])
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("--json prints JSON")
    }
}

/// What a start that must fail says on stderr.
fn refusal(directory: &Path, arguments: &[&str]) -> String {
    let output =
        command(directory, arguments).stdin(Stdio::null()).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed a ready line");
    said
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

const FREE_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[test]
fn the_ready_file_says_where_the_broker_is() {
    let directory = temporary();
    let file = directory.path().join("ready.json");
    let flags = [
        "--data-dir",
        "data",
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "HOST://localhost:0",
        "--set",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,HOST:PLAINTEXT",
        "--ready-file",
        file.to_str().expect("it is UTF-8"),
    ];
    let broker = Broker::start(directory.path(), &flags);
    let ready: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("it is there")).expect("it is JSON");
    assert_eq!(ready["node_id"], 1);
    assert_eq!(ready["pid"], broker.child.id());
    assert_eq!(ready["cluster_id"].as_str().map(str::len), Some(22));
    assert_eq!(ready["data_dir"], directory.path().join("data").to_str().expect("it is UTF-8"));
    assert!(ready["ready_ms"].is_u64());
    let listeners = ready["listeners"].as_array().expect("a list");
    let names: Vec<&str> =
        listeners.iter().filter_map(|listener| listener["name"].as_str()).collect();
    assert_eq!(names, ["PLAINTEXT", "HOST"]);
    let first =
        format!("{}:{}", listeners[0]["host"].as_str().unwrap_or_default(), listeners[0]["port"]);
    assert_eq!(first, broker.address);
    assert_eq!(broker.stop().code(), Some(0));
}

#[test]
fn a_broker_ends_with_its_stdin_and_at_sigterm_with_exit_code_0() {
    let directory = temporary();
    let flags = [&["--data-dir", "data"][..], &FREE_PORT].concat();
    assert_eq!(Broker::start(directory.path(), &flags).stop().code(), Some(0));
    // Again on the same data.
    let mut broker = Broker::start(directory.path(), &flags);
    let pid = rustix::process::Pid::from_child(&broker.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(broker.child.wait().expect("it is ours").code(), Some(0));
}

#[test]
fn a_client_that_does_not_read_its_answers_does_not_hold_up_the_stop() {
    use std::io::Write;
    let directory = temporary();
    let broker =
        Broker::start(directory.path(), &[&["--data-dir", "data"][..], &FREE_PORT].concat());
    let mut client = std::net::TcpStream::connect(&broker.address).expect("it listens");
    client.set_write_timeout(Some(std::time::Duration::from_millis(500))).expect("it is not zero");
    // ApiVersions v0, correlation id 0, no client id; until the broker, stuck with its answers, reads no more.
    let requests = [&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 0, 255, 255][..]; 4096].concat();
    while client.write_all(&requests).is_ok() {}
    assert_eq!(broker.stop().code(), Some(0));
}

#[test]
fn an_ephemeral_broker_leaves_nothing_behind() {
    let directory = temporary();
    let flags = [&["--ephemeral", "--topic", "t"][..], &FREE_PORT].concat();
    let broker = Broker::start(directory.path(), &flags);
    let entries = || std::fs::read_dir(directory.path()).expect("it is there").count();
    assert_eq!(entries(), 1);
    assert_eq!(broker.stop().code(), Some(0));
    assert_eq!(entries(), 0);
}

#[test]
fn topics_are_there_before_the_ready_line_and_survive_a_restart() {
    let directory = temporary();
    let flags =
        [&["--data-dir", "data", "--topic", "orders:3", "--topic", "events"][..], &FREE_PORT]
            .concat();
    for _ in 0..2 {
        let broker = Broker::start(directory.path(), &flags);
        let topics = broker.client(&["topic", "list"]).to_string();
        assert!(topics.contains("orders") && topics.contains("events"), "{topics}");
        assert_eq!(broker.stop().code(), Some(0));
    }
}

#[test]
fn a_second_broker_on_the_same_directory_or_port_is_refused() {
    let directory = temporary();
    let broker =
        Broker::start(directory.path(), &[&["--data-dir", "data"][..], &FREE_PORT].concat());
    let said = refusal(directory.path(), &[&["--data-dir", "data"][..], &FREE_PORT].concat());
    assert!(said.contains("data"), "{said}");
    let said = refusal(directory.path(), &["--ephemeral", "--listen", &broker.address]);
    let port = broker.address.rsplit(':').next().expect("a port");
    assert!(said.contains(port) && said.contains("--listen"), "{said}");
    assert_eq!(broker.stop().code(), Some(0));
}

#[test]
fn a_directory_of_somebody_else_is_refused_untouched() {
    let directory = temporary();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("it is new");
    std::fs::write(data.join("thesis.tex"), "years of work").expect("it is ours");
    let said = refusal(directory.path(), &[&["--data-dir", "data"][..], &FREE_PORT].concat());
    assert!(said.contains("data"), "{said}");
    let names: Vec<_> = std::fs::read_dir(&data)
        .expect("it is there")
        .map(|e| e.expect("it is there").file_name())
        .collect();
    assert_eq!(names, ["thesis.tex"]);
}

/// What Kafka ships, on a free port: `--listen` comes over the file's listeners.
#[test]
fn partitions_without_their_metadata_log_are_refused_untouched() {
    let directory = temporary();
    let arguments = [&FREE_PORT[..], &["--data-dir", "data"]].concat();
    let broker = Broker::start(directory.path(), &arguments);
    let mut produce = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["produce", "orders", "--bootstrap", &broker.address])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    produce.stdin.take().expect("it is a pipe").write_all(b"one\n").expect("it reads");
    assert!(produce.wait().expect("it is ours").success());
    assert!(broker.stop().success());
    let data = directory.path().join("data");
    std::fs::remove_dir_all(data.join("__cluster_metadata-0")).expect("it is there");
    let said = refusal(directory.path(), &arguments);
    assert!(said.contains("orders-0") && said.contains("__cluster_metadata-0"), "{said}");
    assert!(data.join("orders-0/00000000000000000000.log").exists());
}

#[test]
fn kafkas_own_server_properties_start() {
    let directory = temporary();
    let stock = "process.roles=broker,controller\nnode.id=1\n\
        controller.quorum.bootstrap.servers=localhost:9093\n\
        listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
        advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
        controller.listener.names=CONTROLLER\nnum.network.threads=3\nlog.dirs=data\nnum.partitions=2\n\
        offsets.topic.replication.factor=1\nlog.retention.hours=168\n";
    std::fs::write(directory.path().join("server.properties"), stock).expect("it is ours");
    let flags = [&["--config", "server.properties"][..], &FREE_PORT].concat();
    // The file names the controller listener's address, which --listen takes away; the quorum is still this node.
    let broker = Broker::start(directory.path(), &flags);
    let cluster = broker.client(&["cluster", "describe"]).to_string();
    assert!(cluster.contains(broker.address.rsplit(':').next().expect("a port")), "{cluster}");
    assert_eq!(broker.stop().code(), Some(0));
}
