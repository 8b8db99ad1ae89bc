//! What a connection's task looks at beside its socket: the broker's stop, and a slow clock.
//!
//! The clock ticks a few times in `connections.max.idle.ms`. Counting ticks in which nothing moved needs no look at the
//! time when something does, and no timer per frame: an idle connection is closed after that time, and at most a quarter
//! more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// Ticks in `connections.max.idle.ms`.
const IDLE_TICKS: u32 = 4;
/// The longest tick: how late a peer is noticed that left unread requests behind.
const MAX_TICK: Duration = Duration::from_secs(30);
/// While memory is short, how often it is looked whether the one frame comes in whose turn it is.
const TURN_TICK: Duration = Duration::from_secs(1);
/// The looks after which it must have come in, counted from one that finds others waiting; each must find some of it.
const TURN_TICKS: u32 = 10;

/// The broker's stop. Costs an atomic load a poll; its future is polled once.
pub(super) struct Stop<'a> {
    receiver: watch::Receiver<bool>,
    stopped: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
    /// Who is woken by it.
    waker: Option<Waker>,
    is_stopped: bool,
}

impl<'a> Stop<'a> {
    /// `stopped` is ready when `receiver` has turned true.
    pub(super) fn new(
        receiver: watch::Receiver<bool>,
        stopped: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
    ) -> Stop<'a> {
        Stop { receiver, stopped, waker: None, is_stopped: false }
    }

    /// Whether the broker stops; the task is woken when it does.
    pub(super) fn poll(&mut self, task: &mut Context<'_>) -> bool {
        if self.is_stopped {
            return true;
        }
        let is_known = self.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker()));
        // An error means that whoever would say so is gone, which is the same.
        if !is_known || self.receiver.has_changed().unwrap_or(true) {
            self.is_stopped = self.stopped.as_mut().poll(task).is_ready();
            self.waker = Some(task.waker().clone());
        }
        self.is_stopped
    }
}

/// What a look at the slow clock says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// One more tick has passed.
    Passed,
    /// Time to look at the frame whose turn it is.
    Turn,
}

/// The slow clock.
pub(super) struct Watchdog<'a> {
    sleep: Pin<&'a mut Sleep>,
    period: Duration,
    next_tick: Instant,
    /// The number of the turn that this connection has, the next look at it, and what the last ones found.
    turn: Option<(u64, Instant, TurnLooks)>,
    idle: IdleTicks,
}

