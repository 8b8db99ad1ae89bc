//! A part of a segment's file in an answer, from when it was found until the socket has taken it.
//!
//! Invariant: answers keep at most so many files open that the process can spare them ([`crate::log_dir::FileCache::hold`]),
//! however many partitions they are of and however long nobody reads them. Past that a slice knows only how to open its file
//! again, through the cache.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, Weak};

use crate::fs::FsFile;
use crate::log_dir::HeldFile;

/// A part of a file: record bytes that need not be copied.
#[derive(Clone, Debug)]
pub struct FileSlice {
    file: SliceFile,
    /// First byte.
    pub position: u64,
    /// How many bytes.
    pub size_bytes: usize,
}

#[derive(Clone, Debug)]
enum SliceFile {
    /// It stays readable though it may have lost its name.
    Held(Arc<HeldFile>),
    /// It is open as long as others keep it so. Then it is opened again, which finds it until its name is gone for good.
    Reopened(Arc<Reopened>),
}

type Open = Box<dyn Fn() -> io::Result<Arc<dyn FsFile>> + Send + Sync>;

struct Reopened {
    file: Mutex<Weak<dyn FsFile>>,
    open: Open,
}

impl fmt::Debug for Reopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopened").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Reopened {
    fn file(&self) -> std::sync::MutexGuard<'_, Weak<dyn FsFile>> {
        self.file.lock().expect("nothing panics while it holds the file")
    }
}

impl FileSlice {
    /// Of a file that is kept open.
    pub(crate) fn held(file: HeldFile, position: u64, size_bytes: usize) -> FileSlice {
        FileSlice { file: SliceFile::Held(Arc::new(file)), position, size_bytes }
    }

    /// Of a file that `open` opens again whenever it is needed and nobody else has it open.
    pub fn reopened(
        file: Weak<dyn FsFile>,
        open: impl Fn() -> io::Result<Arc<dyn FsFile>> + Send + Sync + 'static,
        position: u64,
        size_bytes: usize,
    ) -> FileSlice {
        let reopened = Reopened { file: Mutex::new(file), open: Box::new(open) };
        FileSlice { file: SliceFile::Reopened(Arc::new(reopened)), position, size_bytes }
    }

    /// Of a file outside of a log directory, which stays open.
    pub fn of_file(file: Arc<dyn FsFile>, position: u64, size_bytes: usize) -> FileSlice {
        FileSlice::held(HeldFile::uncounted(file), position, size_bytes)
    }

    /// The file if it is open. Hold it for a step only.
    pub fn open_file(&self) -> Option<Arc<dyn FsFile>> {
        match &self.file {
            SliceFile::Held(held) => Some(held.file().clone()),
            SliceFile::Reopened(reopened) => reopened.file().upgrade(),
        }
    }

    /// The file, opened if it is not. May block on the disk. Hold it for a step only.
    ///
    /// # Errors
    /// The file is gone, or has other bytes now; or what the system says.
    pub fn open(&self) -> io::Result<Arc<dyn FsFile>> {
        if let Some(file) = self.open_file() {
            return Ok(file);
        }
        match &self.file {
            SliceFile::Held(held) => Ok(held.file().clone()),
            SliceFile::Reopened(reopened) => {
                let file = (reopened.open)()?;
                *reopened.file() = Arc::downgrade(&file);
                Ok(file)
            }
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// As [`FileSlice::open`], and what the disk says.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.size_bytes];
        self.open()?.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, append, batch, new_log, offset, open_dir, small_segments};
    use super::super::{FetchedRecords, Log, LogConfig};
    use crate::fs::simulated::SimulatedFs;
    use crate::topic_partition::{TopicId, TopicPartition};

    fn read(log: &mut Log) -> FetchedRecords {
        let end = log.offsets().log_end;
        log.forget_tail();
        log.read_plan(offset(0), end, NOW).unwrap().execute(1000, true).unwrap()
    }

    #[test]
    fn answers_that_nobody_takes_keep_no_more_files_open_than_may_be() {
        let fs = SimulatedFs::new();
        let dir = open_dir(&fs);
        dir.set_max_open_files(10);
        let mut answers = Vec::new();
        for number in 0..100 {
            let config = LogConfig::default().into();
            let topic_partition = TopicPartition::new("t", number);
            let id = TopicId::from_bytes([1; 16]);
            let mut log = Log::absent(dir.clone(), id, topic_partition, config);
            append(&mut log, batch(number as u64, 60, 0));
            log.flush().unwrap();
            answers.push(read(&mut log));
        }
        assert!(fs.open_files() <= 15, "{}", fs.open_files());
        fs.limit_open_files(15);
        for (number, answer) in answers.iter().enumerate() {
            let bytes = answer.read().unwrap();
            assert!(bytes.windows(8).any(|window| window == (number as u64).to_be_bytes()));
        }
        assert!(fs.open_files() <= 15, "{}", fs.open_files());
        drop(answers);
        (0..2).for_each(|_| dir.close_idle_files());
        assert_eq!(fs.open_files(), 0);
    }

    /// An answer whose file is opened again when it is read.
    fn reopened() -> (SimulatedFs, Log, FetchedRecords) {
        let fs = SimulatedFs::new();
        let dir = open_dir(&fs);
        let mut log = new_log(&dir, small_segments());
        (0..30).for_each(|tag| _ = append(&mut log, batch(tag, 60, 0)));
        log.flush().unwrap();
        dir.set_max_open_files(1);
        let _held: Vec<_> = (0..1).map(|_| read(&mut log)).collect();
        let answer = read(&mut log);
        (0..2).for_each(|_| dir.close_idle_files());
        (fs, log, answer)
    }

    #[test]
    fn a_file_that_retention_has_renamed_is_found_again() {
        let (fs, mut log, answer) = reopened();
        log.update_high_watermark(offset(30));
        assert!(log.delete_records(offset(29), NOW).unwrap());
        assert!(log.delete_old_segments(NOW).unwrap() > 0);
        assert_eq!(fs.open_files(), 0);
        assert_eq!(answer.read().unwrap().len(), answer.size_bytes);
    }

    #[test]
    fn nothing_of_a_log_that_was_cut_meanwhile_is_read_from_a_file_that_was_closed() {
        let (_fs, mut log, answer) = reopened();
        log.truncate_to(offset(2), NOW).unwrap();
        for tag in 2..30 {
            append(&mut log, batch(100 + tag, 60, 0));
        }
        assert!(answer.read().is_err());
    }
}
