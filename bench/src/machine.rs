//! What this machine is, and what no broker on it can better: the file system's fdatasync and the first touch of a page.

pub mod bare_sender;

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::failure::{Failure, io_failure};
use crate::process::own_thread_cpu;

/// What [`append_to_new_file`] writes, and in what pieces.
const APPENDED_BYTES: usize = 256 << 20;
const APPEND_BYTES: usize = 1 << 20;
/// What [`page_first_touch`] maps and touches.
const TOUCHED_BYTES: usize = 64 << 20;
const PAGE_BYTES: usize = 4096;

/// Processor, cores, memory, kernel, file system of `data`: the first line of every result.
pub fn describe(data: &Path) -> Value {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    json!({
        "processor": first("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": first("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "file_system": file_system(data),
        "free_page_reporting_order": free_page_reporting_order(),
        "tcp_congestion_control": tcp_congestion_control(),
        "load_average": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    })
}

const FREE_PAGE_REPORTING_ORDER: &str =
    "/sys/module/page_reporting/parameters/page_reporting_order";
/// From here on only the allocator's largest blocks are reported.
const LEAST_QUIET_ORDER: u32 = 10;

/// From which size on, as a power of two of pages, a virtual machine tells its host every two seconds of free pages, which the
/// host then takes away; `None` where it does not.
fn free_page_reporting_order() -> Option<u32> {
    fs::read_to_string(FREE_PAGE_REPORTING_ORDER).ok()?.trim().parse().ok()
}

const TCP_CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Paces what the connections of `listener` send no more than highwater does: what it is compared with pays for no more timers.
///
/// # Errors
/// When the system has no such thing.
pub fn stop_pacing(listener: &TcpListener) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_congestion(listener, "reno")?)
}

/// By what connections that ask for nothing else are paced.
fn tcp_congestion_control() -> String {
    fs::read_to_string(TCP_CONGESTION_CONTROL).unwrap_or_default().trim().to_owned()
}

/// What to do before figures can be believed, if anything.
pub fn advice() -> Vec<String> {
    let pages = free_page_reporting_order().filter(|order| *order < LEAST_QUIET_ORDER).map(|order| {
        // A page that the host has taken away costs a writer up to five times what the copy does, and it depends on the moment
        // which pages those are.
        format!(
            "this machine gives free memory back to its host every two seconds: rows that write differ fivefold from one pass to the next.\n\
             For the time of the run: echo {LEAST_QUIET_ORDER} >{FREE_PAGE_REPORTING_ORDER}   (it is {order} now)"
        )
    });
    let congestion_control = tcp_congestion_control();
    let pacing = congestion_control.starts_with("bbr").then(|| {
        format!(
            "this machine paces TCP even on loopback ({congestion_control}): sending costs two to four times as much, and differs as much from pass to pass.\n\
             For the time of the run, the kernel's default: echo cubic >{TCP_CONGESTION_CONTROL}   (it is {congestion_control} now)"
        )
    });
    pages.into_iter().chain(pacing).collect()
}

/// Type and options of the mount that holds `path`: the longest mount point above it.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let over = mounts.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let [_, point, kind, options, ..] = fields[..] else {
            return None;
        };
        path.starts_with(point).then(|| (point.len(), format!("{kind} {options}")))
    });
    over.max_by_key(|(length, _)| *length).map_or(String::new(), |(_, description)| description)
}

/// Times of so many fdatasyncs, each after an append of 1 KiB in `directory`, ascending.
///
/// # Errors
/// When the file cannot be written.
pub fn raw_fdatasync(directory: &Path, count: usize) -> Result<Vec<Duration>, Failure> {
    let path = directory.join("raw-fdatasync");
    let mut times = Vec::new();
    let mut append_all = || {
        let mut file = fs::File::create(&path)?;
        for _ in 0..count {
            file.write_all(&[7; 1024])?;
            let began = Instant::now();
            file.sync_data()?;
            times.push(began.elapsed());
        }
        fs::remove_file(&path)
    };
    append_all().map_err(io_failure(format!("fdatasync of {}", path.display())))?;
    times.sort();
    Ok(times)
}

/// Processor time per byte of appending MiBs to a new file in `directory`, in nanoseconds: what no broker that stores what it
/// is sent can save. On some virtual machines most of it is the host's work of backing pages that were not used lately.
///
/// # Errors
/// When the file cannot be written.
pub fn append_to_new_file(directory: &Path) -> Result<f64, Failure> {
    let path = directory.join("append");
    let piece = vec![7; APPEND_BYTES];
    let append_all = || {
        let mut file = fs::File::create(&path)?;
        let before = own_thread_cpu();
        for _ in 0..APPENDED_BYTES / APPEND_BYTES {
            file.write_all(&piece)?;
        }
        let used = own_thread_cpu().saturating_sub(before);
        fs::remove_file(&path)?;
        Ok(used)
    };
    let used = append_all().map_err(io_failure(format!("appending to {}", path.display())))?;
    Ok(used.as_nanos() as f64 / APPENDED_BYTES as f64)
}

/// Writes so many bytes to a file in `directory` and removes it, so that what is written or read next finds pages that the host
/// has backed a moment ago. Without it the null broker pays 2.6 ns a byte for its first 512 MiB and 0.7 for the next, and again
/// 1.7 after five idle seconds: figures of the host.
///
/// # Errors
/// When the file cannot be written.
pub fn recycle_pages(directory: &Path, bytes: u64) -> Result<(), Failure> {
    let path = directory.join("recycled");
    let piece = vec![7; APPEND_BYTES];
    let append_all = || {
        let mut file = fs::File::create(&path)?;
        for _ in 0..bytes.div_ceil(APPEND_BYTES as u64) {
            file.write_all(&piece)?;
        }
        fs::remove_file(&path)
    };
    append_all().map_err(io_failure(format!("appending to {}", path.display())))
}

/// Wall time of touching a page of fresh anonymous memory for the first time. Some virtual machines pay many times more for
/// a page that the host has not backed yet; then figures of anything that touches fresh pages compare hosts, not brokers.
pub fn page_first_touch() -> Duration {
    let mut fresh = vec![0_u8; TOUCHED_BYTES]; // mapped, not written: the allocator asks for zeroed pages
    let began = Instant::now();
    for page in fresh.chunks_mut(PAGE_BYTES) {
        page[0] = 1;
    }
    let elapsed = began.elapsed();
    std::hint::black_box(&fresh);
    elapsed / (TOUCHED_BYTES / PAGE_BYTES) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_names_its_cores_and_the_file_system_of_a_directory() {
        let machine = describe(Path::new("/"));
        assert!(machine["cores"].as_u64() > Some(0));
        assert_ne!(machine["file_system"], "");
    }

    #[test]
    fn fdatasync_times_are_ascending_and_leave_no_file() {
        let directory = std::env::temp_dir().join(format!("raw-fdatasync-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let times = raw_fdatasync(&directory, 20).expect("measured");
        assert_eq!(times.len(), 20);
        assert!(times.is_sorted());
        fs::remove_dir(&directory).expect("empty");
    }
}
