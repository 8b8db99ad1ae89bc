//! Damaged request frames against the frame check and the decoders, or with `--bootstrap` against a running broker (a throwaway
//! one: some of the frames stay legal), for a time. Exits 1 on a finding; the first line replays the run.
//!
//! `cargo run -p highwater-tests --bin fuzz_frames -- --seconds 60`

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use highwater_tests::fuzz::broker::Attack;
use highwater_tests::fuzz::frames::{Frames, Outcome, take_frame};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Far above what a frame of a few KiB justifies (frame_check: 1 MiB and 16 bytes for each), far below what a count can ask for.
const ADDRESS_SPACE_BYTES: u64 = 512 << 20;

#[derive(Parser)]
#[command(about = "Fuzz the frame check and the decoders behind it")]
struct Args {
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Replays a run; random if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// A running broker to throw the frames at, instead of the check and the decoders.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<SocketAddr>,
    /// Its process: fail if its resident memory ever passes --max-rss-mib.
    #[arg(long, requires = "bootstrap")]
    pid: Option<u32>,
    /// See --pid.
    #[arg(long, default_value_t = 512)]
    max_rss_mib: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(rand::random);
    // Said first: an abort says nothing any more.
    let at = args.bootstrap.map(|address| format!(" --bootstrap {address}")).unwrap_or_default();
    println!(
        "replay: cargo run -p highwater-tests --bin fuzz_frames -- --seconds {} --seed {seed}{at}",
        args.seconds
    );
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    let outcome = match args.bootstrap {
        None => fuzz_the_check(seed, deadline),
        Some(address) => fuzz_a_broker(address, seed, deadline, &args),
    };
    match outcome {
        Ok(summary) => {
            println!("fuzz_frames: {summary}");
            ExitCode::SUCCESS
        }
        Err(finding) => {
            eprintln!("fuzz_frames: seed {seed}: {finding}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz_the_check(seed: u64, deadline: Instant) -> Result<String, String> {
    let hard = getrlimit(Resource::As).maximum;
    setrlimit(Resource::As, Rlimit { current: Some(ADDRESS_SPACE_BYTES), maximum: hard })
        .map_err(|error| format!("cannot limit the address space: {error}"))?;
    let (mut decoded, mut refused) = (0_u64, 0_u64);
    for (number, frame) in Frames::new(seed).enumerate() {
        match take_frame(&frame) {
            Ok(Outcome::Decoded) => decoded += 1,
            Ok(Outcome::Refused(_)) => refused += 1,
            Err(finding) => return Err(format!("frame {number}: {finding}\n{frame:02x?}")),
        }
        if number.is_multiple_of(256) && Instant::now() >= deadline {
            break;
        }
    }
    Ok(format!("{} frames, {decoded} decoded, {refused} refused", decoded + refused))
}

fn fuzz_a_broker(
    address: SocketAddr,
    seed: u64,
    deadline: Instant,
    args: &Args,
) -> Result<String, String> {
    let mut attack = Attack::new(address, seed).map_err(|error| format!("{address}: {error}"))?;
    let (mut frames, mut highest_rss_mib) = (0_u64, 0);
    while Instant::now() < deadline {
        attack.step().map_err(|finding| finding.to_string())?;
        frames += 1;
        if let Some(pid) = args.pid {
            let rss_mib = resident_mib(pid).ok_or(format!("process {pid} is gone"))?;
            highest_rss_mib = rss_mib.max(highest_rss_mib);
            if rss_mib > args.max_rss_mib {
                return Err(format!("frame {frames}: the broker is at {rss_mib} MiB"));
            }
        }
    }
    let memory = args.pid.map(|_| format!(", at most {highest_rss_mib} MiB resident"));
    Ok(format!("{frames} frames thrown at {address}{}", memory.unwrap_or_default()))
}

/// Resident memory of a process, from its /proc entry.
fn resident_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib / 1024)
}