impl<'a> Watchdog<'a> {
    /// Runs on `sleep`, whose time is set anew. `max_idle` is `connections.max.idle.ms`.
    pub(super) fn new(sleep: Pin<&'a mut Sleep>, max_idle: Option<Duration>) -> Watchdog<'a> {
        let period = max_idle.map_or(MAX_TICK, |max_idle| MAX_TICK.min(max_idle / IDLE_TICKS));
        let period = period.max(Duration::from_millis(1));
        let next_tick = Instant::now() + period;
        let idle = IdleTicks::new(max_idle, period);
        let mut watchdog = Watchdog { sleep, period, next_tick, turn: None, idle };
        watchdog.arm();
        watchdog
    }

    /// Which turn to receive this connection has, if it has one.
    pub(super) fn set_turn(&mut self, number: Option<u64>) {
        if number != self.turn.as_ref().map(|(number, ..)| *number) {
            let next = Instant::now() + self.turn_tick();
            self.turn = number.map(|number| (number, next, TurnLooks::default()));
            self.arm();
        }
    }

    /// Ready once for each tick; pending wakes the task at the next.
    pub(super) fn poll_tick(&mut self, task: &mut Context<'_>) -> Poll<Tick> {
        ready!(self.sleep.as_mut().poll(task));
        let now = Instant::now();
        let turn_tick = self.turn_tick();
        let tick = match &mut self.turn {
            Some((_, next, _)) if *next <= now => {
                *next = now + turn_tick;
                Tick::Turn
            }
            _ => {
                self.next_tick = now + self.period;
                Tick::Passed
            }
        };
        self.arm();
        Poll::Ready(tick)
    }

    /// At [`Tick::Turn`]: whether the frame is too slow, for which others wait or not, and of which bytes came in since the
    /// last look or not.
    pub(super) fn is_too_slow(&mut self, others_wait: bool, has_received: bool) -> bool {
        let looks = self.turn.as_mut().map(|(_, _, looks)| looks);
        looks.is_some_and(|looks| looks.is_too_slow(others_wait, has_received))
    }

    fn turn_tick(&self) -> Duration {
        TURN_TICK.min(self.period)
    }

    /// Counts a tick, and says whether the connection has been idle for long enough.
    pub(super) fn is_idle(&mut self, has_moved: bool) -> bool {
        self.idle.tick(has_moved)
    }

    fn arm(&mut self) {
        let turn = self.turn.as_ref().map(|(_, next, _)| *next);
        let next = turn.map_or(self.next_tick, |next| next.min(self.next_tick));
        self.sleep.as_mut().reset(next);
    }
}

/// Looks at one turn, since others wait without a break.
#[derive(Debug, Default)]
struct TurnLooks(Option<u32>);

impl TurnLooks {
    fn is_too_slow(&mut self, others_wait: bool, has_received: bool) -> bool {
        let before = self.0;
        self.0 = others_wait.then(|| before.map_or(0, |looks| looks + 1));
        // The first look says nothing of the time since others wait.
        before.is_some() && self.0.is_some_and(|looks| !has_received || looks >= TURN_TICKS)
    }
}

/// Ticks in which nothing moved.
#[derive(Debug)]
struct IdleTicks {
    /// `None` keeps idle connections.
    limit: Option<u32>,
    quiet: u32,
}

impl IdleTicks {
    fn new(max_idle: Option<Duration>, period: Duration) -> IdleTicks {
        let ticks = |max_idle: Duration| max_idle.as_nanos().div_ceil(period.as_nanos());
        let limit = max_idle.map(|max_idle| u32::try_from(ticks(max_idle)).unwrap_or(u32::MAX));
        IdleTicks { limit, quiet: 0 }
    }

    fn tick(&mut self, has_moved: bool) -> bool {
        self.quiet = if has_moved { 0 } else { self.quiet.saturating_add(1) };
        self.limit.is_some_and(|limit| self.quiet >= limit)
    }
}

/// Whether the peer has closed its side, though there may be bytes of it that are not read.
pub(super) fn is_hung_up(stream: &TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    #[cfg(target_os = "linux")]
    let closed = PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    let closed = PollFlags::HUP;
    let mut sockets = [PollFd::new(stream, closed)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // What cannot be said is not said: the next tick asks again.
    poll(&mut sockets, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_timed_only_while_others_wait() {
        let mut looks = TurnLooks::default();
        assert!((0..100).all(|_| !looks.is_too_slow(false, false)));
        assert!(!looks.is_too_slow(true, false) && looks.is_too_slow(true, false));
        let mut looks = TurnLooks::default();
        let found = [(); 11].map(|()| looks.is_too_slow(true, true));
        assert_eq!((found[9], found[10]), (false, true));
        assert!(!looks.is_too_slow(false, true) && !looks.is_too_slow(true, true));
    }

    #[test]
    fn a_connection_is_idle_after_its_time_without_movement_and_not_before() {
        let mut idle = IdleTicks::new(Some(Duration::from_secs(8)), Duration::from_secs(2));
        let moved = [false, true, false, false, false, false];
        assert_eq!(moved.map(|moved| idle.tick(moved)), [false, false, false, false, false, true]);
        let mut never = IdleTicks::new(None, Duration::from_secs(2));
        assert!((0..1000).all(|_| !never.tick(false)));
    }
}
