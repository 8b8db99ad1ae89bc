//! Produce requests over many connections, each with so many unanswered at most, all driven by one thread.
//!
//! Closed loop: an answer makes room for the next request, so the broker is always busy. With a rate: open loop, a request has a
//! time at which it is due and its latency counts from there, whether or not it could be sent then.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::process::own_thread_cpu;
use crate::replay::frames::{ProduceFrame, check_produced};
use crate::replay::latencies::Latencies;

/// Small requests are written together up to this size, as the answers that allow them come together.
const WRITE_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 64 << 10;
/// More than any answer to Produce here takes.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// A broker that answers nothing for so long has failed.
const STALL_LIMIT: Duration = Duration::from_secs(30);
const EVENTS: usize = 256;

/// What is sent.
#[derive(Clone, Debug)]
pub struct Load {
    /// An existing topic.
    pub topic: String,
    /// How many partitions it has; requests go to them in turn.
    pub partitions: usize,
    /// To how many partitions each request goes, a batch each.
    pub partitions_per_request: usize,
    /// The batch, as it stands in every request.
    pub batch: Bytes,
    /// 1 or -1 (all). Without answers (0) there would be nothing to measure.
    pub acks: i16,
    /// Connections.
    pub connections: usize,
    /// Unanswered requests of each connection, at most.
    pub in_flight: usize,
    /// Requests in all, at most.
    pub requests: u64,
    /// No request begins later than this after the first.
    pub time_limit: Duration,
    /// Requests a second in all; None for as many as the broker takes.
    pub rate: Option<f64>,
}

/// What it took.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests, all answered without an error.
    pub requests: u64,
    /// Bytes of batches in them.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Processor time of the generator.
    pub own_cpu: Duration,
    /// From each request (or when it was due) to its answer.
    pub latencies: Latencies,
}

/// Connections that are ready to send.
pub struct Generator {
    load: Load,
    frame: ProduceFrame,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    next_partition: usize,
    started: u64,
    answered: u64,
    latencies: Latencies,
}

/// One connection and what is on its way.
struct Connection {
    stream: TcpStream,
    /// Copies of the frame, of which `unsent` is being written.
    out: Vec<u8>,
    unsent: std::ops::Range<usize>,
    is_writable: bool,
    inbox: Vec<u8>,
    received: usize,
    next_correlation_id: i32,
    /// When each unanswered request began, oldest first.
    began: VecDeque<Instant>,
}

