//! The walk itself: a cursor over the frame that follows a shape. Depth is bounded by the schemas, which do not recurse.

use super::{FrameError, Op, Shape, decoded_size_limit};

/// A map of unknown tagged fields costs its first node (11 places of 36 bytes and their frame), then at worst two places an
/// entry.
const FIRST_TAG_DECODED_SIZE: usize = 416;
const MORE_TAGS_DECODED_SIZE: usize = 96;

/// A compact string may be no longer than a plain one, whose length is an int16: Kafka's generated readers refuse it too.
const MAX_STRING_BYTES: usize = i16::MAX as usize;

pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    /// Invariant: never past the end of `bytes`.
    position: usize,
    /// What the crate's structs will still be allowed to take.
    decoded_left: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Walk { bytes, position: 0, decoded_left: decoded_size_limit(bytes.len()) }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn shape(&mut self, shape: &Shape) -> Result<(), FrameError> {
        for op in shape.ops {
            match op {
                Op::Fixed(size) => self.skip(*size)?,
                Op::String => self.string(false)?,
                Op::NullableString => self.string(true)?,
                Op::CompactString => self.compact_string(false)?,
                Op::CompactNullableString => self.compact_string(true)?,
                Op::Bytes => self.block(false)?,
                Op::NullableBytes => self.block(true)?,
                Op::CompactBytes => self.compact_block(false)?,
                Op::CompactNullableBytes => self.compact_block(true)?,
                Op::Array(element) => self.array(element, false)?,
                Op::NullableArray(element) => self.array(element, true)?,
                Op::CompactArray(element) => self.compact_array(element, false)?,
                Op::CompactNullableArray(element) => self.compact_array(element, true)?,
                Op::NullableStruct(inner) => self.nullable_struct(inner)?,
                Op::Tags(known) => self.tags(known)?,
            }
        }
        Ok(())
    }

    pub(super) fn i16(&mut self) -> Result<i16, FrameError> {
        self.take().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, FrameError> {
        self.take().map(i32::from_be_bytes)
    }

    /// The header's client id: any negative length is null, and what is not UTF-8 ends it, because Kafka serves such
    /// clients too and nothing but logs and quotas reads it.
    pub(super) fn client_id(&mut self) -> Result<Option<&'a str>, FrameError> {
        let Ok(length) = usize::try_from(self.i16()?) else { return Ok(None) };
        let position = self.position;
        self.skip(length)?;
        let bytes = &self.bytes[position..self.position];
        Ok(Some(bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid())))
    }

    /// Tagged fields. Numbers may come in any order and twice, as Kafka reads them.
    pub(super) fn tags(
        &mut self,
        known: &[(u32, Option<&'static Shape>)],
    ) -> Result<(), FrameError> {
        let count = self.varint()? as usize;
        if count == 0 {
            return Ok(());
        }
        self.elements_fit(count, 2)?; // number and size, a byte each at least
        let mut cost = FIRST_TAG_DECODED_SIZE;
        for _ in 0..count {
            let tag = self.varint()?;
            let claimed = self.varint()? as usize;
            let start = self.position;
            match known.iter().find(|(number, _)| *number == tag) {
                None => {
                    self.charge(1, cost)?;
                    cost = MORE_TAGS_DECODED_SIZE;
                    self.skip(claimed)?;
                }
                Some((_, None)) => {
                    return Err(FrameError::TagNotInVersion { position: start, tag });
                }
                Some((_, Some(shape))) => {
                    self.shape(shape)?;
                    let taken = self.position - start;
                    if taken != claimed {
                        return Err(FrameError::TagSizeWrong {
                            position: start,
                            tag,
                            claimed,
                            taken,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn string(&mut self, nullable: bool) -> Result<(), FrameError> {
        let position = self.position;
        match self.i16()? {
            -1 if nullable => Ok(()),
            length => self.text(length_or_null(length.into(), position)?).map(drop),
        }
    }

    fn compact_string(&mut self, nullable: bool) -> Result<(), FrameError> {
        match self.compact_length(nullable)? {
            None => Ok(()),
            Some(length) if length > MAX_STRING_BYTES => {
                Err(FrameError::StringTooLong { position: self.position, length })
            }
            Some(length) => self.text(length).map(drop),
        }
    }

    fn block(&mut self, nullable: bool) -> Result<(), FrameError> {
        match self.plain_length(nullable)? {
            None => Ok(()),
            Some(length) => self.skip(length),
        }
    }

    fn compact_block(&mut self, nullable: bool) -> Result<(), FrameError> {
        match self.compact_length(nullable)? {
            None => Ok(()),
            Some(length) => self.skip(length),
        }
    }

    fn array(&mut self, element: &Shape, nullable: bool) -> Result<(), FrameError> {
        match self.plain_length(nullable)? {
            None => Ok(()),
            Some(count) => self.elements(element, count),
        }
    }

    fn compact_array(&mut self, element: &Shape, nullable: bool) -> Result<(), FrameError> {
        match self.compact_length(nullable)? {
            None => Ok(()),
            Some(count) => self.elements(element, count),
        }
    }

    fn elements(&mut self, element: &Shape, count: usize) -> Result<(), FrameError> {
        self.elements_fit(count, element.min_size)?;
        self.charge(count, element.decoded_size)?;
        if let [Op::Fixed(size)] = element.ops {
            return self.skip(count * size); // fits: `size` is the element's smallest size too
        }
        for _ in 0..count {
            self.shape(element)?;
        }
        Ok(())
    }

    fn nullable_struct(&mut self, inner: &Shape) -> Result<(), FrameError> {
        let position = self.position;
        match self.take().map(i8::from_be_bytes)? {
            1 => self.shape(inner),
            i8::MIN..=-1 => Ok(()),
            // Kafka takes these for present, the crate for null.
            _ => Err(FrameError::PresenceUnclear { position }),
        }
    }

    fn text(&mut self, length: usize) -> Result<&'a str, FrameError> {
        let position = self.position;
        self.skip(length)?;
        std::str::from_utf8(&self.bytes[position..self.position])
            .map_err(|_| FrameError::NotUtf8 { position })
    }

    /// An int32 length; `None` is null.
    fn plain_length(&mut self, nullable: bool) -> Result<Option<usize>, FrameError> {
        let position = self.position;
        match self.i32()? {
            -1 if nullable => Ok(None),
            length => length_or_null(length, position).map(Some),
        }
    }

    /// A varint of length + 1; `None` is null.
    fn compact_length(&mut self, nullable: bool) -> Result<Option<usize>, FrameError> {
        let position = self.position;
        match self.varint()? {
            0 if nullable => Ok(None),
            0 => Err(FrameError::NullNotAllowed { position }),
            length => Ok(Some(length as usize - 1)),
        }
    }

    /// An unsigned varint of at most five bytes; bits past the 32nd are dropped, as Kafka and the crate do.
    fn varint(&mut self) -> Result<u32, FrameError> {
        let position = self.position;
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FrameError::VarintTooLong { position })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        match self.bytes[self.position..].first_chunk() {
            Some(chunk) => {
                self.position += N;
                Ok(*chunk)
            }
            None => Err(self.truncated(N)),
        }
    }

    fn skip(&mut self, size: usize) -> Result<(), FrameError> {
        if size > self.remaining() {
            return Err(self.truncated(size));
        }
        self.position += size;
        Ok(())
    }

    fn elements_fit(&self, count: usize, min_size: usize) -> Result<(), FrameError> {
        if count > self.remaining() / min_size {
            return Err(FrameError::TooManyElements {
                position: self.position,
                count,
                remaining: self.remaining(),
            });
        }
        Ok(())
    }

    fn charge(&mut self, count: usize, decoded_size: usize) -> Result<(), FrameError> {
        match count.checked_mul(decoded_size).and_then(|cost| self.decoded_left.checked_sub(cost)) {
            Some(left) => {
                self.decoded_left = left;
                Ok(())
            }
            None => Err(FrameError::DecodedTooLarge {
                position: self.position,
                limit: decoded_size_limit(self.bytes.len()),
            }),
        }
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn truncated(&self, needed: usize) -> FrameError {
        FrameError::Truncated { position: self.position, needed, remaining: self.remaining() }
    }
}

/// A length that is not null: negative ones are refused.
fn length_or_null(length: i32, position: usize) -> Result<usize, FrameError> {
    usize::try_from(length).map_err(|_| FrameError::NullNotAllowed { position })
}
