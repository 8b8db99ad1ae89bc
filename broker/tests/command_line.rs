//! The `highwater` binary from outside: what its command line promises.

use std::process::{Command, Output, Stdio};

fn highwater(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory");
    Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_bad_setting_ends_with_exit_code_2_and_names_key_value_and_what_is_allowed() {
    for (arguments, environment, named) in [
        (
            &["--set", "num.partitions=many"][..],
            &[][..],
            "Invalid value many for configuration num.partitions",
        ),
        (&[], &[("KAFKA_LOG_SEGMENT_BYTES", "10")], "at least 1048576"),
        (&["--set", "num.partitions"], &[], "KEY=VALUE"),
        (&["--config", "nowhere.properties"], &[], "nowhere.properties"),
        (&["--listen", "localhost"], &[], "HOST:PORT"),
        (&["--topic", "t:0"], &[], "at least 1"),
        (&["--set", "listeners=SASL_PLAINTEXT://:0"], &[], "SASL_PLAINTEXT"),
        (&["--set", "controller.quorum.voters=1@a:1,2@b:1"], &[], "2@b:1"),
        (&["--set", "log.dirs=a,b"], &[], "one directory"),
        (&["--set", "log.cleanup.policy=compact"], &[], "compaction"),
        (&[], &[("RUST_LOG", "x=[")], "RUST_LOG"),
        (&["--bogus"], &[], "--bogus"),
        (&["--ephemeral", "--data-dir", "d"], &[], "--data-dir"),
    ] {
        let output = highwater(arguments, environment);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {environment:?}: {said}");
        assert!(said.contains(named), "{arguments:?} {environment:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_refused_setting_leaves_no_directory_behind() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let status = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["--set", "num.partitions=0"])
        .current_dir(directory.path())
        .stderr(Stdio::null())
        .status()
        .expect("the binary runs");
    assert_eq!(status.code(), Some(2));
    assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 0);
}

#[test]
fn version_and_help_go_to_stdout_with_exit_code_0() {
    for flag in ["-v", "--version"] {
        let output = highwater(&[flag], &[]);
        assert_eq!(output.status.code(), Some(0));
        let expected = concat!("highwater ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
    let help = highwater(&["--help"], &[]);
    let text = String::from_utf8_lossy(&help.stdout);
    for flag in [
        "--config",
        "--set",
        "--data-dir",
        "--listen",
        "--node-id",
        "--ephemeral",
        "--topic",
        "--ready-file",
        "--exit-with-stdin",
    ] {
        assert!(text.contains(flag), "{flag}: {text}");
    }
}

/// Commands that come later are absent, not stubs.
#[test]
fn what_is_not_there_yet_is_not_in_the_help() {
    let help = highwater(&["--help"], &[]);
    let text = String::from_utf8_lossy(&help.stdout);
    for command in ["  dev ", "  pipe ", "  chaos ", "  group "] {
        assert!(!text.contains(command), "{command}: {text}");
    }
}
