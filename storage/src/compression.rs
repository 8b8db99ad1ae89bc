//! The codecs of a batch's records block, with output and memory bounded by what the caller allows.
//!
//! What a block claims about its size is never believed: no codec reserves memory by it beyond a fixed,
//! named bound, and no caller gets more bytes than it allowed. Memory of a [`Decompressor`]:
//!
//! | codec | bound |
//! |---|---|
//! | gzip | 64 KiB of window and header, [`CHUNK_BYTES`] |
//! | snappy | one block: at most 64 times its compressed bytes |
//! | lz4 | 12 MiB: three blocks of 4 MiB, which the format allows at most |
//! | zstd | 8 MiB of window; up to 128 MiB for one decompressor at a time, see `zstd_window` |
//!
//! The codecs' own formats, as Kafka's clients write them (`compress/*.java`): gzip members and zstd frames
//! may follow one another; lz4 is one frame of the frame format; snappy is xerial's framing or one raw block.

mod compressor;
mod snappy;
mod zstd_reader;
mod zstd_window;

use std::io::{self, BufRead, BufReader, Read};

pub use compressor::Compressor;
use snappy::SnappyReader;
use zstd_reader::ZstdReader;

/// Codec of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// The records as they are.
    #[default]
    None,
    /// Gzip, RFC 1952.
    Gzip,
    /// Snappy blocks in xerial's framing.
    Snappy,
    /// LZ4 frame format.
    Lz4,
    /// Zstandard frames, RFC 8878.
    Zstd,
}

impl Compression {
    /// All codecs, in the order of their ids.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The codec with this number in a batch's attributes; 5 to 7 do not exist.
    pub const fn from_id(id: u8) -> Option<Compression> {
        match id {
            0 => Some(Compression::None),
            1 => Some(Compression::Gzip),
            2 => Some(Compression::Snappy),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// Its number in a batch's attributes.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// Kafka's name, as `compression.type` has it (there `none` is called `uncompressed`).
    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Why a block could not be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The output would be larger than the caller allowed.
    #[error("{} data yields more than {max_output_bytes} bytes", codec.name())]
    OutputTooLarge {
        /// The codec.
        codec: Compression,
        /// What was allowed.
        max_output_bytes: usize,
    },
    /// The data is not in the codec's format, or is cut.
    #[error("{} data is corrupt: {source}", codec.name())]
    Corrupt {
        /// The codec.
        codec: Compression,
        /// What the codec says.
        source: io::Error,
    },
    /// The codec refuses its settings or has no memory.
    #[error("cannot compress with {}: {source}", codec.name())]
    Compress {
        /// The codec.
        codec: Compression,
        /// What the codec says.
        source: io::Error,
    },
}

/// Size of the buffer between a codec and its reader.
pub const CHUNK_BYTES: usize = 32 * 1024;

/// The output limit was reached; travels inside an `io::Error`.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes")]
struct LimitReached(usize);

fn limit_reached(max_output_bytes: usize) -> io::Error {
    io::Error::other(LimitReached(max_output_bytes))
}

fn is_limit_reached(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<LimitReached>())
}

/// Decompresses `data` whole.
///
/// # Errors
/// If the data is corrupt or yields more than `max_output_bytes`.
pub fn decompress(
    codec: Compression,
    data: &[u8],
    max_output_bytes: usize,
) -> Result<Vec<u8>, CompressionError> {
    let mut decompressor = Decompressor::new(codec, data, max_output_bytes)?;
    let mut output = Vec::new();
    match decompressor.read_to_end(&mut output) {
        Ok(_) => Ok(output),
        Err(error) => Err(decompressor.error(error)),
    }
}

/// Compresses `data` whole; `level` `None` is the codec's default (gzip 6, zstd 3). LZ4 and Snappy have one
/// level.
///
/// # Errors
/// If the codec refuses the level or has no memory.
pub fn compress(
    codec: Compression,
    level: Option<i32>,
    data: &[u8],
) -> Result<Vec<u8>, CompressionError> {
    let mut compressor = Compressor::new(codec, level, usize::MAX)?;
    match io::Write::write_all(&mut compressor, data) {
        Ok(()) => compressor.finish(),
        Err(error) => Err(compressor.error(error)),
    }
}

/// A bounded streaming reader over a compressed block. Ends where the codec's format says; yields an error
/// once more than `max_output_bytes` would come out.
///
/// A thread holds at most one at a time: one over a zstd block with a large window waits for all others of
/// its kind (`zstd_window`).
pub struct Decompressor<'a> {
    codec: Compression,
    reader: Reader<'a>,
    max_output_bytes: usize,
    remaining_bytes: usize,
}

