//! Fetch requests, one connection and thread for each reader, the next as soon as the last answer is in. Answers are read into
//! one buffer and forgotten, but for the header and the offsets of their batches, which must go on where they ended.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use crate::process::own_thread_cpu;
use crate::replay::frames::{FetchFrame, read_fetched};
use crate::replay::latencies::Latencies;
use crate::wire::{Wire, topic_name};

const LIST_OFFSETS_VERSION: i16 = 5;
const LATEST: i64 = -1;
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// A reader that is given nothing new for so long fails.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// How often a broker that has just created a topic is asked whether it leads it.
const LEADER_POLL: Duration = Duration::from_millis(2);

/// What is read: by each of `connections` readers one partition whole, the first by the first and so on, round and round.
#[derive(Clone, Debug)]
pub struct Load {
    /// An existing topic.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// Readers, each a connection and a thread.
    pub connections: usize,
    /// Of an answer; a broker gives a whole batch nevertheless.
    pub max_bytes: i32,
    /// How long the broker may wait for records, at the end of the log.
    pub max_wait: Duration,
    /// How often each reads its partition from the start; 1 for a tail.
    pub times: u32,
}

/// What it took.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Answers, all without an error.
    pub answers: u64,
    /// Bytes of batches in them.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Processor time of the readers.
    pub own_cpu: Duration,
    /// From each request to its answer.
    pub latencies: Latencies,
}

/// Connections that are ready to read.
pub struct Readers {
    load: Load,
    readers: Vec<Reader>,
}

struct Reader {
    stream: TcpStream,
    frame: FetchFrame,
    partition: i32,
    buffer: Vec<u8>,
    correlation_id: i32,
    outcome: Outcome,
}

/// Readers at work. Their connections stay until this value is dropped.
pub struct Running {
    began: Instant,
    _connections: Vec<TcpStream>,
    threads: Vec<thread::JoinHandle<io::Result<Outcome>>>,
}

impl Readers {
    /// Connects to a broker on loopback.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(port: u16, load: Load) -> io::Result<Readers> {
        let mut readers = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(STALL_LIMIT + load.max_wait))?;
            let partition = (index % load.partitions.max(1)) as i32;
            let max_wait_ms = i32::try_from(load.max_wait.as_millis()).unwrap_or(i32::MAX);
            readers.push(Reader {
                stream,
                frame: FetchFrame::new(&load.topic, partition, load.max_bytes, max_wait_ms),
                partition,
                buffer: vec![0; usize::try_from(load.max_bytes).unwrap_or(0) + 4096],
                correlation_id: 0,
                outcome: Outcome::default(),
            });
        }
        Ok(Readers { load, readers })
    }

    /// Lets each read from offset 0 until it has reached the offset that `until` names for its partition (exclusive).
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn start(self, until: impl Fn(i32) -> i64) -> io::Result<Running> {
        let times = self.load.times;
        let connections = self.readers.iter().map(|reader| reader.stream.try_clone());
        let connections = connections.collect::<io::Result<_>>()?;
        let began = Instant::now();
        let start = |mut reader: Reader| {
            let until = until(reader.partition);
            thread::spawn(move || {
                let cpu_before = own_thread_cpu();
                for _ in 0..times {
                    reader.read(until)?;
                }
                reader.outcome.own_cpu = own_thread_cpu().saturating_sub(cpu_before);
                Ok(reader.outcome)
            })
        };
        let threads = self.readers.into_iter().map(start).collect();
        Ok(Running { began, _connections: connections, threads })
    }
}

impl Running {
    /// Waits for all of them.
    ///
    /// # Errors
    /// When one failed: refused, no progress for half a minute, or batches that do not follow each other.
    pub fn finish(&mut self) -> io::Result<Outcome> {
        let mut all = Outcome::default();
        for thread in self.threads.drain(..) {
            let one = thread.join().map_err(|_| io::Error::other("a reader panicked"))??;
            all.answers += one.answers;
            all.bytes += one.bytes;
            all.own_cpu += one.own_cpu;
            all.latencies.append(one.latencies);
        }
        all.elapsed = self.began.elapsed();
        Ok(all)
    }
}

