//! Damaged request frames against the frame check and the decoders, for a time; exits 1 with a replay line on a finding.
//!
//! `cargo run -p highwater-tests --bin fuzz_frames -- --seconds 60`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
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
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(rand::random);
    // Said first: an abort says nothing any more.
    println!(
        "replay: cargo run -p highwater-tests --bin fuzz_frames -- --seconds {} --seed {seed}",
        args.seconds
    );
    let hard = getrlimit(Resource::As).maximum;
    if let Err(error) =
        setrlimit(Resource::As, Rlimit { current: Some(ADDRESS_SPACE_BYTES), maximum: hard })
    {
        eprintln!("fuzz_frames: cannot limit the address space: {error}");
        return ExitCode::FAILURE;
    }
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    let (mut decoded, mut refused) = (0_u64, 0_u64);
    for (number, frame) in Frames::new(seed).enumerate() {
        match take_frame(&frame) {
            Ok(Outcome::Decoded) => decoded += 1,
            Ok(Outcome::Refused(_)) => refused += 1,
            Err(finding) => {
                eprintln!("fuzz_frames: seed {seed}, frame {number}: {finding}\n{frame:02x?}");
                return ExitCode::FAILURE;
            }
        }
        if number.is_multiple_of(256) && Instant::now() >= deadline {
            break;
        }
    }
    println!("fuzz_frames: {} frames, {decoded} decoded, {refused} refused", decoded + refused);
    ExitCode::SUCCESS
}
