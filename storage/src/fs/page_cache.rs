//! What of a file the system has in memory, told without reading any of it (`cachestat`, Linux 6.5).

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

/// The call's number, on all processors but a few old ones, where it is none: nothing is cached there.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range` of `linux/mman.h`.
#[repr(C)]
struct Range {
    offset: u64,
    size_bytes: u64,
}

/// `struct cachestat` of `linux/mman.h`, in pages.
#[repr(C)]
#[derive(Default)]
struct Counts {
    cached: u64,
    dirty: u64,
    under_write_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many of the pages that hold these bytes are in memory, those that are being read included.
///
/// # Errors
/// `ENOSYS` before Linux 6.5, `EOPNOTSUPP` and `EPERM` for files of which the system does not tell.
#[expect(unsafe_code)]
fn cached_pages(file: &File, position: u64, size_bytes: usize) -> Result<u64, Errno> {
    if size_bytes == 0 {
        return Ok(0); // to the system that means all of the file
    }
    let range = Range { offset: position, size_bytes: size_bytes as u64 };
    let mut counts = Counts::default();
    // SAFETY: both structures are the kernel's, and are there for the whole call, which writes to the second only.
    let result = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut counts, 0_u32)
    };
    match result {
        0 => Ok(counts.cached),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS)),
    }
}

/// Whether all of these bytes are in memory or being read; also false where the system does not tell, and past the end of
/// the file.
pub(super) fn is_cached(file: &File, position: u64, size_bytes: usize) -> bool {
    let page_bytes = rustix::param::page_size() as u64;
    let end = (position + size_bytes as u64).div_ceil(page_bytes);
    let wanted = end - position / page_bytes;
    cached_pages(file, position, size_bytes).is_ok_and(|cached| cached >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Advice, fadvise};
    use std::num::NonZero;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_was_written_is_in_memory_until_it_is_dropped_and_what_was_not_never_is() {
        let page_bytes = rustix::param::page_size();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 4 * page_bytes], 0).unwrap();
        if cached_pages(&file, 0, 1).is_err() {
            assert!(!is_cached(&file, 0, page_bytes), "a kernel that does not tell");
            return;
        }
        let at = |page: usize| (page * page_bytes) as u64;
        assert!(is_cached(&file, 0, 4 * page_bytes));
        assert!(is_cached(&file, at(1) - 1, 2), "two pages for two bytes");
        assert!(!is_cached(&file, at(3), page_bytes + 1), "past the end");
        file.sync_data().unwrap();
        let size = NonZero::new(page_bytes as u64);
        fadvise(&file, at(2), size, Advice::DontNeed).unwrap();
        if cached_pages(&file, at(2), page_bytes) == Ok(0) {
            assert!(!is_cached(&file, 0, 4 * page_bytes));
            assert!(is_cached(&file, 0, 2 * page_bytes) && is_cached(&file, at(3), page_bytes));
        }
    }
}