/// As the codecs' crates have it, made one.
enum Reader<'a> {
    None(&'a [u8]),
    Gzip(BufReader<flate2::bufread::MultiGzDecoder<&'a [u8]>>),
    Snappy(SnappyReader<'a>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a [u8]>>),
    Zstd(ZstdReader<'a>),
}

impl<'a> Decompressor<'a> {
    /// A reader over `data`.
    ///
    /// # Errors
    /// If the data's first bytes are not the codec's.
    pub fn new(
        codec: Compression,
        data: &'a [u8],
        max_output_bytes: usize,
    ) -> Result<Decompressor<'a>, CompressionError> {
        let reader = Self::reader(codec, data)
            .map_err(|source| CompressionError::Corrupt { codec, source })?;
        Ok(Decompressor { codec, reader, max_output_bytes, remaining_bytes: max_output_bytes })
    }

    fn reader(codec: Compression, data: &'a [u8]) -> io::Result<Reader<'a>> {
        Ok(match codec {
            Compression::None => Reader::None(data),
            Compression::Gzip => Reader::Gzip(BufReader::with_capacity(
                CHUNK_BYTES,
                flate2::bufread::MultiGzDecoder::new(data),
            )),
            Compression::Snappy => Reader::Snappy(SnappyReader::new(data)?),
            Compression::Lz4 => {
                // The crate would also take the legacy format, whose blocks are twice as large.
                if data.first_chunk() != Some(&LZ4_FRAME_MAGIC) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no lz4 frame"));
                }
                // The decoder takes the end of the data for the end of the frame; Java consumers do not.
                if lz4_end_mark(data).is_none() {
                    let error = "lz4 frame without its end mark";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
                }
                Reader::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(data)))
            }
            Compression::Zstd => Reader::Zstd(ZstdReader::new(data)?),
        })
    }

    /// What an error of this reader's `Read` and `BufRead` means.
    pub fn error(&self, source: io::Error) -> CompressionError {
        let codec = self.codec;
        if is_limit_reached(&source) {
            CompressionError::OutputTooLarge { codec, max_output_bytes: self.max_output_bytes }
        } else {
            CompressionError::Corrupt { codec, source }
        }
    }
}

/// Little-endian, first in an LZ4 frame.
const LZ4_FRAME_MAGIC: [u8; 4] = 0x184D_2204u32.to_le_bytes();

/// Where the end mark of an LZ4 frame stands, found from block size to block size.
fn lz4_end_mark(frame: &[u8]) -> Option<usize> {
    const BLOCK_CHECKSUMS: u8 = 1 << 4;
    const CONTENT_SIZE: u8 = 1 << 3;
    const DICTIONARY_ID: u8 = 1;
    const STORED: u32 = 1 << 31;
    let flags = *frame.get(LZ4_FRAME_MAGIC.len())?;
    let size_if = |flag: u8, size: usize| if flags & flag != 0 { size } else { 0 };
    // Magic, flags, block size, what the flags announce, header checksum.
    let mut position = 4 + 2 + size_if(CONTENT_SIZE, 8) + size_if(DICTIONARY_ID, 4) + 1;
    loop {
        let word = frame.get(position..)?.first_chunk()?;
        match u32::from_le_bytes(*word) & !STORED {
            0 => return Some(position),
            size => position += 4 + size as usize + size_if(BLOCK_CHECKSUMS, 4),
        }
    }
}

