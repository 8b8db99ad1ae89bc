//! How much history a zstd frame may make its decoder keep.
//!
//! A ten-byte frame can ask for gigabytes. RFC 8878 recommends decoders to support 8 MiB, and every level up
//! to 19 stays within; Java clients with `compression.zstd.level` 20 to 22 ask for up to 128 MiB, which
//! Kafka's decoder allows. So frames up to 8 MiB are decoded freely, and larger ones up to 128 MiB one at a
//! time in the whole process: what all of them together can hold stays known.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// 8 MiB.
const COMMON_WINDOW_LOG: u32 = 23;
/// 128 MiB, the limit of the reference decoder and so of Kafka's.
const LARGE_WINDOW_LOG: u32 = 27;

static LARGE_WINDOWS: Mutex<()> = Mutex::new(());

/// The right to hold a large window; given back when dropped.
pub(super) struct LargeWindow {
    _turn: MutexGuard<'static, ()>,
}

/// Waits for the right to a large window if the first frame of `data` asks for one. The first frame stands
/// for all: a client that compresses a batch writes one frame, or several with the same settings.
pub(super) fn claim(data: &[u8]) -> Option<LargeWindow> {
    let wanted = window_bytes(data)?;
    (wanted > 1 << COMMON_WINDOW_LOG).then(|| LargeWindow {
        _turn: LARGE_WINDOWS.lock().unwrap_or_else(PoisonError::into_inner),
    })
}

/// What to tell the decoder: it refuses frames that ask for more.
pub(super) fn max_log(window: &Option<LargeWindow>) -> u32 {
    if window.is_some() { LARGE_WINDOW_LOG } else { COMMON_WINDOW_LOG }
}

/// The window that the first frame's header asks for (RFC 8878, 3.1.1.1); `None` if it is no frame.
fn window_bytes(data: &[u8]) -> Option<u64> {
    let data = data.strip_prefix(&0xFD2F_B528u32.to_le_bytes())?;
    let (&descriptor, data) = data.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = data.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // One segment: the content's size is the window's. It stands behind the dictionary id.
    let dictionary_id_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = data.get(dictionary_id_bytes..)?;
    Some(match descriptor >> 6 {
        0 => u64::from(*size.first()?),
        1 => u64::from(u16::from_le_bytes(*size.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*size.first_chunk()?)),
        _ => u64::from_le_bytes(*size.first_chunk()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_read_from_both_forms_of_the_header() {
        let windowed = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3];
        assert_eq!(window_bytes(&windowed), Some(1 << 23));
        let single = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x80];
        assert_eq!(window_bytes(&single), Some(1 << 31));
        assert_eq!(window_bytes(&single[..8]), None);
        assert_eq!(window_bytes(b"none"), None);
    }

    #[test]
    fn the_reference_encoder_is_understood() {
        let data = vec![7; 1 << 20];
        let whole = zstd::bulk::compress(&data, 3).unwrap();
        assert_eq!(window_bytes(&whole), Some(1 << 20), "one segment");
        let streamed = zstd::stream::encode_all(&data[..], 3).unwrap();
        assert_eq!(window_bytes(&streamed), Some(1 << 21));
    }
}
