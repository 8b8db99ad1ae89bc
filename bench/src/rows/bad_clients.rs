//! A good client beside five hundred bad ones: what they cost it, and what the broker keeps in memory for them.
//!
//! | share | what it does |
//! |---|---|
//! | 150 | ask for 50 MiB, eight times, and read nothing |
//! | 100 | ask the same and read 4 KiB each tenth of a second |
//! | 100 | send 64 KiB of a frame of 1 MiB, and stop |
//! | 149 | introduce themselves and say nothing more |
//! | 1 | sends Metadata requests as fast as they are taken and reads nothing |
//!
//! Their receive buffers are small, so that the broker and not the kernel must hold what they do not read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::ApiVersionsRequest;

use super::footprint::{MIB, settle_and_look};
use crate::broker::{Broker, Data, Kind};
use crate::failure::{Failure, io_failure};
use crate::process::Process;
use crate::results::Metrics;
use crate::rows::{Context, Measure, Row, Size, aimed, information, metric};
use crate::target::Target;
use crate::wire::{self, FETCH_VERSION, METADATA_VERSION, Wire};

const GOOD_TOPIC: &str = "good";
const BAD_TOPIC: &str = "bad";
const GOOD_RECORD_BYTES: usize = 1024;
/// The good client produces a record and fetches it this often.
const GOOD_INTERVAL: Duration = Duration::from_millis(2);
const GOOD_FETCH_BYTES: i32 = 64 << 10;

const BAD: Shares = Shares { silent: 150, trickling: 100, half_frame: 100, idle: 149 };
const BAD_IN_SMOKE: Shares = Shares { silent: 6, trickling: 4, half_frame: 4, idle: 5 };
/// What they have to read.
const BAD_BATCHES: usize = 64;
const BAD_FETCH_BYTES: i32 = 50 << 20;
const BAD_FETCHES: i32 = 8;
const BAD_RECEIVE_BUFFER_BYTES: usize = 16 << 10;
const HALF_FRAME_BYTES: u32 = 1 << 20;
const HALF_FRAME_SENT_BYTES: usize = 64 << 10;
const TRICKLE: Duration = Duration::from_millis(100);
const TRICKLE_BYTES: usize = 4 << 10;
/// Of the one that pipelines, at each of its turns.
const PIPELINED_AT_ONCE_BYTES: usize = 1 << 20;

pub const ROWS: &[Row] = &[Row {
    name: "bad_clients",
    what: "a client that produces a record and fetches it 500 times a second: alone, and beside 500 bad clients",
    measure: Measure::Apart(bad_clients),
    metrics: &[
        metric("quiet_p50_ms", "alone: produce + fetch p50, ms", 3),
        metric("quiet_p99_ms", "alone: p99, ms", 3),
        metric("beside_p50_ms", "beside bad clients: p50, ms", 3),
        aimed(
            metric("beside_p99_ms", "beside bad clients: p99, ms", 3),
            &[Target::AtMostOf { row: None, metric: "quiet_p99_ms", times: 5.0, plus: 0.0 }],
        ),
        aimed(
            metric("rss_growth_mib", "most resident memory that they add, MiB", 1),
            &[Target::AtMost(64.0)],
        ),
        information(metric("still_connected", "of the bad ones still connected", 0)),
    ],
    brokers: &[Kind::Highwater, Kind::Kafka],
    most_rounds: &[(Kind::Kafka, 3)],
}];

/// How many of each, besides the one that pipelines.
struct Shares {
    silent: usize,
    trickling: usize,
    half_frame: usize,
    idle: usize,
}

fn bad_clients(context: &Context, kind: Kind) -> Result<Metrics, Failure> {
    let is_full = context.size == Size::Full;
    let (shares, batches) = if is_full { (BAD, BAD_BATCHES) } else { (BAD_IN_SMOKE, 4) };
    let cycles = if is_full { 2000 } else { 100 };
    let asking = |what: &str| io_failure(format!("{what}, {}", kind.name()));
    let (settle, _) = settle_and_look(context.size);

    let broker = Broker::start(&context.programs, kind, Data::EmptyDirectory, &context.scratch)?;
    let mut good = broker.connect()?;
    let prepare = |wire: &mut Wire| -> io::Result<()> {
        wire.create_topic(GOOD_TOPIC, 1)?;
        wire.create_topic(BAD_TOPIC, 1)?;
        let batch = wire::batch(1000, 1024);
        (0..batches).try_for_each(|_| wire.produce(BAD_TOPIC, &batch).map(drop))
    };
    prepare(&mut good).map_err(asking("preparing"))?;
    let record = wire::batch(1, GOOD_RECORD_BYTES);
    // Code that compiles while it runs is given the time to.
    let warm_up = if kind.compiles_while_running() { 3 * cycles } else { cycles / 4 };
    good_cycles(&mut good, &record, warm_up).map_err(asking("warming up"))?;
    let quiet = good_cycles(&mut good, &record, cycles).map_err(asking("the quiet client"))?;

    let sockets_before = broker.process.descriptors().sockets;
    let resident_before = broker.process.memory()?.resident;
    let mut bad = BadClients::connect(broker.port, &shares).map_err(asking("bad clients"))?;
    let stop = AtomicBool::new(false);
    let (beside, most_resident) = scope(|scope| {
        let pest = scope.spawn(|| bad.pester(&stop, &broker.process));
        sleep(settle);
        let beside = good_cycles(&mut good, &record, cycles);
        stop.store(true, Ordering::Relaxed);
        let most_resident = pest.join().expect("it has no reason to panic");
        (beside, most_resident)
    });
    let beside = beside.map_err(asking("the good client beside bad ones"))?;
    let still_connected = broker.process.descriptors().sockets.saturating_sub(sockets_before);
    drop(bad);
    broker.stop()?;
    let grown = most_resident?.saturating_sub(resident_before);
    let milliseconds = |times: &[Duration], per_mille: usize| {
        times[(times.len() - 1) * per_mille / 1000].as_secs_f64() * 1e3
    };
    Ok(vec![
        ("quiet_p50_ms", milliseconds(&quiet, 500)),
        ("quiet_p99_ms", milliseconds(&quiet, 990)),
        ("beside_p50_ms", milliseconds(&beside, 500)),
        ("beside_p99_ms", milliseconds(&beside, 990)),
        ("rss_growth_mib", grown as f64 / MIB),
        ("still_connected", still_connected as f64),
    ])
}

