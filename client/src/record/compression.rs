//! The five codecs, in the framings that Kafka gives them.
//!
//! | id | codec | framing |
//! |---|---|---|
//! | 1 | gzip | RFC 1952, several members allowed |
//! | 2 | snappy | xerial: magic, two versions, then blocks with an int32 length each; a raw block is read too |
//! | 3 | lz4 | LZ4 frame with independent blocks |
//! | 4 | zstd | RFC 8878, several frames allowed |

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use super::RecordError;

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// DEFLATE in gzip members.
    Gzip,
    /// Snappy in xerial's framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// A snappy copy of 3 bytes yields at most 64: a block that claims more than this many times its size lies.
const SNAPPY_MAX_RATIO: usize = 22;
/// The largest zstd window that is decoded, 2^27 bytes: what zstd itself decodes unless told otherwise.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

impl Compression {
    /// All of them, none first.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// From the lowest three bits of a batch's attributes.
    pub(super) fn from_attributes(attributes: i16) -> Result<Compression, RecordError> {
        let id = (attributes & 7) as u8;
        Compression::ALL.get(usize::from(id)).copied().ok_or(RecordError::CompressionUnknown { id })
    }

    pub(super) fn to_attributes(self) -> i16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// Kafka's name: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    pub(super) fn compress(self, data: &[u8]) -> Result<Vec<u8>, RecordError> {
        let out = match self {
            Compression::None => Ok(data.to_vec()),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(data).and_then(|()| encoder.finish())
            }
            Compression::Snappy => snappy_blocks(data),
            Compression::Lz4 => {
                // Java's decoder refuses blocks that lean on earlier ones.
                let mut info = lz4_flex::frame::FrameInfo::new();
                info.block_mode = lz4_flex::frame::BlockMode::Independent;
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(data).and_then(|()| encoder.finish().map_err(io::Error::other))
            }
            Compression::Zstd => zstd::stream::encode_all(data, 3),
        };
        out.map_err(|e| self.invalid(e))
    }

    /// Unpacks `data`, to at most `limit` bytes; memory grows with what really comes out.
    pub(super) fn decompress(self, data: &[u8], limit: usize) -> Result<Vec<u8>, RecordError> {
        match self {
            Compression::None => Ok(data.to_vec()),
            Compression::Gzip => {
                self.read(flate2::read::MultiGzDecoder::new(data), Vec::new(), limit)
            }
            Compression::Snappy => self.unpack_snappy(data, limit),
            Compression::Lz4 => {
                let mut out = Vec::new();
                let mut rest = data;
                // The reader ends with its frame; another may follow.
                while !rest.is_empty() {
                    let before = rest.len();
                    out = self.read(lz4_flex::frame::FrameDecoder::new(&mut rest), out, limit)?;
                    if rest.len() == before {
                        return Err(self.invalid("it ends within a frame"));
                    }
                }
                Ok(out)
            }
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(data).map_err(|e| self.invalid(e))?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|e| self.invalid(e))?;
                self.read(decoder, Vec::new(), limit)
            }
        }
    }

    /// Appends what `reader` yields to `out`, which may hold `limit` bytes in all.
    fn read(
        self,
        reader: impl Read,
        mut out: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, RecordError> {
        let allowed = ((limit - out.len()) as u64).saturating_add(1); // one more, to see that it is too much
        reader.take(allowed).read_to_end(&mut out).map_err(|e| self.invalid(e))?;
        if out.len() > limit { Err(RecordError::DecompressedTooLarge { limit }) } else { Ok(out) }
    }

    fn unpack_snappy(self, data: &[u8], limit: usize) -> Result<Vec<u8>, RecordError> {
        let Some(mut rest) = data.strip_prefix(&XERIAL_MAGIC) else {
            let mut out = Vec::new();
            self.unpack_snappy_block(data, &mut out, limit)?;
            return Ok(out);
        };
        let too_short = || self.invalid("it ends within a block");
        rest = rest.get(8..).ok_or_else(too_short)?; // the two versions
        let mut out = Vec::new();
        while !rest.is_empty() {
            let (size, after) = rest.split_first_chunk::<4>().ok_or_else(too_short)?;
            let size = usize::try_from(i32::from_be_bytes(*size)).map_err(|_| too_short())?;
            let block = after.get(..size).ok_or_else(too_short)?;
            self.unpack_snappy_block(block, &mut out, limit)?;
            rest = &after[size..];
        }
        Ok(out)
    }

    fn unpack_snappy_block(
        self,
        block: &[u8],
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), RecordError> {
        let size = snap::raw::decompress_len(block).map_err(|e| self.invalid(e))?;
        if size > limit - out.len() {
            return Err(RecordError::DecompressedTooLarge { limit });
        }
        if size / SNAPPY_MAX_RATIO > block.len() {
            return Err(self.invalid("a block claims more than it can hold"));
        }
        let start = out.len();
        out.resize(start + size, 0);
        let written = snap::raw::Decoder::new()
            .decompress(block, &mut out[start..])
            .map_err(|e| self.invalid(e))?;
        out.truncate(start + written);
        Ok(())
    }

    fn invalid(self, reason: impl ToString) -> RecordError {
        RecordError::CompressionInvalid { compression: self, reason: reason.to_string() }
    }
}

