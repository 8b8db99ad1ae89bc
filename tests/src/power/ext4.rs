//! A file system that can lose its power: ext4 in a file, through a loop device.
//!
//! The filesystem-shutdown ioctl stops all input and output of a mounted file system at once. Unmounting then throws its page
//! cache away, and the next mount replays the journal, as after a real cut. The machine stays up, so that a cut takes tens of
//! milliseconds.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::RngExt;
use rand::rngs::StdRng;
use rustix::fs::OFlags;
use rustix::ioctl::{Setter, ioctl, opcode};

const SIZE_BYTES: u64 = 1 << 30;
const PAGE_BYTES: u64 = 4096;

/// How the data and the sizes of files reach the disk, which decides what a cut can leave behind. `ordered` is everybody's
/// default; `writeback` may leave sizes without data, without delayed allocation more often.
const MOUNT_OPTIONS: [&str; 4] =
    ["loop", "loop", "loop,data=writeback", "loop,data=writeback,nodelalloc"];

/// What the journal has at the cut (`EXT4_GOING_FLAGS_*`, fs/ext4/ext4.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// All that was done: names and sizes are there, data that was not synced is not.
    Flushed = 1,
    /// What was synced, or written back by chance.
    NotFlushed = 2,
}

/// A mounted file system in a file; unmounted when dropped.
#[derive(Debug)]
pub struct Ext4 {
    image: PathBuf,
    mount_point: PathBuf,
    options: &'static str,
}

impl Ext4 {
    /// Makes a new one in `dir` and mounts it.
    ///
    /// # Errors
    /// This machine cannot: not root, no mkfs.ext4, no loop device.
    pub fn create(dir: &Path, random: &mut StdRng) -> io::Result<Ext4> {
        let image = dir.join("disk.img");
        let mount_point = dir.join("disk");
        // Zeroes where nothing was written yet: no old data may pass for new.
        let _ = fs::remove_file(&image);
        File::create(&image)?.set_len(SIZE_BYTES)?;
        fs::create_dir_all(&mount_point)?;
        let block_bytes = ["1024", "4096"][random.random_range(0..2)];
        run(Command::new("mkfs.ext4").args(["-q", "-b", block_bytes, "-J", "size=8"]).arg(&image))?;
        let options = MOUNT_OPTIONS[random.random_range(0..MOUNT_OPTIONS.len())];
        let disk = Ext4 { image, mount_point, options };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// The file it is in.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// How it is mounted.
    pub fn options(&self) -> &'static str {
        self.options
    }

    fn mount(&self) -> io::Result<()> {
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", self.options])
            .args([&self.image, &self.mount_point]))
    }

    /// The cut. Every operation fails from here on.
    ///
    /// # Errors
    /// The kernel has no such ioctl, or we are not root.
    pub fn cut(&self, journal: Journal) -> io::Result<()> {
        let root = File::open(&self.mount_point)?;
        // FS_IOC_SHUTDOWN is _IOR('X', 125, __u32), though the kernel reads the number, not writes it.
        const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
        // SAFETY: the opcode is FS_IOC_SHUTDOWN, whose argument is a pointer to one u32 that the kernel only reads during the
        // call; `Setter` keeps it alive that long. On a file system that does not know the ioctl it answers ENOTTY.
        #[expect(unsafe_code)]
        let cut = unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(journal as u32)) };
        Ok(cut?)
    }

    /// Power is back: what the disk has, after replaying the journal. Nobody may have a file of it open.
    ///
    /// # Errors
    /// Somebody has, or it cannot be mounted any more.
    pub fn power_on(&self) -> io::Result<()> {
        run(Command::new("umount").arg(&self.mount_point))?;
        self.mount()?;
        // Kept mounted elsewhere it would still be the dead one.
        fs::read_dir(&self.mount_point).map(drop).map_err(|error| {
            let whose = "is it still mounted in another mount namespace?";
            io::Error::new(error.kind(), format!("the disk stays dead, {whose} {error}"))
        })
    }

    /// Writes some of what is dirty to the disk, as the kernel may at any time: whole files, directories, and ranges of pages
    /// in the last part of files, out of order. So a cut leaves holes and cut tails. Nobody may write at the same time.
    ///
    /// # Errors
    /// Of the disk.
    pub fn write_back_some(&self, random: &mut StdRng) -> io::Result<()> {
        let mut paths = Vec::new();
        walk(&self.mount_point, &mut paths)?;
        let chance = [0.1, 0.4, 0.8][random.random_range(0..3)];
        for (path, is_dir) in paths {
            if !random.random_bool(chance) {
                continue;
            }
            let size = fs::metadata(&path)?.len();
            if is_dir || size < PAGE_BYTES || random.random_bool(0.2) {
                File::open(&path)?.sync_all()?;
                continue;
            }
            for _ in 0..random.random_range(1..4) {
                write_back_range(&path, size, random)?;
            }
        }
        Ok(())
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // A broker that was only just killed may still hold files: lazily, then.
        let _ = run(Command::new("umount").arg("-l").arg(&self.mount_point));
    }
}

/// A synchronous write of the bytes that are there anyway syncs their pages, and no others of the file.
fn write_back_range(path: &Path, size_bytes: u64, random: &mut StdRng) -> io::Result<()> {
    let pages = size_bytes.div_ceil(PAGE_BYTES);
    let first = random.random_range(pages.saturating_sub(64)..pages);
    let count = random.random_range(1..=(pages - first).min(8));
    let end = ((first + count) * PAGE_BYTES).min(size_bytes);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::DSYNC.bits() as i32)
        .open(path)?;
    let mut bytes = vec![0; (end - first * PAGE_BYTES) as usize];
    file.read_exact_at(&mut bytes, first * PAGE_BYTES)?;
    file.write_all_at(&bytes, first * PAGE_BYTES)
}

fn walk(dir: &Path, into: &mut Vec<(PathBuf, bool)>) -> io::Result<()> {
    into.push((dir.to_owned(), true));
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), into)?;
        } else {
            into.push((entry.path(), false));
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output().map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}", command.get_program().display()))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{}: {said}", command.get_program().display())))
}
