//! Snappy as Kafka's clients write it: blocks of the raw format, either one alone or several in the framing
//! of the Java library (xerial): 8 bytes of magic, i32 version, i32 lowest compatible version, then for each
//! block i32 length and the block, big-endian. (Snappy's own framing format is another one and never used.)

use std::io;

/// First in xerial's framing. A raw block could begin so only if it were 82 bytes long and corrupt.
const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const HEADER_BYTES: usize = 16;
const VERSION: i32 = 1;
/// Uncompressed bytes of each block we write: the Java library's default.
pub(super) const BLOCK_BYTES: usize = 32 * 1024;

/// No snappy element yields more than 64 bytes or takes less than 2, so a block that claims a greater ratio
/// is corrupt, and nothing is reserved for it.
const MAX_RATIO: usize = 32;

/// Decompresses block by block.
pub(super) struct SnappyReader<'a> {
    rest: &'a [u8],
    is_framed: bool,
    decoder: snap::raw::Decoder,
    block: Vec<u8>,
    consumed: usize,
}

fn corrupt(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<'a> SnappyReader<'a> {
    pub(super) fn new(data: &'a [u8]) -> io::Result<SnappyReader<'a>> {
        let is_framed = data.starts_with(&MAGIC);
        let rest = if is_framed {
            data.get(HEADER_BYTES..).ok_or_else(|| corrupt("xerial header is cut"))?
        } else {
            data
        };
        let decoder = snap::raw::Decoder::new();
        Ok(SnappyReader { rest, is_framed, decoder, block: Vec::new(), consumed: 0 })
    }

    /// The unread bytes of the current block, or of the next one; empty at the end.
    pub(super) fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.consumed == self.block.len() && !self.rest.is_empty() {
            let compressed = self.take_block()?;
            let claimed = snap::raw::decompress_len(compressed)?;
            if claimed / MAX_RATIO > compressed.len() {
                return Err(corrupt("snappy block claims more than it can hold"));
            }
            self.block.clear();
            self.block.resize(claimed, 0);
            self.consumed = 0;
            let written = self.decoder.decompress(compressed, &mut self.block)?;
            self.block.truncate(written);
        }
        Ok(&self.block[self.consumed..])
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.consumed += count;
    }

    fn take_block(&mut self) -> io::Result<&'a [u8]> {
        if !self.is_framed {
            return Ok(std::mem::take(&mut self.rest));
        }
        // The Java library writes its header again where a stream was begun anew.
        if self.rest.starts_with(&MAGIC) {
            self.rest =
                self.rest.get(HEADER_BYTES..).ok_or_else(|| corrupt("xerial header is cut"))?;
        }
        let (length, rest) =
            self.rest.split_first_chunk().ok_or_else(|| corrupt("xerial block length is cut"))?;
        let block = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .and_then(|length| rest.split_at_checked(length));
        let (block, rest) = block.ok_or_else(|| corrupt("xerial block is cut"))?;
        self.rest = rest;
        Ok(block)
    }
}

/// The header of xerial's framing.
pub(super) fn write_header(out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
}

/// One block of xerial's framing, of at most [`BLOCK_BYTES`].
pub(super) fn write_block(
    encoder: &mut snap::raw::Encoder,
    data: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let compressed = encoder.compress_vec(data)?;
    let length = i32::try_from(compressed.len()).expect("a block of 32 KiB stays small");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&compressed);
    Ok(())
}
