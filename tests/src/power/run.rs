//! Cut after cut: start, check what is there, write, cut at a random moment, start again.

mod work;
mod world;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ext4::{Ext4, Journal};
use super::ledger::Promise;
use super::load::Ending;
use super::process::{Broker, Launch, last_lines};
use world::World;

/// Settings that make everything happen often: retention, checkpoints, deletions.
const SETTINGS: [&str; 5] = [
    "log.retention.check.interval.ms=15",
    "log.initial.task.delay.ms=0",
    "log.flush.offset.checkpoint.interval.ms=20",
    "log.flush.start.offset.checkpoint.interval.ms=20",
    "auto.create.topics.enable=false",
];

/// Something to do to the checker, to see that it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The newest record of a partition whose records were all acknowledged is left out of what was read.
    LostTail,
    /// A record before the newest is left out.
    LostInside,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of everything that is chosen; when the broker is where cannot be chosen.
    pub seed: u64,
    /// How many.
    pub cuts: u64,
    /// `Everything`: with `log.flush.interval.messages=1`.
    pub promise: Promise,
    /// The binary.
    pub highwater: PathBuf,
    /// For a binary that has them.
    pub failpoints: Option<String>,
    /// See there.
    pub plant: Option<Plant>,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Cuts survived.
    pub cuts: u64,
    /// Of them, after a partial write-back.
    pub partial: u64,
    /// Before the ready line.
    pub starting: u64,
    /// After a clean stop.
    pub stopped: u64,
    /// Directories begun.
    pub directories: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Acknowledged records that were gone, where that is allowed.
    pub lost: u64,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not the broker's fault.
    #[error("cannot run here: {0}")]
    CannotRunHere(String),
    /// The broker's.
    #[error("cut {cut}, {moment}: {reason}\n{disk}\nthe broker's last lines:\n{log}")]
    Finding {
        /// Cuts before it.
        cut: u64,
        /// When the last cut came.
        moment: String,
        /// What is wrong.
        reason: String,
        /// How the disk was mounted, and where it is kept.
        disk: String,
        /// Of stderr.
        log: String,
    },
    /// Neither's, as far as one can tell.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// When the next cut comes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after the process began, whether it is ready or not.
    Starting(Duration),
    /// So long after the ready line, topics still being created.
    Ready(Duration),
    /// So long after all topics are there.
    Writing(Duration),
    /// When it has stopped after SIGTERM, so long after all topics were there.
    Stopped(Duration),
}

impl Moment {
    fn choose(random: &mut StdRng) -> Moment {
        let mut millis =
            |range: std::ops::Range<u64>| Duration::from_micros(random.random_range(range) * 100);
        let (starting, soon, later) = (millis(0..400), millis(0..300), millis(100..4000));
        match random.random_range(0..10) {
            0 | 1 => Moment::Starting(starting),
            2 | 3 => Moment::Ready(soon),
            4..=8 => Moment::Writing(later),
            _ => Moment::Stopped(later / 2),
        }
    }
}

/// A directory, its world, and what is told if something is wrong.
struct Site {
    disk: Ext4,
    launch: Launch,
    world: World,
    /// Before the last cut, by SIGTERM.
    was_stopped: bool,
}

/// Runs a plan. `dir` is for the disk's file, its mount point and the broker's log; a finding leaves them there.
///
/// # Errors
/// The first finding, or why there can be none.
pub async fn run(plan: &Plan, dir: &Path) -> Result<Summary, RunError> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut summary = Summary::default();
    let mut site = begin(plan, dir, &mut random)?;
    summary.directories = 1;
    let mut last_moment = "before the first one".to_owned();
    loop {
        if random.random_range(0..12) == 0 {
            drop(site);
            site = begin(plan, dir, &mut random)?;
            summary.directories += 1;
        }
        let moment = Moment::choose(&mut random);
        let is_over = summary.cuts == plan.cuts;
        let result = match is_over {
            // What the last cut left is looked at too.
            true => look(plan, &mut site, &mut random, &mut summary).await,
            false => cycle(plan, &mut site, moment, &mut random, &mut summary).await,
        };
        match result {
            Ok(()) if is_over => return Ok(summary),
            Ok(()) => summary.cuts += 1,
            Err(CycleError::Io(error)) => return Err(error.into()),
            Err(CycleError::Broken(reason)) => {
                let log = last_lines(&site.launch.log, 40);
                let (image, options) = (site.disk.image().display(), site.disk.options());
                let disk = format!("the disk: {image}, mounted with -o {options}");
                let moment = format!("after {last_moment}, in {moment:?}");
                return Err(RunError::Finding { cut: summary.cuts, moment, reason, disk, log });
            }
        }
        last_moment = format!("{moment:?}");
    }
}

