//! Damaged frames on a broker's port, of the requests that it advertises: each on a connection of its own, while one other
//! connection must go on being served.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::frames::Frames;

/// How long the witness may wait for its answer: far above any scheduling, far below a hang.
const WITNESS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a damaged frame may keep us: it may be a legal fetch that waits.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a run found.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// The port no longer accepts.
    #[error("frame {number}: the broker does not accept connections any more: {source}")]
    NotAccepting {
        /// Which frame of the run.
        number: u64,
        /// As connecting said.
        source: io::Error,
    },
    /// A connection that sent nothing wrong was not served.
    #[error("frame {number}: the connection beside it is no longer served: {source}")]
    WitnessHarmed {
        /// Which frame of the run.
        number: u64,
        /// As its request ended.
        source: io::Error,
    },
}

/// Throws frames at a broker, the same for the same seed.
pub struct Attack {
    address: SocketAddr,
    frames: Frames,
    rng: StdRng,
    witness: TcpStream,
    number: u64,
}

impl Attack {
    /// Connects the witness, which asks what the broker serves.
    ///
    /// # Errors
    /// If the broker is not there.
    pub fn new(address: SocketAddr, seed: u64) -> io::Result<Self> {
        let witness = TcpStream::connect(address)?;
        witness.set_read_timeout(Some(WITNESS_TIMEOUT))?;
        let rng = StdRng::seed_from_u64(!seed);
        let mut attack = Attack { address, frames: Frames::new(seed), rng, witness, number: 0 };
        let ranges = served(&attack.ask_witness()?);
        attack.frames = attack.frames.only(|key, version| {
            ranges.iter().any(|(served, range)| *served == key && range.contains(&version))
        });
        Ok(attack)
    }

    /// Sends the next frame; every 64th time asks the witness.
    ///
    /// # Errors
    /// The finding that ends the run.
    pub fn step(&mut self) -> Result<(), Finding> {
        let number = self.number;
        self.number += 1;
        let bytes = self.next_bytes();
        let mut stream = TcpStream::connect(self.address)
            .map_err(|source| Finding::NotAccepting { number, source })?;
        // What becomes of this connection is its own affair.
        let _ = throw(&mut stream, &bytes);
        if number.is_multiple_of(64) {
            self.ask_witness()
                .map(drop)
                .map_err(|source| Finding::WitnessHarmed { number, source })?;
        }
        Ok(())
    }

    /// A damaged frame behind its size, mostly the right one.
    fn next_bytes(&mut self) -> Vec<u8> {
        let frame = self.frames.next().unwrap_or_default();
        let size = match self.rng.random_range(0..20) {
            0 => self.rng.random(),
            1 => -1,
            2 => i32::MAX,
            3 => 0,
            4 => frame.len() as i32 - 1,
            5 => frame.len() as i32 + 1,
            _ => frame.len() as i32,
        };
        [&size.to_be_bytes()[..], &frame].concat()
    }

    /// ApiVersions v0, answered with its correlation id.
    fn ask_witness(&mut self) -> io::Result<Vec<u8>> {
        let id = (self.number as i32).to_be_bytes();
        let request = [&[0, 0, 0, 10, 0, 18, 0, 0][..], &id, &[0xff, 0xff]].concat();
        self.witness.write_all(&request)?;
        let mut size = [0; 4];
        self.witness.read_exact(&mut size)?;
        let mut answer = vec![0; u32::from_be_bytes(size).min(1 << 20) as usize];
        self.witness.read_exact(&mut answer)?;
        if answer.get(..4) != Some(&id[..]) {
            return Err(io::Error::other("the answer is to another request"));
        }
        Ok(answer)
    }
}

/// Api keys and versions in an ApiVersions v0 answer: correlation id, error, count, then three int16 each.
fn served(answer: &[u8]) -> Vec<(i16, RangeInclusive<i16>)> {
    const BEFORE_THE_LIST: usize = 4 + 2 + 4;
    let list = answer.get(BEFORE_THE_LIST..).unwrap_or_default();
    let number = |row: &[u8], at: usize| i16::from_be_bytes([row[at], row[at + 1]]);
    let rows = list.chunks_exact(6);
    rows.map(|row| (number(row, 0), number(row, 2)..=number(row, 4))).collect()
}

fn throw(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; 4096];
    while stream.read(&mut answer)? > 0 {}
    Ok(())
}