impl Generator {
    /// Connects to a broker on loopback.
    ///
    /// # Errors
    /// When nobody listens, or a count of the load is zero.
    pub fn connect(port: u16, load: Load) -> io::Result<Generator> {
        let counts = [load.partitions, load.partitions_per_request, load.connections];
        if counts.contains(&0) || load.in_flight == 0 || !matches!(load.acks, 1 | -1) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "counts from 1, acks 1 or -1"));
        }
        let frame =
            ProduceFrame::new(&load.topic, &load.batch, load.partitions_per_request, load.acks);
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&epoll, &stream, EventData::new_u64(index as u64), interest)?;
            let frames = (WRITE_BYTES / frame.bytes.len()).clamp(1, load.in_flight);
            connections.push(Connection {
                stream,
                out: frame.bytes.repeat(frames),
                unsent: 0..0,
                is_writable: true,
                inbox: vec![0; READ_BYTES],
                received: 0,
                next_correlation_id: 0,
                began: VecDeque::with_capacity(load.in_flight),
            });
        }
        let room = usize::try_from(load.requests).unwrap_or(usize::MAX).min(1 << 22);
        Ok(Generator {
            load,
            frame,
            epoll,
            connections,
            next_partition: 0,
            started: 0,
            answered: 0,
            latencies: Latencies::with_capacity(room),
        })
    }

    /// Sends the whole load and waits for every answer; once. The connections stay until this value is dropped, so that a broker's
    /// work at their end is not counted.
    ///
    /// # Errors
    /// When a partition refuses a batch, a connection ends, or nothing is answered for half a minute.
    pub fn run(&mut self) -> io::Result<Outcome> {
        let cpu_before = own_thread_cpu();
        let began = Instant::now();
        let mut last_answer = began;
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        self.send_to_all(began)?;
        loop {
            let now = Instant::now();
            if self.answered == self.started && self.is_over(began, now) {
                break;
            }
            events.clear();
            match epoll::wait(
                &self.epoll,
                spare_capacity(&mut events),
                Some(&self.patience(began, now)),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let answered_before = self.answered;
            for event in &events {
                let (flags, index) = (event.flags, event.data.u64() as usize);
                if flags.contains(EventFlags::OUT) {
                    self.connections[index].is_writable = true;
                }
                if flags.intersects(
                    EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR,
                ) {
                    let to_the_end = !flags.difference(EventFlags::IN | EventFlags::OUT).is_empty();
                    self.receive(index, to_the_end)?;
                }
                if self.load.rate.is_none() {
                    self.send(index, began)?;
                }
            }
            if self.load.rate.is_some() {
                self.send_to_all(began)?;
            }
            if self.answered > answered_before || self.answered == self.started {
                last_answer = Instant::now();
            } else if last_answer.elapsed() > STALL_LIMIT {
                let unanswered = self.started - self.answered;
                let what = format!("{unanswered} requests unanswered for {STALL_LIMIT:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, what));
            }
        }
        let batches = self.answered * self.load.partitions_per_request as u64;
        Ok(Outcome {
            requests: self.answered,
            bytes: batches * self.load.batch.len() as u64,
            elapsed: last_answer.duration_since(began),
            own_cpu: own_thread_cpu().saturating_sub(cpu_before),
            latencies: std::mem::take(&mut self.latencies),
        })
    }

    fn is_over(&self, began: Instant, now: Instant) -> bool {
        self.started >= self.load.requests || now.duration_since(began) >= self.load.time_limit
    }

    /// How long to wait for events: until the next request is due, and not for ever.
    fn patience(&self, began: Instant, now: Instant) -> Timespec {
        let mut patience = Duration::from_secs(1);
        if let Some(rate) = self.load.rate {
            let due = began + Duration::from_secs_f64(self.started as f64 / rate);
            patience = patience.min(due.saturating_duration_since(now));
        }
        Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) }
    }

    /// When the next request is due, if it may begin now.
    fn next_due(&self, began: Instant, now: Instant) -> Option<Instant> {
        if self.is_over(began, now) {
            return None;
        }
        match self.load.rate {
            None => Some(now),
            Some(rate) => {
                let due = began + Duration::from_secs_f64(self.started as f64 / rate);
                (due <= now).then_some(due)
            }
        }
    }

    /// Sends what may be sent, a request a connection in turn where they are rare.
    fn send_to_all(&mut self, began: Instant) -> io::Result<()> {
        let count = self.connections.len();
        let first = self.started as usize % count;
        for index in (first..count).chain(0..first) {
            self.send(index, began)?;
        }
        Ok(())
    }

    /// Fills and writes until the connection takes no more or has its requests in flight.
    fn send(&mut self, index: usize, began: Instant) -> io::Result<()> {
        let size = self.frame.bytes.len();
        while self.connections[index].is_writable {
            if self.connections[index].unsent.is_empty() {
                let now = Instant::now();
                let frames = self.connections[index].out.len() / size;
                let mut filled = 0;
                while filled < frames
                    && self.connections[index].began.len() < self.load.in_flight
                    && let Some(due) = self.next_due(began, now)
                {
                    let connection = &mut self.connections[index];
                    let id = connection.next_correlation_id + connection.began.len() as i32;
                    self.frame.patch(
                        &mut connection.out[filled * size..(filled + 1) * size],
                        id,
                        self.next_partition,
                        self.load.partitions,
                    );
                    connection.began.push_back(due);
                    self.next_partition = (self.next_partition + self.load.partitions_per_request)
                        % self.load.partitions;
                    self.started += 1;
                    filled += 1;
                    if self.load.rate.is_some() {
                        break; // the next one is another connection's
                    }
                }
                if filled == 0 {
                    return Ok(());
                }
                self.connections[index].unsent = 0..filled * size;
            }
            self.connections[index].write()?;
        }
        Ok(())
    }

    /// Reads what is there and counts the answers. `to_the_end`: until the connection's end is seen too.
    fn receive(&mut self, index: usize, to_the_end: bool) -> io::Result<()> {
        let connection = &mut self.connections[index];
        loop {
            if connection.received == connection.inbox.len() {
                connection.inbox.resize(connection.inbox.len() * 2, 0);
            }
            let room = connection.inbox.len() - connection.received;
            let read = match connection.stream.read(&mut connection.inbox[connection.received..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            connection.received += read;
            let before = connection.began.len();
            connection.take_answers(self.load.partitions_per_request, &mut self.latencies)?;
            self.answered += (before - connection.began.len()) as u64;
            // A stream socket that gave less than there was room for is empty: epoll(7).
            if read < room && !to_the_end {
                return Ok(());
            }
        }
    }
}

impl Connection {
    fn write(&mut self) -> io::Result<()> {
        match self.stream.write(&self.out[self.unsent.clone()]) {
            Ok(written) => self.unsent.start += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn take_answers(&mut self, partitions: usize, latencies: &mut Latencies) -> io::Result<()> {
        let now = Instant::now();
        let mut taken = 0;
        while let Some((size, rest)) = self.inbox[taken..self.received].split_first_chunk::<4>() {
            let size = u32::from_be_bytes(*size) as usize;
            if size > MAX_ANSWER_BYTES {
                return Err(io::Error::other(format!("an answer of {size} bytes")));
            }
            let Some(answer) = rest.get(..size) else {
                break;
            };
            check_produced(answer, self.next_correlation_id, partitions)?;
            let began = self.began.pop_front();
            let began = began.ok_or_else(|| io::Error::other("an answer to no request"))?;
            latencies.push(now.duration_since(began));
            self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
            taken += 4 + size;
        }
        self.inbox.copy_within(taken..self.received, 0);
        self.received -= taken;
        Ok(())
    }
}
