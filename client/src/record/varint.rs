//! Zig-zag varints, as records use them.

use bytes::{Buf, Bytes};

use super::RecordError;

/// Appends a value; 32-bit varints are the same bytes as 64-bit ones.
pub(super) fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that [`put`] takes.
pub(super) fn size(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

/// A 64-bit value of at most ten bytes.
pub(super) fn get(bytes: &mut Bytes) -> Result<i64, RecordError> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index as u32);
        if byte & 0x80 == 0 {
            bytes.advance(index + 1);
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(RecordError::RecordInvalid { reason: "a varint does not end" })
}

/// A 32-bit value.
pub(super) fn get_i32(bytes: &mut Bytes) -> Result<i32, RecordError> {
    i32::try_from(get(bytes)?)
        .map_err(|_| RecordError::RecordInvalid { reason: "a varint exceeds 32 bits" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_comes_back_and_takes_the_size_it_said(value in any::<i64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), size(value));
            let mut bytes = Bytes::from(out);
            prop_assert_eq!(get(&mut bytes), Ok(value));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let _ = get(&mut Bytes::from(bytes));
        }
    }

    #[test]
    fn zigzag_bytes_are_kafkas() {
        let encoded = |value| {
            let mut out = Vec::new();
            put(&mut out, value);
            out
        };
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(-1), [1]);
        assert_eq!(encoded(1), [2]);
        assert_eq!(encoded(-64), [0x7f]);
        assert_eq!(encoded(64), [0x80, 1]);
    }
}
