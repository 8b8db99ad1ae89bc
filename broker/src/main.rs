//! The `highwater` binary: the command line, logging, exit codes.
//!
//! Exit codes: 0 done · 1 a client command failed · 2 usage or configuration · 3 fenced or id conflict · 4 disk.
#![forbid(unsafe_code)]

use std::io::Read;
use std::process::ExitCode;
use std::time::Instant;

use broker::commands::ClientCommand;
use broker::config::{self, LoadedConfig, ServeFlags};
use broker::logging::{self, LevelFilter};
use broker::server;
use clap::{ArgAction, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// A Kafka-protocol broker: without a command it serves on 127.0.0.1:9092, data in ./highwater-data.
#[derive(Debug, Parser)]
#[command(
    name = "highwater",
    version,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeFlags,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker; what highwater does without a command
    Serve(ServeFlags),
    #[command(flatten)]
    Client(ClientCommand),
}

const USAGE: u8 = 2;

fn main() -> ExitCode {
    let started = Instant::now();
    // Chosen by the FAILPOINTS variable, for tests: a release build has none.
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    // clap exits with 2 on a usage error, and with 0 on --help and --version.
    let CommandLine { command, serve, version: _ } = CommandLine::parse();
    match command {
        None => run_broker(&serve, started),
        Some(Command::Serve(flags)) => run_broker(&flags, started),
        Some(Command::Client(command)) => run_client(command),
    }
}

fn fail(code: u8, reason: impl std::fmt::Display) -> ExitCode {
    eprintln!("highwater: {reason}");
    ExitCode::from(code)
}

/// A client command has one connection or few: one thread is enough.
fn run_client(command: ClientCommand) -> ExitCode {
    if let Err(reason) = logging::init(LevelFilter::WARN) {
        return fail(USAGE, reason);
    }
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command.run()).unwrap_or_else(|error| error.report()),
        Err(error) => fail(USAGE, format!("no threads for the command: {error}")),
    }
}

fn run_broker(flags: &ServeFlags, started: Instant) -> ExitCode {
    if let Err(reason) = logging::init(LevelFilter::INFO) {
        return fail(USAGE, reason);
    }
    // Variables that are not UTF-8 cannot be settings of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let LoadedConfig { mut config, warnings } = match config::load(flags, environment) {
        Ok(loaded) => loaded,
        Err(error) => return fail(USAGE, error),
    };
    for warning in warnings {
        warn!("{warning}");
    }
    // Removed when this function returns, whatever the broker said.
    let _temporary = match config.ephemeral.then(temporary_dir) {
        None => None,
        Some(Ok(directory)) => {
            config = config.with_data_dir(directory.path());
            Some(directory)
        }
        Some(Err(error)) => return fail(USAGE, format!("no temporary directory: {error}")),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(USAGE, format!("no threads for the broker: {error}")),
    };
    let exit_with_stdin = config.exit_with_stdin;
    let result = runtime.block_on(async {
        let shutdown = shutdown_signal(exit_with_stdin)?;
        server::run(config, started, shutdown).await
    });
    // A task that still waits on a socket must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stopped) => {
            error!("{stopped}");
            ExitCode::from(stopped.exit_code())
        }
    }
}

fn temporary_dir() -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("highwater-").tempdir()
}

/// Resolves at SIGTERM, at Ctrl-C, and when stdin ends if that was asked for. The signals are caught from the
/// moment of the call, before anything is begun that a stop would have to undo.
fn shutdown_signal(
    exit_with_stdin: bool,
) -> Result<impl Future<Output = ()> + Send, server::ServeError> {
    let catch = |kind| {
        signal(kind).map_err(|error| {
            server::ServeError::Configuration(format!("cannot catch signals: {error}"))
        })
    };
    let (mut terminate, mut interrupt) =
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let stdin_ended = exit_with_stdin.then(stdin_end);
    Ok(async move {
        let stdin_ended = async {
            match stdin_ended {
                // An error means that the thread is gone, and with it the watch over stdin.
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("interrupted: stopping"),
            () = stdin_ended => info!("stdin ended: stopping"),
        }
    })
}

/// Reads stdin to its end on a thread of its own: tokio's would keep the runtime from stopping.
fn stdin_end() -> oneshot::Receiver<()> {
    let (ended, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // The receiver is gone once the broker stops for another reason.
        let _ = ended.send(());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn flags(line: &[&str]) -> Result<ServeFlags, clap::Error> {
        let parsed = CommandLine::try_parse_from([&["highwater"], line].concat())?;
        Ok(match parsed.command {
            None => parsed.serve,
            Some(Command::Serve(flags)) => flags,
            Some(Command::Client(command)) => panic!("not the broker but {command:?}"),
        })
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serve_is_what_it_does_without_a_command() {
        for line in [
            &["--listen", ":0", "--listen", "a:1"][..],
            &["serve", "--listen", ":0", "--listen", "a:1"],
        ] {
            assert_eq!(flags(line).unwrap().listen, [":0", "a:1"]);
        }
    }

    #[test]
    fn flags_that_exclude_each_other_and_unknown_ones_end_with_exit_code_2() {
        for line in [&["--ephemeral", "--data-dir", "d"][..], &["--bogus"], &["--node-id", "x"]] {
            assert_eq!(flags(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn the_version_is_asked_for_by_v() {
        for flag in ["-v", "--version"] {
            assert_eq!(flags(&[flag]).unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion);
        }
    }
}
