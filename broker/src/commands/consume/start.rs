//! Where a reader begins.

use std::str::FromStr;

use client::ClientError;
use client::admin::{Admin, IsolationLevel, OffsetSpec};

/// As written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Beginning,
    End,
    /// The same in every partition.
    Offset(i64),
    /// So many before the end of each partition.
    Last(i64),
    /// Milliseconds since 1970.
    Timestamp(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse::<i64>().ok().filter(|number| *number >= 0);
        let start = match text {
            "beginning" => Some(Start::Beginning),
            "end" => Some(Start::End),
            _ => match (text.strip_prefix('@'), text.strip_prefix('-')) {
                (Some(millis), _) => number(millis).map(Start::Timestamp),
                (None, Some(count)) => number(count).map(Start::Last),
                (None, None) => number(text).map(Start::Offset),
            },
        };
        start.ok_or_else(|| "write beginning, end, an OFFSET, -N or @MILLIS".to_owned())
    }
}

impl Start {
    /// The offset in one partition.
    pub(super) async fn offset(
        self,
        admin: &Admin,
        topic: &str,
        partition: i32,
        isolation: IsolationLevel,
    ) -> Result<i64, ClientError> {
        let list = async |spec| {
            let listed = admin.list_offset(topic, partition, spec, isolation).await?;
            Ok::<_, ClientError>(listed.map(|listed| listed.offset))
        };
        let latest = async || Ok::<_, ClientError>(list(OffsetSpec::Latest).await?.unwrap_or(0));
        let earliest =
            async || Ok::<_, ClientError>(list(OffsetSpec::Earliest).await?.unwrap_or(0));
        match self {
            Start::Beginning => earliest().await,
            Start::End => latest().await,
            Start::Offset(offset) => Ok(offset),
            Start::Last(count) => Ok((latest().await? - count).max(earliest().await?)),
            Start::Timestamp(timestamp) => match list(OffsetSpec::Timestamp(timestamp)).await? {
                Some(offset) => Ok(offset),
                None => latest().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_words_offsets_counts_and_times() {
        let parsed =
            ["beginning", "end", "7", "-7", "@7"].map(|text| text.parse::<Start>().unwrap());
        let expected =
            [Start::Beginning, Start::End, Start::Offset(7), Start::Last(7), Start::Timestamp(7)];
        assert_eq!(parsed, expected);
        for bad in ["", "start", "--7", "@", "@-1", "7x"] {
            assert!(bad.parse::<Start>().is_err(), "{bad}");
        }
    }
}