impl Reader {
    /// Reads from offset 0 to `until`.
    fn read(&mut self, until: i64) -> io::Result<()> {
        let mut offset = 0;
        let mut progressed = Instant::now();
        while offset < until {
            self.correlation_id = self.correlation_id.wrapping_add(1);
            self.frame.patch(self.correlation_id, offset);
            let began = Instant::now();
            self.stream.write_all(&self.frame.bytes)?;
            let size = self.receive()?;
            let answer = read_fetched(&self.buffer[4..4 + size], self.correlation_id)?;
            let ended = Instant::now();
            self.outcome.latencies.push(ended.duration_since(began));
            self.outcome.answers += 1;
            self.outcome.bytes += answer.records.len() as u64;
            match answer.next_offset {
                Some(next) if next > offset => (offset, progressed) = (next, ended),
                Some(next) => {
                    return Err(io::Error::other(format!(
                        "from {offset} came what ends at {next}"
                    )));
                }
                None if ended.duration_since(progressed) > STALL_LIMIT => {
                    let what = format!("no record from {offset} on for {STALL_LIMIT:?}");
                    return Err(io::Error::new(ErrorKind::TimedOut, what));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// One answer into the buffer, its size first; only one request is ever unanswered. Returns the size.
    fn receive(&mut self) -> io::Result<usize> {
        let mut received = 0;
        let mut size = None;
        while size.is_none_or(|size| received < 4 + size) {
            match self.stream.read(&mut self.buffer[received..])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => received += read,
            }
            if size.is_none()
                && let Some(prefix) = self.buffer[..received].first_chunk::<4>()
            {
                let whole = u32::from_be_bytes(*prefix) as usize;
                if whole > MAX_ANSWER_BYTES {
                    return Err(io::Error::other(format!("an answer of {whole} bytes")));
                }
                if self.buffer.len() < 4 + whole {
                    self.buffer.resize(4 + whole, 0);
                }
                size = Some(whole);
            }
        }
        size.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }
}

/// The log end offsets of all partitions of a topic, as consumers may see them; waits until the broker leads all of them.
///
/// # Errors
/// When it does not in half a minute.
pub fn log_ends(wire: &mut Wire, topic: &str, partitions: usize) -> io::Result<Vec<i64>> {
    let asked =
        |index| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(LATEST);
    let topics = vec![
        ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions((0..partitions as i32).map(asked).collect()),
    ];
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(topics);
    let began = Instant::now();
    loop {
        let answer = wire.call(&request, LIST_OFFSETS_VERSION)?;
        let answered = answer.topics.first().map_or(&[][..], |topic| &topic.partitions[..]);
        if answered.len() == partitions && answered.iter().all(|answer| answer.error_code == 0) {
            let mut ends = vec![0; partitions];
            for answer in answered {
                if let Some(end) = ends.get_mut(answer.partition_index as usize) {
                    *end = answer.offset;
                }
            }
            return Ok(ends);
        }
        if began.elapsed() > STALL_LIMIT {
            return Err(io::Error::other(format!("{topic} has partitions without a leader")));
        }
        thread::sleep(LEADER_POLL);
    }
}

/// Where the partitions of a new topic end after the whole of `load`.
pub fn ends_after(load: &crate::replay::produce::Load) -> Vec<i64> {
    let batches = load.requests * load.partitions_per_request as u64;
    let partitions = load.partitions as u64;
    let records = u64::from(crate::replay::frames::records_of(&load.batch));
    (0..partitions)
        .map(|partition| {
            let of_this = batches / partitions + u64::from(partition < batches % partitions);
            (of_this * records).cast_signed()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::produce;
    use crate::wire;

    #[test]
    fn batches_that_take_turns_end_one_apart() {
        let load = produce::Load {
            topic: "t".to_owned(),
            partitions: 3,
            partitions_per_request: 2,
            batch: wire::batch(10, 8),
            acks: 1,
            connections: 1,
            in_flight: 1,
            requests: 4,
            time_limit: Duration::MAX,
            rate: None,
        };
        assert_eq!(ends_after(&load), [30, 30, 20]);
    }
}
