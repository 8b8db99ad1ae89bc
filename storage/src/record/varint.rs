//! Zig-zag varints of a record (`ByteUtils.java`): at most 5 bytes for 32 bits, 10 for 64.

/// Longest varint.
pub(crate) const MAX_I32_BYTES: usize = 5;
/// Longest varlong.
pub(crate) const MAX_I64_BYTES: usize = 10;

/// Reads a zig-zag varint from the front of `bytes`; `None` if it is cut or does not fit 32 bits.
#[inline]
pub(crate) fn read_i32(bytes: &mut &[u8]) -> Option<i32> {
    let raw = u32::try_from(read_raw::<MAX_I32_BYTES>(bytes)?).ok()?;
    Some((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

/// Reads a zig-zag varlong from the front of `bytes`; `None` if it is cut or does not fit 64 bits.
#[inline]
pub(crate) fn read_i64(bytes: &mut &[u8]) -> Option<i64> {
    let raw = read_raw::<MAX_I64_BYTES>(bytes)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

#[inline]
fn read_raw<const MAX: usize>(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for index in 1..MAX {
        let byte = *bytes.get(index)?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has one bit to give.
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Appends a zig-zag varint.
pub(crate) fn write_i32(value: i32, out: &mut Vec<u8>) {
    write_i64(value.into(), out);
}

/// Appends a zig-zag varlong.
pub(crate) fn write_i64(value: i64, out: &mut Vec<u8>) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// How many bytes a varint takes.
pub(crate) fn size_i32(value: i32) -> usize {
    size_i64(value.into())
}

/// How many bytes a varlong takes.
pub(crate) fn size_i64(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (raw | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_numbers_alternate_around_zero() {
        for (value, bytes) in
            [(0, &[0u8][..]), (-1, &[1]), (1, &[2]), (-2, &[3]), (63, &[126]), (64, &[128, 1])]
        {
            let mut out = Vec::new();
            write_i32(value, &mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn cut_and_overlong_numbers_are_refused() {
        assert_eq!(read_i32(&mut &[][..]), None);
        assert_eq!(read_i32(&mut &[0x80][..]), None);
        assert_eq!(read_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]), None, "six bytes");
        assert_eq!(read_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None, "33 bits");
        assert_eq!(read_i64(&mut &[0x80; 11][..]), None);
        let mut too_wide = [0x80; 10];
        too_wide[9] = 2;
        assert_eq!(read_i64(&mut &too_wide[..]), None, "65 bits");
    }

    proptest! {
        #[test]
        fn numbers_read_back_and_have_the_size_said(value in any::<i64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            write_i64(value, &mut out);
            prop_assert_eq!(out.len(), size_i64(value));
            let mut rest = &out[..];
            prop_assert_eq!(read_i64(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
            if let Ok(small) = i32::try_from(value) {
                prop_assert_eq!(out.len(), size_i32(small));
                prop_assert_eq!(read_i32(&mut &out[..]), Some(small));
            } else {
                prop_assert_eq!(read_i32(&mut &out[..]), None);
            }
        }
    }
}
