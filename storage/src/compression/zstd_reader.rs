//! Decompresses zstd frames laid end to end. Making a decoder costs more than decoding a small batch with
//! it (19 µs beside 3), so each thread keeps one for its next batch.

use std::cell::Cell;
use std::io;

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::CHUNK_BYTES;
use super::zstd_window::{self, LargeWindow};

/// A decoder is kept for the next batch unless it holds more than this: enough for the 2 MiB window that
/// clients' default level asks for.
const MAX_KEPT_BYTES: usize = 3 * 1024 * 1024;

thread_local! {
    static KEPT: Cell<Option<Box<Decoder>>> = const { Cell::new(None) };
}

struct Decoder {
    context: DCtx<'static>,
    chunk: Vec<u8>,
}

pub(super) struct ZstdReader<'a> {
    /// `Some` until dropped. Dropped before `_window`, whose right it uses.
    decoder: Option<Box<Decoder>>,
    _window: Option<LargeWindow>,
    rest: &'a [u8],
    is_in_frame: bool,
    consumed: usize,
}

fn codec_error(code: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, get_error_name(code))
}

impl<'a> ZstdReader<'a> {
    pub(super) fn new(data: &'a [u8]) -> io::Result<ZstdReader<'a>> {
        let window = zstd_window::claim(data);
        let mut decoder = match KEPT.take() {
            Some(decoder) => decoder,
            None => Box::new(Decoder {
                context: DCtx::try_create()
                    .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?,
                chunk: Vec::with_capacity(CHUNK_BYTES),
            }),
        };
        decoder.chunk.clear();
        decoder.context.reset(ResetDirective::SessionOnly).map_err(codec_error)?;
        let limit = DParameter::WindowLogMax(zstd_window::max_log(&window));
        decoder.context.set_parameter(limit).map_err(codec_error)?;
        Ok(ZstdReader {
            decoder: Some(decoder),
            _window: window,
            rest: data,
            is_in_frame: false,
            consumed: 0,
        })
    }

    /// The unread bytes of the current chunk, or of the next one; empty at the end.
    pub(super) fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let decoder = self.decoder.as_mut().expect("taken by drop only");
        while self.consumed == decoder.chunk.len() && (self.is_in_frame || !self.rest.is_empty()) {
            decoder.chunk.clear();
            self.consumed = 0;
            let mut input = InBuffer::around(self.rest);
            let mut output = OutBuffer::around(&mut decoder.chunk);
            let hint = decoder.context.decompress_stream(&mut output, &mut input);
            let (read, written) = (input.pos(), output.pos());
            self.rest = &self.rest[read..];
            // 0: the frame has ended and all of it is written.
            self.is_in_frame = hint.map_err(codec_error)? != 0;
            if read == 0 && written == 0 && self.is_in_frame {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "zstd frame is cut"));
            }
        }
        Ok(&decoder.chunk[self.consumed..])
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.consumed += count;
    }
}

impl Drop for ZstdReader<'_> {
    fn drop(&mut self) {
        if let Some(decoder) = self.decoder.take()
            && decoder.context.sizeof() <= MAX_KEPT_BYTES
        {
            KEPT.set(Some(decoder));
        }
    }
}
