//! Damaged request frames against the frame check and the crate's decoders behind it.
//!
//! A legal frame is made up from the schema, damaged, and taken the way a connection takes it: header, check, decode.
//! What the check passes must decode. An abort (memory asked for by a count) ends the process, which is the finding: run it
//! under an address-space limit, as the `fuzz_frames` binary does.

use broker::network::frame_check::arbitrary::{all_versions, request_frame};
use broker::network::frame_check::{FrameError, RequestHeaderView, check_request};
use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, RequestKind};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// What became of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The check refused it; the connection would be closed.
    Refused(FrameError),
    /// It passed and decoded.
    Decoded,
}

/// Takes one frame (without its size) the way a connection does.
///
/// # Errors
/// The decoder's words, if it refuses what the check had passed: a bug in one of the two.
pub fn take_frame(frame: &[u8]) -> Result<Outcome, String> {
    let view = match RequestHeaderView::parse(frame) {
        Ok(view) => view,
        Err(error) => return Ok(Outcome::Refused(error)),
    };
    let body = &frame[view.body_offset..];
    if let Err(error) = check_request(view.api_key, view.api_version, body) {
        return Ok(Outcome::Refused(error));
    }
    let key = ApiKey::try_from(view.api_key)
        .map_err(|()| format!("api key {} passed and is not the crate's", view.api_key))?;
    match RequestKind::decode(key, &mut Bytes::copy_from_slice(body), view.api_version) {
        Ok(_) => Ok(Outcome::Decoded),
        Err(error) => Err(format!("{key:?} v{} passed, then: {error:#}", view.api_version)),
    }
}

/// Frames without end, the same for the same seed.
pub struct Frames {
    rng: StdRng,
    requests: Vec<(i16, i16)>,
}

impl Frames {
    /// The run of `seed`.
    pub fn new(seed: u64) -> Self {
        Frames { rng: StdRng::seed_from_u64(seed), requests: all_versions().collect() }
    }

    /// The same, of the requests that `is_wanted` picks by api key and version.
    pub fn only(mut self, is_wanted: impl Fn(i16, i16) -> bool) -> Self {
        self.requests.retain(|(key, version)| is_wanted(*key, *version));
        self
    }
}

impl Iterator for Frames {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let (key, version) = self.requests[self.rng.random_range(0..self.requests.len())];
        let mut frame = request_frame(key, version, &mut || self.rng.next_u64())?;
        damage(&mut frame, &mut self.rng);
        Some(frame)
    }
}

/// None to four changes: bits, bytes, runs copied, cut or doubled, and the numbers that counts and lengths dislike.
pub fn damage(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    const NUMBERS: [&[u8]; 10] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0x80, 0x80, 0x80, 0x08],
        &[0x80, 0, 0, 0],
        &[0, 0x10, 0, 0],
        &[0x7f, 0xff],
        &[0xff, 0xff],
        &[0xff, 0x7f],
        &[0],
    ];
    for _ in 0..rng.random_range(0..5) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        let run = at..rng.random_range(at..bytes.len().min(at + 40)) + 1;
        match rng.random_range(0..8) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.random()),
            4 => drop(bytes.drain(run)),
            5 => {
                let copy = bytes[run].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => {
                let number = NUMBERS[rng.random_range(0..NUMBERS.len())];
                let end = bytes.len().min(at + number.len());
                bytes.splice(at..end, number.iter().copied());
            }
            _ => bytes[at] = bytes[at].wrapping_add(if rng.random() { 1 } else { 0xff }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_frames() {
        let frames = |seed| Frames::new(seed).take(50).collect::<Vec<_>>();
        assert_eq!(frames(7), frames(7));
        assert_ne!(frames(7), frames(8));
    }

    #[test]
    fn a_short_run_finds_nothing_and_reaches_both_outcomes() {
        let outcomes: Vec<_> =
            Frames::new(1).take(20_000).map(|frame| take_frame(&frame).unwrap()).collect();
        let decoded = outcomes.iter().filter(|outcome| **outcome == Outcome::Decoded).count();
        assert!((2_000..18_000).contains(&decoded), "{decoded} of 20000 decoded");
    }
}
