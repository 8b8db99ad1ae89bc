//! Damaged log directories, opened and read, for a time. Exits 1 on a finding; the first line replays the run.
//!
//! `cargo run -p highwater-tests --bin fuzz_log_dir -- --seconds 60`

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use highwater_tests::fuzz::log_dir::{Cases, Counts};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Far above what files of a few KiB justify, far below what a length field can ask for.
const ADDRESS_SPACE_BYTES: u64 = 512 << 20;
/// A case takes milliseconds.
const HANG_SECONDS: u64 = 60;

#[derive(Parser)]
#[command(about = "Fuzz the opening of log directories")]
struct Args {
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Replays a run; random if absent.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(rand::random);
    // Said first: an abort says nothing any more.
    println!(
        "replay: cargo run -p highwater-tests --bin fuzz_log_dir -- --seconds {} --seed {seed}",
        args.seconds
    );
    let hard = getrlimit(Resource::As).maximum;
    if let Err(error) =
        setrlimit(Resource::As, Rlimit { current: Some(ADDRESS_SPACE_BYTES), maximum: hard })
    {
        eprintln!("fuzz_log_dir: cannot limit the address space: {error}");
        return ExitCode::FAILURE;
    }
    let done = Arc::new(AtomicU64::new(0));
    watch(Arc::clone(&done), seed);
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    let mut cases = Cases::new(seed);
    while Instant::now() < deadline {
        if let Err(finding) = cases.step() {
            let number = cases.counts.cases;
            eprintln!("fuzz_log_dir: seed {seed}: case {number}: {finding}");
            return ExitCode::FAILURE;
        }
        done.store(cases.counts.cases, Ordering::Relaxed);
    }
    let Counts { cases, refused, offline, opened, metadata_refused } = cases.counts;
    println!(
        "fuzz_log_dir: {cases} directories, {refused} refused, {opened} partitions opened, {offline} offline, {metadata_refused} metadata logs refused"
    );
    ExitCode::SUCCESS
}

/// Ends the process when no case ends for long.
fn watch(done: Arc<AtomicU64>, seed: u64) {
    std::thread::spawn(move || {
        let mut last = 0;
        loop {
            std::thread::sleep(Duration::from_secs(HANG_SECONDS));
            let now = done.load(Ordering::Relaxed);
            if now == last {
                eprintln!("fuzz_log_dir: seed {seed}: case {} hangs", now + 1);
                std::process::exit(1);
            }
            last = now;
        }
    });
}
