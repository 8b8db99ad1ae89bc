//! What it costs to send bytes over loopback when there is nothing else to do: no broker that answers fetches can be cheaper.
//!
//! One thread asks with a few bytes, as a consumer would, and reads; another answers with a MiB. Each has a core of its own, as
//! broker and generator have in the replay rows. Counted is the processor time of the one that sends.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::failure::{Failure, io_failure};
use crate::machine::stop_pacing;
use crate::process::{own_thread_cpu, read_from_disk};
use crate::replay::{cores, page_cache};

/// Sent at a time; a file of that size is read.
const SENT_BYTES: usize = 256 << 20;
const ANSWER_BYTES: usize = 1 << 20;
/// About what a Fetch request takes.
const REQUEST_BYTES: usize = 80;
/// What is sent from memory goes round this: more than the core's own cache keeps, as with batches that came from a socket.
const MEMORY_BYTES: usize = 8 << 20;
/// How often each way is measured, of which the least counts, as of the brokers' passes: from one to the next the reader is woken once
/// or ten times for a MiB, which is the kernel's doing.
const TIMES: usize = 5;
/// The same from the disk; the first also pays for pages that the host has not backed lately.
const COLD_TIMES: usize = 3;

/// Processor time in nanoseconds per byte.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Of the one that sends: what a broker's is compared with.
    pub sender: f64,
    /// Of both ends: by sendfile it is the receiver who first touches the bytes, so that the sender's is not all that it costs.
    pub both: f64,
}

/// Of every way to send.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// From memory.
    pub memory: Cost,
    /// From a file in the page cache.
    pub warm: FileCosts,
    /// From a file that has to come from the disk.
    pub cold: FileCosts,
}

/// The two ways from a file to a socket.
#[derive(Clone, Copy, Debug)]
pub struct FileCosts {
    /// Into a buffer, and from there.
    pub pread_and_write: Cost,
    /// Without a copy in the process.
    pub sendfile: Cost,
}

impl FileCosts {
    /// The cheaper way for the sender.
    pub fn least(self) -> f64 {
        self.pread_and_write.sender.min(self.sendfile.sender)
    }
}

/// How a MiB gets to the socket.
enum Way<'a> {
    Memory,
    PreadAndWrite(&'a File),
    Sendfile(&'a File),
}

/// Measures all ways, with a file in `directory` that is gone afterwards.
///
/// # Errors
/// When the file or the sockets fail, or the file does not leave the page cache.
pub fn measure(directory: &Path) -> Result<Costs, Failure> {
    measure_with(directory, SENT_BYTES)
}

fn measure_with(directory: &Path, size: usize) -> Result<Costs, Failure> {
    let path = directory.join("bare-sender");
    let cores = cores::pair()?;
    let costs = || {
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        for _ in 0..size / ANSWER_BYTES {
            file.write_all(&[7; ANSWER_BYTES])?;
        }
        // Written back first: cold reads must not wait for it, nor warm ones pay for it.
        file.sync_data()?;
        let warm = |way: Way<'_>| {
            let runs = (0..TIMES).map(|_| send(&way, cores, size)).collect::<io::Result<_>>()?;
            Ok::<_, io::Error>(least(runs))
        };
        let memory = warm(Way::Memory)?;
        let warm = FileCosts {
            pread_and_write: warm(Way::PreadAndWrite(&file))?,
            sendfile: warm(Way::Sendfile(&file))?,
        };
        let (mut by_pread, mut by_sendfile) = (Vec::new(), Vec::new());
        for _ in 0..COLD_TIMES {
            by_pread.push(send_cold(&path, &Way::PreadAndWrite(&file), cores, size)?);
            by_sendfile.push(send_cold(&path, &Way::Sendfile(&file), cores, size)?);
        }
        let cold = FileCosts { pread_and_write: least(by_pread), sendfile: least(by_sendfile) };
        fs::remove_file(&path)?;
        Ok(Costs { memory, warm, cold })
    };
    costs().map_err(io_failure(format!("a bare sender of {}", path.display())))
}