impl BufRead for Decompressor<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let chunk = match &mut self.reader {
            Reader::None(data) => *data,
            Reader::Gzip(reader) => reader.fill_buf()?,
            Reader::Snappy(reader) => reader.fill_buf()?,
            Reader::Lz4(reader) => reader.fill_buf()?,
            Reader::Zstd(reader) => reader.fill_buf()?,
        };
        if self.remaining_bytes == 0 && !chunk.is_empty() {
            return Err(limit_reached(self.max_output_bytes));
        }
        Ok(&chunk[..chunk.len().min(self.remaining_bytes)])
    }

    fn consume(&mut self, count: usize) {
        self.remaining_bytes -= count;
        match &mut self.reader {
            Reader::None(data) => *data = &data[count..],
            Reader::Gzip(reader) => reader.consume(count),
            Reader::Snappy(reader) => reader.consume(count),
            Reader::Lz4(reader) => reader.consume(count),
            Reader::Zstd(reader) => reader.consume(count),
        }
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const LIMIT: usize = 1 << 20;

    fn arb_data() -> impl Strategy<Value = Vec<u8>> {
        let noise = prop::collection::vec(any::<u8>(), 0..5000);
        let runs = prop::collection::vec((any::<u8>(), 0usize..30_000), 0..12)
            .prop_map(|runs| runs.into_iter().flat_map(|(b, n)| vec![b; n]).collect::<Vec<u8>>());
        prop_oneof![noise, runs]
    }

    #[test]
    fn several_gzip_members_and_zstd_frames_are_one_block() {
        for codec in [Compression::Gzip, Compression::Zstd] {
            let mut data = compress(codec, None, b"one ").unwrap();
            data.extend(compress(codec, None, b"").unwrap());
            data.extend(compress(codec, None, b"two").unwrap());
            assert_eq!(decompress(codec, &data, LIMIT).unwrap(), b"one two");
        }
    }

    #[test]
    fn snappy_is_read_raw_and_framed_and_written_framed() {
        let text = b"snappy snappy snappy".repeat(5000);
        let raw = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        assert_eq!(decompress(Compression::Snappy, &raw, LIMIT).unwrap(), text);
        let framed = compress(Compression::Snappy, None, &text).unwrap();
        assert_eq!(framed[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        assert_eq!(decompress(Compression::Snappy, &framed, LIMIT).unwrap(), text);
        let twice = [&framed[..], &framed[..]].concat();
        assert_eq!(decompress(Compression::Snappy, &twice, LIMIT).unwrap(), text.repeat(2));
    }

    #[test]
    fn lz4_frames_are_kafkas_and_the_legacy_format_is_refused() {
        let framed = compress(Compression::Lz4, None, b"lz4").unwrap();
        assert_eq!(framed[..6], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40], "v1, independent, 64 KiB");
        let legacy = [0x02, 0x21, 0x4c, 0x18, 0, 0, 0, 0];
        assert!(decompress(Compression::Lz4, &legacy, LIMIT).is_err());
    }

    #[test]
    fn an_lz4_frame_cut_anywhere_is_refused() {
        for data in [&b""[..], b"lz4", &[0; 5000]] {
            let frame = compress(Compression::Lz4, None, data).unwrap();
            assert_eq!(decompress(Compression::Lz4, &frame, LIMIT).unwrap(), data);
            for cut in 0..frame.len() {
                assert!(
                    decompress(Compression::Lz4, &frame[..cut], LIMIT).is_err(),
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn levels_are_obeyed_and_clamped() {
        let words = (0..40_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_string());
        let text = words.collect::<Vec<_>>().join(" ").into_bytes();
        for codec in [Compression::Gzip, Compression::Zstd] {
            let size = |level| compress(codec, Some(level), &text).unwrap().len();
            assert!(size(9) < size(1), "{codec:?}");
        }
        assert!(compress(Compression::Gzip, Some(99), &text).is_ok());
    }

    #[test]
    fn a_window_of_level_22_is_read_and_a_larger_one_refused() {
        let text = b"window".repeat(100);
        let data = zstd::stream::encode_all(&text[..], 22).unwrap();
        assert_eq!(decompress(Compression::Zstd, &data, LIMIT).unwrap(), text);
        // A frame that asks for 2 TiB: window descriptor 31 << 3.
        let huge = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
        assert!(decompress(Compression::Zstd, &huge, LIMIT).is_err());
    }

    #[test]
    fn a_snappy_block_that_claims_gigabytes_reserves_nothing() {
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x61];
        let error = decompress(Compression::Snappy, &claim, usize::MAX).unwrap_err();
        assert!(error.to_string().contains("claims more"), "{error}");
    }

    #[test]
    fn a_bomb_ends_at_the_limit_and_not_before() {
        let zeroes = vec![0; LIMIT];
        for codec in Compression::ALL {
            let data = compress(codec, None, &zeroes).unwrap();
            assert_eq!(decompress(codec, &data, LIMIT).unwrap().len(), LIMIT, "{codec:?}");
            let error = decompress(codec, &data, LIMIT - 1).unwrap_err();
            assert!(
                matches!(error, CompressionError::OutputTooLarge { max_output_bytes, .. }
                    if max_output_bytes == LIMIT - 1),
                "{codec:?}: {error}"
            );
        }
    }

    #[test]
    fn a_compressor_stops_at_its_limit() {
        for codec in Compression::ALL {
            let size = compress(codec, None, b"some text").unwrap().len();
            for (limit, fits) in [(size, true), (size - 1, false)] {
                let mut compressor = Compressor::new(codec, None, limit).unwrap();
                let written = compressor.write_all(b"some text");
                let done = match written {
                    Ok(()) => compressor.finish(),
                    Err(error) => Err(compressor.error(error)),
                };
                assert_eq!(done.is_ok(), fits, "{codec:?} {limit}");
                if let Err(error) = done {
                    assert!(matches!(error, CompressionError::OutputTooLarge { .. }), "{error}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_codec_gives_back_what_it_took(data in arb_data()) {
            for codec in Compression::ALL {
                let compressed = compress(codec, None, &data).unwrap();
                prop_assert_eq!(&decompress(codec, &compressed, LIMIT).unwrap(), &data);
            }
        }

        /// Damaged data yields an error or bytes within the limit; never a panic.
        #[test]
        fn damaged_data_stays_within_the_limit(
            data in arb_data(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            limit in 0usize..100_000,
        ) {
            for codec in Compression::ALL {
                let mut compressed = compress(codec, None, &data).unwrap();
                for (at, byte) in &damage {
                    if !compressed.is_empty() {
                        let at = at.index(compressed.len());
                        compressed[at] = *byte;
                    }
                }
                if let Ok(output) = decompress(codec, &compressed, limit) {
                    prop_assert!(output.len() <= limit);
                }
            }
        }

        /// Linked blocks look back over one another; nobody's client writes them by default, all may.
        #[test]
        fn linked_lz4_blocks_are_read_and_damaged_ones_refused(
            runs in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), 1usize..9000), 1..6),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let data: Vec<u8> = runs.iter().flat_map(|(bytes, times)| bytes.repeat(*times)).collect();
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Linked);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&data).unwrap();
            let mut frame = encoder.finish().unwrap();
            let limit = data.len();
            prop_assert_eq!(&decompress(Compression::Lz4, &frame, limit).unwrap(), &data);
            for (at, byte) in damage {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if let Ok(output) = decompress(Compression::Lz4, &frame, limit) {
                prop_assert!(output.len() <= limit);
            }
        }

        #[test]
        fn noise_behind_a_true_beginning_is_no_panic(noise in prop::collection::vec(any::<u8>(), 0..400)) {
            let beginnings: [(Compression, &[u8]); 7] = [
                (Compression::Gzip, &[0x1f, 0x8b, 8]),
                (Compression::Snappy, b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"),
                (Compression::Snappy, b""),
                (Compression::Lz4, &[0x04, 0x22, 0x4d, 0x18]),
                (Compression::Lz4, &[0x04, 0x22, 0x4d, 0x18, 0x40, 0x70, 0xdf]),
                (Compression::Lz4, &[0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0]),
                (Compression::Zstd, &[0x28, 0xb5, 0x2f, 0xfd]),
            ];
            for (codec, beginning) in beginnings {
                let data = [beginning, &noise].concat();
                let _ = decompress(codec, &data, LIMIT);
            }
        }
    }
}
