//! Requests and responses made up from the schema: what the property tests and the frame fuzzer start from.

use super::{Op, Shape, api};

/// Draws the next 64 random bits.
pub type Entropy<'a> = dyn FnMut() -> u64 + 'a;

/// The body of a legal request, or `None` if the version has no schema. Small: strings of at most 12 bytes, arrays of at most
/// 3 elements, unknown tagged fields now and then.
pub fn request_body(api_key: i16, api_version: i16, entropy: &mut Entropy<'_>) -> Option<Vec<u8>> {
    let api = api(api_key)?;
    let mut out = Vec::new();
    put_shape(&mut out, api.body(api.requests, api_version)?, entropy);
    Some(out)
}

/// The body of a legal response, likewise.
pub fn response_body(api_key: i16, api_version: i16, entropy: &mut Entropy<'_>) -> Option<Vec<u8>> {
    let api = api(api_key)?;
    let mut out = Vec::new();
    put_shape(&mut out, api.body(api.responses, api_version)?, entropy);
    Some(out)
}

/// A whole frame without its size: header and body.
pub fn request_frame(api_key: i16, api_version: i16, entropy: &mut Entropy<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    out.extend(api_key.to_be_bytes());
    out.extend(api_version.to_be_bytes());
    out.extend((entropy() as i32).to_be_bytes());
    put_op(&mut out, &Op::NullableString, entropy);
    if api_version >= api(api_key)?.flexible_from {
        put_op(&mut out, &Op::Tags(&[]), entropy);
    }
    out.extend(request_body(api_key, api_version, entropy)?);
    Some(out)
}

/// Every (api key, version) with a schema, ascending.
pub fn all_versions() -> impl Iterator<Item = (i16, i16)> {
    (0..i16::MAX)
        .map_while(|key| (usize::from(key.unsigned_abs()) < super::APIS.len()).then_some(key))
        .filter_map(|key| api(key).map(|api| (key, api)))
        .flat_map(|(key, api)| (api.min_version..=api.max_version).map(move |v| (key, v)))
}

fn put_shape(out: &mut Vec<u8>, shape: &Shape, entropy: &mut Entropy<'_>) {
    for op in shape.ops {
        put_op(out, op, entropy);
    }
}

fn put_op(out: &mut Vec<u8>, op: &Op, entropy: &mut Entropy<'_>) {
    let null = entropy().is_multiple_of(4);
    match op {
        Op::Fixed(size) => out.extend((0..*size).map(|_| entropy() as u8)),
        Op::NullableString if null => out.extend([0xff; 2]),
        Op::NullableBytes | Op::NullableArray(_) if null => out.extend([0xff; 4]),
        Op::CompactNullableString | Op::CompactNullableBytes | Op::CompactNullableArray(_)
            if null =>
        {
            out.push(0);
        }
        Op::NullableStruct(_) if null => out.push(0xff),
        Op::String | Op::NullableString => {
            let text = text(entropy);
            out.extend((text.len() as i16).to_be_bytes());
            out.extend(text.as_bytes());
        }
        Op::CompactString | Op::CompactNullableString => {
            let text = text(entropy);
            put_varint(out, text.len() as u32 + 1);
            out.extend(text.as_bytes());
        }
        Op::Bytes | Op::NullableBytes => {
            let block = block(entropy);
            out.extend((block.len() as i32).to_be_bytes());
            out.extend(block);
        }
        Op::CompactBytes | Op::CompactNullableBytes => {
            let block = block(entropy);
            put_varint(out, block.len() as u32 + 1);
            out.extend(block);
        }
        Op::Array(element) | Op::NullableArray(element) => {
            let count = entropy() % 4;
            out.extend((count as i32).to_be_bytes());
            (0..count).for_each(|_| put_shape(out, element, entropy));
        }
        Op::CompactArray(element) | Op::CompactNullableArray(element) => {
            let count = entropy() % 4;
            put_varint(out, count as u32 + 1);
            (0..count).for_each(|_| put_shape(out, element, entropy));
        }
        Op::NullableStruct(inner) => {
            out.push(1);
            put_shape(out, inner, entropy);
        }
        Op::Tags(known) => put_tags(out, known, entropy),
    }
}

fn put_tags(out: &mut Vec<u8>, known: &[(u32, Option<&'static Shape>)], entropy: &mut Entropy<'_>) {
    let mut tags: Vec<(u32, Vec<u8>)> = Vec::new();
    for (tag, shape) in known {
        if let Some(shape) = shape
            && entropy().is_multiple_of(2)
        {
            let mut content = Vec::new();
            put_shape(&mut content, shape, entropy);
            tags.push((*tag, content));
        }
    }
    if entropy().is_multiple_of(8) {
        tags.push((1000 + (entropy() % 100_000) as u32, block(entropy)));
    }
    put_varint(out, tags.len() as u32);
    for (tag, content) in tags {
        put_varint(out, tag);
        put_varint(out, content.len() as u32);
        out.extend(content);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(entropy: &mut Entropy<'_>) -> String {
    (0..entropy() % 7).map(|_| ['a', 'B', '-', '.', '7', 'é'][(entropy() % 6) as usize]).collect()
}

fn block(entropy: &mut Entropy<'_>) -> Vec<u8> {
    (0..entropy() % 300).map(|_| entropy() as u8).collect()
}
