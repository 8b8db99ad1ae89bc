//! The writing side: compresses what is written to it into memory, up to a limit.

use std::io::{self, Write};

use super::{Compression, CompressionError, is_limit_reached, limit_reached, snappy};

/// Zstd's default level, also Kafka's.
const ZSTD_DEFAULT_LEVEL: i32 = 3;

/// Compresses what is written to it. Each [`Compressor::finish`] yields one block as Kafka's Java client
/// would write it: one gzip member, one xerial stream, one lz4 frame of independent 64 KiB blocks, one zstd
/// frame.
pub struct Compressor {
    codec: Compression,
    max_output_bytes: usize,
    writer: Writer,
}

enum Writer {
    None(Limited),
    Gzip(flate2::write::GzEncoder<Limited>),
    Snappy(Box<SnappyWriter>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Limited>>),
    Zstd(zstd::stream::write::Encoder<'static, Limited>),
}

impl Compressor {
    /// A compressor that yields at most `max_output_bytes`. `level` `None` is the codec's default; levels
    /// outside the codec's range count as the nearest one in it. LZ4 and Snappy have one level here.
    ///
    /// # Errors
    /// If the codec has no memory.
    pub fn new(
        codec: Compression,
        level: Option<i32>,
        max_output_bytes: usize,
    ) -> Result<Compressor, CompressionError> {
        let out = Limited { bytes: Vec::new(), max_output_bytes };
        let writer = match codec {
            Compression::None => Writer::None(out),
            Compression::Gzip => {
                let level = match level {
                    // Kafka's -1 is zlib's "default".
                    None | Some(-1) => flate2::Compression::default(),
                    Some(level) => flate2::Compression::new(level.clamp(0, 9) as u32),
                };
                Writer::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Compression::Snappy => Writer::Snappy(Box::new(SnappyWriter::new(out))),
            Compression::Lz4 => {
                let frame = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                Writer::Lz4(Box::new(lz4_flex::frame::FrameEncoder::with_frame_info(frame, out)))
            }
            Compression::Zstd => Writer::Zstd(
                zstd::stream::write::Encoder::new(out, level.unwrap_or(ZSTD_DEFAULT_LEVEL))
                    .map_err(|source| CompressionError::Compress { codec, source })?,
            ),
        };
        Ok(Compressor { codec, max_output_bytes, writer })
    }

    /// Ends the block and returns its bytes.
    ///
    /// # Errors
    /// If they would be more than allowed.
    pub fn finish(self) -> Result<Vec<u8>, CompressionError> {
        let (codec, max_output_bytes) = (self.codec, self.max_output_bytes);
        let finished = match self.writer {
            Writer::None(out) => Ok(out),
            Writer::Gzip(encoder) => encoder.finish(),
            Writer::Snappy(writer) => writer.finish(),
            Writer::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
            Writer::Zstd(encoder) => encoder.finish(),
        };
        finished.map(|out| out.bytes).map_err(|source| error(codec, max_output_bytes, source))
    }

    /// What an error of this writer's `Write` means.
    pub fn error(&self, source: io::Error) -> CompressionError {
        error(self.codec, self.max_output_bytes, source)
    }
}

fn error(codec: Compression, max_output_bytes: usize, source: io::Error) -> CompressionError {
    if is_limit_reached(&source) {
        CompressionError::OutputTooLarge { codec, max_output_bytes }
    } else {
        CompressionError::Compress { codec, source }
    }
}

impl Write for Compressor {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.writer {
            Writer::None(out) => out.write(data),
            Writer::Gzip(encoder) => encoder.write(data),
            Writer::Snappy(writer) => writer.write(data),
            Writer::Lz4(encoder) => encoder.write(data),
            Writer::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing leaves before `finish`
    }
}

/// Memory with an end.
struct Limited {
    bytes: Vec<u8>,
    max_output_bytes: usize,
}

impl Write for Limited {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.max_output_bytes - self.bytes.len() {
            return Err(limit_reached(self.max_output_bytes));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts what is written into blocks of xerial's framing.
struct SnappyWriter {
    encoder: snap::raw::Encoder,
    block: Vec<u8>,
    framed: Vec<u8>,
    out: Limited,
}

impl SnappyWriter {
    fn new(out: Limited) -> SnappyWriter {
        let mut framed = Vec::new();
        snappy::write_header(&mut framed);
        SnappyWriter { encoder: snap::raw::Encoder::new(), block: Vec::new(), framed, out }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            snappy::write_block(&mut self.encoder, &self.block, &mut self.framed)?;
            self.block.clear();
        }
        self.out.write_all(&self.framed)?;
        self.framed.clear();
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(snappy::BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&data[..taken]);
        if self.block.len() == snappy::BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(taken)
    }

    fn finish(mut self) -> io::Result<Limited> {
        self.end_block()?;
        Ok(self.out)
    }
}