fn least(runs: Vec<Cost>) -> Cost {
    let least = runs.into_iter().min_by(|a, b| a.sender.total_cmp(&b.sender));
    least.expect("every way is measured at least once")
}

/// The same after the file has left the page cache.
fn send_cold(
    path: &Path,
    way: &Way<'_>,
    cores: Option<(usize, usize)>,
    size: usize,
) -> io::Result<Cost> {
    let from_disk = || read_from_disk(std::process::id()).map_err(io::Error::other);
    page_cache::drop_file(path)?;
    let before = from_disk()?;
    let cost = send(way, cores, size)?;
    let read = from_disk()? - before;
    if read < size as u64 / 2 {
        return Err(io::Error::other(format!("{read} of {size} bytes came from the disk")));
    }
    Ok(cost)
}

/// Sends so many bytes.
fn send(way: &Way<'_>, cores: Option<(usize, usize)>, size: usize) -> io::Result<Cost> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    stop_pacing(&listener)?;
    let asker = TcpStream::connect(listener.local_addr()?)?;
    let (sender, _) = listener.accept()?;
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            stay_on(cores.map(|(first, _)| first))?;
            answer_all(way, sender, size)
        });
        let asking = scope.spawn(move || {
            stay_on(cores.map(|(_, second)| second))?;
            ask_all(asker, size)
        });
        let panicked = |_| io::Error::other("a thread panicked");
        let (sent, asked) = (sending.join().map_err(panicked)?, asking.join().map_err(panicked)?);
        let per_byte = |cpu: Duration| cpu.as_nanos() as f64 / size as f64;
        let sender = per_byte(sent?);
        Ok(Cost { sender, both: sender + per_byte(asked?) })
    })
}

fn stay_on(core: Option<usize>) -> io::Result<()> {
    core.map_or(Ok(()), cores::stay_on).map_err(io::Error::other)
}

fn answer_all(way: &Way<'_>, mut stream: TcpStream, size: usize) -> io::Result<Duration> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![7; if matches!(way, Way::Memory) { MEMORY_BYTES } else { ANSWER_BYTES }];
    let mut request = [0; REQUEST_BYTES];
    let before = own_thread_cpu();
    for at in (0..size).step_by(ANSWER_BYTES) {
        stream.read_exact(&mut request)?;
        match way {
            Way::Memory => {
                let from = at % MEMORY_BYTES;
                stream.write_all(&buffer[from..from + ANSWER_BYTES])?;
            }
            Way::PreadAndWrite(file) => {
                file.read_exact_at(&mut buffer, at as u64)?;
                stream.write_all(&buffer)?;
            }
            Way::Sendfile(file) => {
                let mut from = at as u64;
                let end = (at + ANSWER_BYTES) as u64;
                while from < end {
                    let left = (end - from) as usize;
                    if rustix::fs::sendfile(&stream, file, Some(&mut from), left)? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
    Ok(own_thread_cpu().saturating_sub(before))
}

fn ask_all(mut stream: TcpStream, size: usize) -> io::Result<Duration> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; ANSWER_BYTES];
    let before = own_thread_cpu();
    for _ in 0..size / ANSWER_BYTES {
        stream.write_all(&[1; REQUEST_BYTES])?;
        stream.read_exact(&mut buffer)?;
    }
    Ok(own_thread_cpu().saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_costs_something_at_both_ends_and_no_file_stays() {
        // Not the system's directory for temporary files, which may be memory that nothing can be dropped from.
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bare-sender-test");
        fs::create_dir_all(&directory).expect("a directory");
        let costs = measure_with(&directory, 4 * ANSWER_BYTES).expect("measured");
        let files = [costs.warm, costs.cold].map(|file| [file.pread_and_write, file.sendfile]);
        for cost in files.into_iter().flatten().chain([costs.memory]) {
            assert!(cost.sender > 0.0 && cost.both > cost.sender, "{costs:?}");
        }
        fs::remove_dir(&directory).expect("empty");
    }
}
