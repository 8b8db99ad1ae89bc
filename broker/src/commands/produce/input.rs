//! Lines to records. Pure.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::ValueEnum;
use client::producer::ProducerRecord;
use client::record::Header;
use serde::Deserialize;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum InputFormat {
    /// A value, or with --key-separator a key and a value
    Lines,
    /// An object as `highwater consume --json` prints it; key, value, headers, timestamp and partition count
    Json,
}

/// Makes records out of lines.
#[derive(Clone, Debug)]
pub(super) struct LineParser {
    pub(super) format: InputFormat,
    pub(super) topic: Arc<str>,
    pub(super) partition: Option<i32>,
    pub(super) key_separator: Option<Vec<u8>>,
    /// Of every record, before its own.
    pub(super) headers: Vec<Header>,
}

/// Fields that are not text are base64 under another name. Unknown fields, such as an offset, are of no matter.
#[derive(Deserialize)]
struct JsonRecord {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<JsonHeader>,
    timestamp: Option<i64>,
    partition: Option<i32>,
}

#[derive(Deserialize)]
struct JsonHeader {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
}

impl LineParser {
    /// # Errors
    /// Why the line is no record.
    pub(super) fn parse(&self, line: &[u8]) -> Result<ProducerRecord, String> {
        match self.format {
            InputFormat::Lines => self.parse_text(line),
            InputFormat::Json => self.parse_json(line),
        }
    }

    fn parse_text(&self, line: &[u8]) -> Result<ProducerRecord, String> {
        let (key, value) = match &self.key_separator {
            None => (None, line),
            Some(separator) => {
                let at = line
                    .windows(separator.len().max(1))
                    .position(|window| window == separator)
                    .ok_or_else(|| format!("no {:?} in it", String::from_utf8_lossy(separator)))?;
                (Some(Bytes::copy_from_slice(&line[..at])), &line[at + separator.len()..])
            }
        };
        Ok(ProducerRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            key,
            value: Some(Bytes::copy_from_slice(value)),
            headers: self.headers.clone(),
            timestamp: None,
        })
    }

    fn parse_json(&self, line: &[u8]) -> Result<ProducerRecord, String> {
        let record: JsonRecord = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let mut headers = self.headers.clone();
        for header in record.headers {
            let value = field("header", header.value, header.value_base64)?;
            headers.push(Header { key: header.key.into(), value });
        }
        Ok(ProducerRecord {
            topic: self.topic.clone(),
            partition: self.partition.or(record.partition),
            key: field("key", record.key, record.key_base64)?,
            value: field("value", record.value, record.value_base64)?,
            headers,
            timestamp: record.timestamp,
        })
    }
}

fn field(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("{name} is given twice")),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => STANDARD
            .decode(base64)
            .map(|bytes| Some(bytes.into()))
            .map_err(|e| format!("{name}_base64: {e}")),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser(format: InputFormat, key_separator: Option<&str>) -> LineParser {
        let key_separator = key_separator.map(|s| s.as_bytes().to_vec());
        LineParser {
            format,
            topic: "t".into(),
            partition: None,
            key_separator,
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_line_is_a_value_and_splits_at_the_first_separator() {
        let record = parser(InputFormat::Lines, None).parse(b"a:b\xff").unwrap();
        assert_eq!((record.key, record.value.as_deref()), (None, Some(&b"a:b\xff"[..])));
        let record = parser(InputFormat::Lines, Some("::")).parse(b"k::v::w").unwrap();
        assert_eq!(
            (record.key.as_deref(), record.value.as_deref()),
            (Some(&b"k"[..]), Some(&b"v::w"[..]))
        );
        assert!(parser(InputFormat::Lines, Some("::")).parse(b"k:v").unwrap_err().contains("::"));
    }

    #[test]
    fn a_json_line_has_nulls_bytes_headers_and_a_timestamp() {
        let line = br#"{"key":null,"value_base64":"/w==","headers":[{"key":"h","value":null},{"key":"h","value":"x"}],
            "timestamp":5,"partition":2,"offset":9}"#;
        let record = parser(InputFormat::Json, None).parse(line).unwrap();
        assert_eq!((record.key, record.value.as_deref()), (None, Some(&b"\xff"[..])));
        assert_eq!(record.headers.len(), 2);
        assert_eq!((record.timestamp, record.partition), (Some(5), Some(2)));
    }

    #[test]
    fn a_field_given_as_text_and_as_bytes_is_refused() {
        let line = br#"{"value":"a","value_base64":"YQ=="}"#;
        assert_eq!(
            parser(InputFormat::Json, None).parse(line).unwrap_err(),
            "value is given twice"
        );
    }
}