/// Produces a record and fetches it, so many times at [`GOOD_INTERVAL`]. Returns how long each took, ascending, counted from
/// when it was due if the one before it took too long.
fn good_cycles(wire: &mut Wire, record: &Bytes, cycles: u32) -> io::Result<Vec<Duration>> {
    let first = Instant::now();
    let mut times = Vec::with_capacity(cycles as usize);
    for cycle in 0..cycles {
        let due = first + GOOD_INTERVAL * cycle;
        let early = due.saturating_duration_since(Instant::now());
        sleep(early);
        // What the sleep overshoots is our own timer's, not the broker's.
        let began = if early.is_zero() { due } else { Instant::now() };
        let offset = wire.produce(GOOD_TOPIC, record)?;
        let (records, _) = wire.fetch(GOOD_TOPIC, 0, offset, GOOD_FETCH_BYTES)?;
        if records.is_empty() {
            return Err(io::Error::other(format!("the record at offset {offset} is not there")));
        }
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times)
}

/// Their connections.
struct BadClients {
    trickling: Vec<TcpStream>,
    pipelining: TcpStream,
    pipelined: Bytes,
    /// Where in `pipelined` the next byte to send is.
    next: usize,
    _others: Vec<TcpStream>,
    _idle: Vec<Wire>,
}

impl BadClients {
    fn connect(port: u16, shares: &Shares) -> io::Result<BadClients> {
        let fetches = (0..BAD_FETCHES)
            .map(|id| {
                let request = wire::fetch_request(BAD_TOPIC, 0, 0, BAD_FETCH_BYTES);
                wire::frame(&request, FETCH_VERSION, id)
            })
            .collect::<io::Result<Vec<_>>>()?
            .concat();
        let asking = || -> io::Result<TcpStream> {
            let mut stream = wire::connect_with_receive_buffer(port, BAD_RECEIVE_BUFFER_BYTES)?;
            stream.write_all(&fetches)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let trickling = (0..shares.trickling).map(|_| asking()).collect::<io::Result<_>>()?;
        let mut others = (0..shares.silent).map(|_| asking()).collect::<io::Result<Vec<_>>>()?;
        let mut half_frame = HALF_FRAME_BYTES.to_be_bytes().to_vec();
        half_frame.extend_from_slice(&[0, 0, 0, 8]); // Produce, version 8
        half_frame.resize(HALF_FRAME_SENT_BYTES, 0);
        for _ in 0..shares.half_frame {
            let mut stream = wire::connect_with_receive_buffer(port, BAD_RECEIVE_BUFFER_BYTES)?;
            stream.write_all(&half_frame)?;
            others.push(stream);
        }
        let introduced = |_| -> io::Result<Wire> {
            let mut wire = Wire::connect(port)?;
            wire.call(&ApiVersionsRequest::default(), 0)?;
            Ok(wire)
        };
        let idle = (0..shares.idle).map(introduced).collect::<io::Result<_>>()?;
        let pipelining = wire::connect_with_receive_buffer(port, BAD_RECEIVE_BUFFER_BYTES)?;
        pipelining.set_nonblocking(true)?;
        let request = wire::metadata_request(&[GOOD_TOPIC, BAD_TOPIC]);
        let pipelined = wire::frame(&request, METADATA_VERSION, 1)?;
        Ok(BadClients { trickling, pipelining, pipelined, next: 0, _others: others, _idle: idle })
    }

    /// Goes on being bad until `stop`. Returns the most resident memory seen meanwhile, bytes.
    fn pester(&mut self, stop: &AtomicBool, broker: &Process) -> Result<u64, Failure> {
        let mut buffer = [0; TRICKLE_BYTES];
        let mut most = 0;
        while !stop.load(Ordering::Relaxed) {
            // Whom the broker cuts off stays cut off.
            self.trickling.retain_mut(|stream| match stream.read(&mut buffer) {
                Ok(read) => read > 0,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            });
            self.pipeline();
            most = most.max(broker.memory()?.resident);
            sleep(TRICKLE);
        }
        Ok(most)
    }

    /// Sends requests until no more are taken, or a turn's worth.
    fn pipeline(&mut self) {
        let mut sent = 0;
        while sent < PIPELINED_AT_ONCE_BYTES {
            match self.pipelining.write(&self.pipelined[self.next..]) {
                Ok(written) => {
                    sent += written;
                    self.next = (self.next + written) % self.pipelined.len();
                }
                // Full, which is how it is meant to end, or cut off.
                Err(_) => return,
            }
        }
    }
}
