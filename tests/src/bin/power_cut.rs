//! Power cuts under a running broker: its data on an ext4 of its own whose power goes at random moments.
//!
//! `cargo run -p highwater-tests --bin power_cut -- --cuts 200`, as root. With `--unflushed` records are not synced before they
//! are acknowledged: the run must lose some then, but only from the end of partitions. With `--must-find` the checker or the
//! broker has a planted bug: the run must find it. Exits 77 where there is no root, loop device or mkfs.ext4.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use highwater_tests::power::ledger::Promise;
use highwater_tests::power::run::{Plan, Plant, RunError, Summary, run};

const CANNOT_RUN_HERE: u8 = 77;

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PlantArg {
    LostTail,
    LostInside,
}

#[derive(Parser)]
#[command(about = "Cut the power of a running broker, again and again")]
struct Args {
    /// How many.
    #[arg(long, default_value_t = 10)]
    cuts: u64,
    /// Repeats a run's choices; random if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Without log.flush.interval.messages=1.
    #[arg(long)]
    unflushed: bool,
    /// Take an acknowledged record out of what is read back.
    #[arg(long, value_enum, requires = "must_find")]
    plant: Option<PlantArg>,
    /// FAILPOINTS of the broker, whose binary must have them.
    #[arg(long, value_name = "NAME=ACTION", requires = "must_find")]
    failpoints: Option<String>,
    /// Fail unless something is found.
    #[arg(long)]
    must_find: bool,
    /// The broker; $HIGHWATER_BIN if absent, target/release/highwater without that.
    #[arg(long)]
    highwater: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("replay: {}", replay_line(&args, seed));
    let highwater = args
        .highwater
        .or_else(|| std::env::var_os("HIGHWATER_BIN").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("target/release/highwater"));
    let plan = Plan {
        seed,
        cuts: args.cuts,
        promise: if args.unflushed { Promise::Prefix } else { Promise::Everything },
        highwater,
        failpoints: args.failpoints,
        plant: args.plant.map(|plant| match plant {
            PlantArg::LostTail => Plant::LostTail,
            PlantArg::LostInside => Plant::LostInside,
        }),
    };
    let dir = match tempfile::Builder::new().prefix("highwater-power-cut.").tempdir() {
        Ok(dir) => dir,
        Err(error) => return cannot_run(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_run(&error),
    };
    let begin = std::time::Instant::now();
    let result = runtime.block_on(run(&plan, dir.path()));
    let took = begin.elapsed().as_secs_f32();
    match result {
        Ok(summary) if args.must_find => {
            eprintln!("power_cut: seed {seed}: the planted bug was not found: {}", told(&summary));
            ExitCode::FAILURE
        }
        Ok(summary) if args.unflushed && summary.lost == 0 => {
            eprintln!("power_cut: seed {seed}: void, nothing was lost: {}", told(&summary));
            ExitCode::FAILURE
        }
        Ok(summary) => {
            println!("power_cut: {}, {took:.1} s", told(&summary));
            ExitCode::SUCCESS
        }
        Err(RunError::Finding { cut, reason, .. }) if args.must_find => {
            println!("power_cut: found after {cut} cuts, {took:.1} s: {reason}");
            ExitCode::SUCCESS
        }
        Err(RunError::CannotRunHere(reason)) => cannot_run(&reason),
        Err(error) => {
            // For who looks into it: the disk's file and the broker's log.
            let kept = dir.keep();
            eprintln!("power_cut: seed {seed}: {error}\nkept in {}", kept.display());
            ExitCode::FAILURE
        }
    }
}

fn replay_line(args: &Args, seed: u64) -> String {
    let mut line = format!(
        "cargo run -p highwater-tests --bin power_cut -- --cuts {} --seed {seed}",
        args.cuts
    );
    if args.unflushed {
        line += " --unflushed";
    }
    if let Some(plant) = args.plant {
        let plant = clap::ValueEnum::to_possible_value(&plant).expect("no value is hidden");
        line += &format!(" --plant {}", plant.get_name());
    }
    if let Some(failpoints) = &args.failpoints {
        line += &format!(" --failpoints '{failpoints}'");
    }
    if args.must_find {
        line += " --must-find";
    }
    line
}

fn told(summary: &Summary) -> String {
    let Summary { cuts, partial, starting, stopped, directories, acknowledged, lost } = summary;
    format!(
        "{cuts} cuts ({partial} after a partial write-back, {starting} while it started, {stopped} after a clean stop) of {directories} directories, {acknowledged} records acknowledged, {lost} of them lost"
    )
}

fn cannot_run(reason: &dyn std::fmt::Display) -> ExitCode {
    println!("power_cut: cannot run here: {reason}");
    ExitCode::from(CANNOT_RUN_HERE)
}
