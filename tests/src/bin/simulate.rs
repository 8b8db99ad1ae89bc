//! Runs the simulator: one seed, many, or with a planted bug that it must find. Exits 1 on a finding, and prints what
//! replays it.
//!
//! `cargo run -p highwater-tests --features failpoints --bin simulate -- --seeds 200`

use std::panic::catch_unwind;
use std::process::ExitCode;

use clap::Parser;
use highwater_tests::simulator::{PLANTED, Summary, run};

#[derive(Parser)]
#[command(about = "Simulate one node on a disk and a clock of our own")]
struct Args {
    /// Run this seed only, and say all that happens
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run so many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Plant the bug of this number: 2, 7, 8, 24 or 25
    #[arg(long, value_name = "BUG")]
    plant: Option<u32>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(number) = args.plant
        && let Err(error) = plant(number)
    {
        eprintln!("simulate: {error}");
        return ExitCode::from(2);
    }
    let seeds = match args.seed {
        Some(seed) => seed..seed + 1,
        None => args.from..args.from + args.seeds,
    };
    let mut total = Total::default();
    for seed in seeds {
        let found = match catch_unwind(|| run(seed, args.seed.is_some())) {
            Ok(Ok(summary)) => {
                total.add(&summary);
                continue;
            }
            Ok(Err(violation)) => violation,
            Err(_) => "a panic, see above".to_owned(),
        };
        eprintln!("simulate: seed {seed}: {found}");
        let plant = args.plant.map(|number| format!(" --plant {number}")).unwrap_or_default();
        eprintln!(
            "replay: cargo run -p highwater-tests --features failpoints --bin simulate -- --seed {seed}{plant}"
        );
        return ExitCode::FAILURE;
    }
    println!("simulate: {total}");
    ExitCode::SUCCESS
}

fn plant(number: u32) -> Result<(), String> {
    let known = PLANTED.iter().find(|(known, _)| *known == number);
    let Some((_, failpoint)) = known else {
        let known: Vec<u32> = PLANTED.iter().map(|(number, _)| *number).collect();
        return Err(format!("no bug {number}; there are {known:?}"));
    };
    if !fail::has_failpoints() {
        return Err("planted bugs need --features failpoints".to_owned());
    }
    fail::cfg(*failpoint, "return")
}

#[derive(Default)]
struct Total {
    runs: u64,
    batches: u64,
    acknowledged: u64,
    duplicates: u64,
    crashes: u64,
    crashes_inside: u64,
    clean_stops: u64,
}

impl Total {
    fn add(&mut self, summary: &Summary) {
        self.runs += 1;
        self.batches += summary.batches;
        self.acknowledged += summary.acknowledged;
        self.duplicates += summary.duplicates;
        self.crashes += summary.crashes;
        self.crashes_inside += summary.crashes_inside;
        self.clean_stops += summary.clean_stops;
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} runs, {} batches, {} acknowledgements, {} duplicates recognised, {} crashes ({} inside an operation), {} clean stops: nothing wrong",
            self.runs,
            self.batches,
            self.acknowledged,
            self.duplicates,
            self.crashes,
            self.crashes_inside,
            self.clean_stops
        )
    }
}