fn snappy_blocks(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend(1i32.to_be_bytes()); // version
    out.extend(1i32.to_be_bytes()); // lowest version that can read it
    for block in data.chunks(XERIAL_BLOCK_BYTES) {
        let packed = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
        out.extend((packed.len() as u32).to_be_bytes()); // 32 KiB grow to 38 KiB at most
        out.extend(packed);
    }
    Ok(out)
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Compression::ALL
            .into_iter()
            .find(|compression| compression.name() == name)
            .ok_or_else(|| "one of none, gzip, snappy, lz4, zstd".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_out_again(
            data in prop::collection::vec(any::<u8>(), 0..3000),
            repeat in 1usize..60,
            codec in 0usize..5,
        ) {
            let codec = Compression::ALL[codec];
            let data = data.repeat(repeat);
            let packed = codec.compress(&data).expect("packs");
            prop_assert_eq!(codec.decompress(&packed, data.len()).expect("unpacks"), data.clone());
            if codec != Compression::None && !data.is_empty() {
                let limit = data.len() - 1;
                prop_assert_eq!(
                    codec.decompress(&packed, limit), Err(RecordError::DecompressedTooLarge { limit })
                );
            }
        }

        #[test]
        fn damaged_blocks_never_panic_and_never_grow_past_the_limit(
            data in prop::collection::vec(any::<u8>(), 0..500),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            codec in 1usize..5,
        ) {
            let codec = Compression::ALL[codec];
            let mut packed = codec.compress(&data).expect("packs");
            let at = at.index(packed.len());
            packed[at] = byte;
            if let Ok(out) = codec.decompress(&packed, 4096) {
                prop_assert!(out.len() <= 4096);
            }
            let _ = codec.decompress(&data, 4096);
        }
    }

    #[test]
    fn a_raw_snappy_block_is_read_too() {
        let raw = snap::raw::Encoder::new().compress_vec(b"hello hello hello").expect("packs");
        assert_eq!(
            Compression::Snappy.decompress(&raw, 100).expect("unpacks"),
            b"hello hello hello"
        );
    }

    #[test]
    fn several_frames_of_gzip_lz4_and_zstd_are_one_block() {
        for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
            let mut packed = codec.compress(b"one ").expect("packs");
            packed.extend(codec.compress(b"two").expect("packs"));
            assert_eq!(codec.decompress(&packed, 100).expect("unpacks"), b"one two", "{codec}");
        }
    }

    #[test]
    fn a_snappy_block_that_claims_gigabytes_reserves_nothing() {
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        let result = Compression::Snappy.decompress(&claim, usize::MAX);
        assert!(matches!(result, Err(RecordError::CompressionInvalid { .. })), "{result:?}");
    }
}
