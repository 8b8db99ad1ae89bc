//! How a record is printed. Text that is not UTF-8 passes through a format as it is, and becomes base64 in JSON.

use std::io::{self, Write};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::record::Record;
use serde::Serialize;

/// A record and where it is from.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordLine<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) record: &'a Record,
}

/// A parsed `--format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordFormat(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
}

impl FromStr for RecordFormat {
    type Err = String;

    fn from_str(format: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut text = Vec::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            let piece = match letter {
                '%' => match letters.next() {
                    Some('%') => None,
                    Some('t') => Some(Piece::Topic),
                    Some('p') => Some(Piece::Partition),
                    Some('o') => Some(Piece::Offset),
                    Some('T') => Some(Piece::Timestamp),
                    Some('k') => Some(Piece::Key),
                    Some('v') => Some(Piece::Value),
                    Some('h') => Some(Piece::Headers),
                    Some(other) => return Err(format!("%{other} means nothing")),
                    None => return Err("it ends in %".to_owned()),
                },
                '\\' => {
                    text.push(match letters.next() {
                        Some('n') => b'\n',
                        Some('t') => b'\t',
                        Some('r') => b'\r',
                        Some('0') => 0,
                        Some('\\') => b'\\',
                        Some(other) => return Err(format!("\\{other} means nothing")),
                        None => return Err("it ends in \\".to_owned()),
                    });
                    continue;
                }
                other => {
                    text.extend(other.encode_utf8(&mut [0; 4]).bytes());
                    continue;
                }
            };
            match piece {
                None => text.push(b'%'),
                Some(piece) => {
                    pieces
                        .extend((!text.is_empty()).then(|| Piece::Text(std::mem::take(&mut text))));
                    pieces.push(piece);
                }
            }
        }
        pieces.extend((!text.is_empty()).then_some(Piece::Text(text)));
        Ok(RecordFormat(pieces))
    }
}

impl RecordFormat {
    pub(super) fn write(&self, line: &RecordLine<'_>, out: &mut impl Write) -> io::Result<()> {
        let record = line.record;
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Topic => out.write_all(line.topic.as_bytes())?,
                Piece::Partition => write!(out, "{}", line.partition)?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Timestamp => write!(out, "{}", record.timestamp.unwrap_or(-1))?,
                Piece::Key => out.write_all(record.key.as_deref().unwrap_or_default())?,
                Piece::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
                Piece::Headers => {
                    for (header, index) in record.headers.iter().zip(0..) {
                        out.write_all(if index > 0 { b"," } else { b"" })?;
                        out.write_all(&header.key)?;
                        out.write_all(b"=")?;
                        out.write_all(header.value.as_deref().unwrap_or_default())?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct RecordJson<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    #[serde(flatten)]
    key: KeyJson<'a>,
    #[serde(flatten)]
    value: ValueJson<'a>,
    headers: Vec<HeaderJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum KeyJson<'a> {
    Key(Option<&'a str>),
    KeyBase64(String),
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ValueJson<'a> {
    Value(Option<&'a str>),
    ValueBase64(String),
}

#[derive(Serialize)]
struct HeaderJson {
    key: String,
    #[serde(flatten)]
    value: HeaderValueJson,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum HeaderValueJson {
    Value(Option<String>),
    ValueBase64(String),
}

impl RecordLine<'_> {
    /// One object on one line.
    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let record = self.record;
        let json = RecordJson {
            topic: self.topic,
            partition: self.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: match record.key.as_deref().map(text).transpose() {
                Ok(key) => KeyJson::Key(key),
                Err(base64) => KeyJson::KeyBase64(base64),
            },
            value: match record.value.as_deref().map(text).transpose() {
                Ok(value) => ValueJson::Value(value),
                Err(base64) => ValueJson::ValueBase64(base64),
            },
            headers: record
                .headers
                .iter()
                .map(|header| HeaderJson {
                    key: String::from_utf8_lossy(&header.key).into_owned(),
                    value: match header.value.as_deref().map(text).transpose() {
                        Ok(value) => HeaderValueJson::Value(value.map(str::to_owned)),
                        Err(base64) => HeaderValueJson::ValueBase64(base64),
                    },
                })
                .collect(),
        };
        serde_json::to_writer(&mut *out, &json)?;
        out.write_all(b"\n")
    }
}

/// Text, or base64 of what is none.
fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn record(value: Option<&'static [u8]>) -> Record {
        Record {
            offset: 7,
            timestamp: Some(5),
            key: Some(Bytes::from_static(b"k")),
            value: value.map(Bytes::from_static),
            headers: Default::default(),
        }
    }

    fn printed(
        write: impl Fn(&RecordLine<'_>, &mut Vec<u8>) -> io::Result<()>,
        record: &Record,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        write(&RecordLine { topic: "t", partition: 3, record }, &mut out).unwrap();
        out
    }

    #[test]
    fn a_format_names_every_part_of_a_record() {
        let format: RecordFormat = r"%t-%p@%o %T %k=%v%%\n".parse().unwrap();
        let out = printed(|line, out| format.write(line, out), &record(Some(b"v\xff")));
        assert_eq!(out, b"t-3@7 5 k=v\xff%\n");
    }

    #[test]
    fn a_format_that_means_nothing_is_refused() {
        for bad in ["%", "%x", r"\", r"\q"] {
            assert!(bad.parse::<RecordFormat>().is_err(), "{bad}");
        }
    }

    #[test]
    fn json_tells_null_from_empty_and_text_from_bytes() {
        let json = |value| {
            String::from_utf8(printed(|line, out| line.write_json(out), &record(value))).unwrap()
        };
        let head = r#"{"topic":"t","partition":3,"offset":7,"timestamp":5,"key":"k","#;
        assert_eq!(json(None), format!("{head}\"value\":null,\"headers\":[]}}\n"));
        assert_eq!(json(Some(b"")), format!("{head}\"value\":\"\",\"headers\":[]}}\n"));
        assert_eq!(
            json(Some(b"\xff")),
            format!("{head}\"value_base64\":\"/w==\",\"headers\":[]}}\n")
        );
    }
}