fn begin(plan: &Plan, dir: &Path, random: &mut StdRng) -> Result<Site, RunError> {
    let disk =
        Ext4::create(dir, random).map_err(|error| RunError::CannotRunHere(error.to_string()))?;
    let mut settings: Vec<String> = SETTINGS.map(str::to_owned).to_vec();
    if plan.promise == Promise::Everything {
        settings.push("log.flush.interval.messages=1".to_owned());
    }
    let launch = Launch {
        highwater: plan.highwater.clone(),
        data_dir: disk.path().join("data"),
        log: dir.join("broker.log"),
        settings,
        failpoints: plan.failpoints.clone(),
    };
    let _ = fs::remove_file(&launch.log);
    Ok(Site { disk, launch, world: World::default(), was_stopped: false })
}

enum CycleError {
    Broken(String),
    Io(io::Error),
}

impl From<io::Error> for CycleError {
    fn from(error: io::Error) -> CycleError {
        CycleError::Io(error)
    }
}

impl From<String> for CycleError {
    fn from(reason: String) -> CycleError {
        CycleError::Broken(reason)
    }
}

/// A start after the last cut, and nothing but a look.
async fn look(
    plan: &Plan,
    site: &mut Site,
    random: &mut StdRng,
    summary: &mut Summary,
) -> Result<(), CycleError> {
    let mut broker = Broker::start(&site.launch)?;
    let address = broker.ready().await?;
    summary.lost += check(plan, site, &address, random).await?;
    Ok(broker.stop().await?)
}

/// One life of the broker and its end; afterwards power is back.
async fn cycle(
    plan: &Plan,
    site: &mut Site,
    moment: Moment,
    random: &mut StdRng,
    summary: &mut Summary,
) -> Result<(), CycleError> {
    let started = Instant::now();
    let mut broker = Broker::start(&site.launch)?;
    let ending = Arc::new(Ending::default());
    let working = match moment {
        Moment::Starting(after) => {
            tokio::time::sleep(after.saturating_sub(started.elapsed())).await;
            summary.starting += 1;
            None
        }
        Moment::Ready(after) | Moment::Writing(after) | Moment::Stopped(after) => {
            let address = broker.ready().await?;
            summary.lost += check(plan, site, &address, random).await?;
            let mut working =
                work::start(&address, std::mem::take(&mut site.world), random, &ending);
            if !matches!(moment, Moment::Ready(_)) {
                working.topics_made().await;
            }
            tokio::time::sleep(after).await;
            Some(working)
        }
    };
    let ended = end(site, broker, moment, random, &ending, summary).await;
    if let Some(working) = working {
        let (world, worked) = working.end().await;
        site.world = world;
        summary.acknowledged += site.world.count_acknowledged();
        worked?;
    }
    ended?;
    site.disk.power_on()?;
    Ok(())
}

async fn check(
    plan: &Plan,
    site: &mut Site,
    address: &str,
    random: &mut StdRng,
) -> Result<u64, CycleError> {
    // A clean stop syncs everything, whatever the settings.
    let promise =
        if std::mem::take(&mut site.was_stopped) { Promise::Everything } else { plan.promise };
    Ok(site.world.check(address, promise, plan.plant, random).await?)
}

/// The end of the broker and of the power.
async fn end(
    site: &mut Site,
    mut broker: Broker,
    moment: Moment,
    random: &mut StdRng,
    ending: &Ending,
    summary: &mut Summary,
) -> Result<(), CycleError> {
    if let Some(status) = broker.ended()? {
        return Err(CycleError::Broken(format!("it ended by itself: {status}")));
    }
    ending.begin();
    let broker = if matches!(moment, Moment::Stopped(_)) {
        broker.stop().await?;
        summary.stopped += 1;
        site.was_stopped = true;
        None
    } else {
        Some(broker)
    };
    if random.random_bool(0.5) {
        if let Some(broker) = &broker {
            broker.freeze().await?;
        }
        site.disk.write_back_some(random)?;
        ending.cut_power();
        let journal = [Journal::Flushed, Journal::NotFlushed][random.random_range(0..2)];
        site.disk.cut(journal)?;
        summary.partial += 1;
    } else {
        ending.cut_power();
        site.disk.cut(Journal::NotFlushed)?;
        // It goes on for a while on a disk that fails, and must not make things worse.
        tokio::time::sleep(Duration::from_millis([0, 0, 15][random.random_range(0..3)])).await;
    }
    if let Some(broker) = broker {
        broker.kill()?;
    }
    Ok(())
}
