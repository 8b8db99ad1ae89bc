//! Answers to Metadata requests, encoded once for each image: a cluster of ten thousand partitions answers 300 KB, and every
//! client asks again every few minutes and whenever something moves.
//!
//! An answer is a function of the image, the request's bytes, the listener it came in by and the address the client
//! dialled. Nothing is kept of an image once another one is asked about.

use bytes::Bytes;
use replication::metadata::LogPosition;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// Smaller answers cost less to encode than to find.
const MIN_ANSWER_BYTES: usize = 2 << 10;
/// Longer requests are not kept.
const MAX_REQUEST_BYTES: usize = 4 << 10;
/// All answers together; the requests they answer are at most [`MAX_ANSWERS`] × [`MAX_REQUEST_BYTES`].
const MAX_BYTES: usize = 8 << 20;
/// Answers kept of one image.
const MAX_ANSWERS: usize = 64;

/// All that an answer depends on beside the image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Of the request.
    pub api_version: i16,
    /// The request's body.
    pub body: Bytes,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// The address that the client dialled.
    pub local: IpAddr,
}

/// The answers to what was asked about the image of late.
#[derive(Debug, Default)]
pub struct MetadataAnswers {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    image: LogPosition,
    answers: HashMap<Asked, Bytes>,
    size_bytes: usize,
}

impl MetadataAnswers {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no panic is survived")
    }

    /// The body of the answer, if this was asked about the image at this position before.
    pub fn get(&self, image: LogPosition, asked: &Asked) -> Option<Bytes> {
        let kept = self.kept();
        if kept.image != image {
            return None;
        }
        kept.answers.get(asked).cloned()
    }

    /// Keeps the body of an answer, if it is worth it and there is room.
    pub fn keep(&self, image: LogPosition, asked: Asked, body: Bytes) {
        let mut kept = self.kept();
        if image < kept.image {
            return; // asked before the image was replaced
        }
        if kept.image != image {
            *kept = Kept { image, ..Kept::default() };
        }
        let is_worth_it = body.len() >= MIN_ANSWER_BYTES && asked.body.len() <= MAX_REQUEST_BYTES;
        let has_room =
            kept.size_bytes + body.len() <= MAX_BYTES && kept.answers.len() < MAX_ANSWERS;
        if !is_worth_it || !has_room || kept.answers.contains_key(&asked) {
            return;
        }
        kept.size_bytes += body.len();
        // The body is a slice of a frame, which may be large.
        let asked = Asked { body: Bytes::copy_from_slice(&asked.body), ..asked };
        kept.answers.insert(asked, body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> LogPosition {
        LogPosition { index, term: 1 }
    }

    fn asked(body: &'static [u8]) -> Asked {
        Asked {
            api_version: 12,
            body: Bytes::from_static(body),
            listener: Arc::from("PLAINTEXT"),
            local: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn answer(size: usize) -> Bytes {
        Bytes::from(vec![7; size])
    }

    #[test]
    fn an_answer_is_given_again_until_the_image_is_another() {
        let answers = MetadataAnswers::default();
        answers.keep(at(5), asked(b"a"), answer(5000));
        assert_eq!(answers.get(at(5), &asked(b"a")), Some(answer(5000)));
        assert_eq!(answers.get(at(5), &asked(b"b")), None);
        let elsewhere = Asked { local: IpAddr::from([10, 0, 0, 1]), ..asked(b"a") };
        assert_eq!(answers.get(at(5), &elsewhere), None);
        assert_eq!(answers.get(at(6), &asked(b"a")), None);
        answers.keep(at(6), asked(b"b"), answer(6000));
        assert_eq!(answers.get(at(5), &asked(b"a")), None);
        // Encoded from an image that was replaced meanwhile.
        answers.keep(at(5), asked(b"a"), answer(5000));
        assert_eq!(answers.get(at(6), &asked(b"a")), None);
        assert_eq!(answers.get(at(6), &asked(b"b")), Some(answer(6000)));
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes() {
        let answers = MetadataAnswers::default();
        let any = |number: u16| Asked {
            body: Bytes::copy_from_slice(&number.to_be_bytes()),
            ..asked(b"")
        };
        for number in 0..1000 {
            answers.keep(at(1), any(number), answer(MIN_ANSWER_BYTES));
        }
        assert_eq!(answers.kept().answers.len(), MAX_ANSWERS);
        let large = answer(MAX_BYTES / 4);
        for number in 0..10 {
            answers.keep(at(2), any(number), large.clone());
        }
        let held = |kept: &Kept| (kept.answers.len(), kept.size_bytes);
        assert_eq!(held(&answers.kept()), (4, MAX_BYTES));
        answers.keep(at(3), any(0), answer(MIN_ANSWER_BYTES - 1));
        let long = Asked { body: answer(MAX_REQUEST_BYTES + 1), ..any(0) };
        answers.keep(at(3), long, answer(5000));
        assert!(answers.kept().answers.is_empty());
    }
}
