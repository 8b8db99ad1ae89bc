//! `meta.properties`: whose directory it is (`MetaProperties.java`), and our format version, without which
//! the directory is not ours.

use crate::topic_partition::TopicId;

/// The format version this build writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_VERSION_KEY: &str = "highwater.format.version";

/// The identity of a log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// `node.id`.
    pub node_id: i32,
    /// `cluster.id`; a node that joins a cluster learns it later, from the metadata log.
    pub cluster_id: Option<String>,
    /// `directory.id`: a UUID drawn when the directory was first used.
    pub directory_id: TopicId,
}

/// Why a `meta.properties` is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaPropertiesError {
    /// It was not written by us.
    #[error("there is no {FORMAT_VERSION_KEY}")]
    NoFormatVersion,
    /// It was written by a later version of us.
    #[error(
        "{FORMAT_VERSION_KEY} is {found}, this version of highwater knows {FORMAT_VERSION}: use a newer one"
    )]
    NewerFormat {
        /// The version.
        found: String,
    },
    /// A value is missing or impossible.
    #[error("{key} is {found:?}")]
    InvalidValue {
        /// Its key.
        key: &'static str,
        /// What stands there, if anything.
        found: Option<String>,
    },
}

impl MetaProperties {
    /// The file's content.
    pub fn to_text(&self) -> String {
        let mut text = format!("#\n{FORMAT_VERSION_KEY}={FORMAT_VERSION}\nversion=1\n");
        if let Some(cluster_id) = &self.cluster_id {
            text += &format!("cluster.id={cluster_id}\n");
        }
        text += &format!("node.id={}\ndirectory.id={}\n", self.node_id, self.directory_id);
        text
    }

    /// Reads the file's content. Keys we do not know are skipped.
    ///
    /// # Errors
    /// See [`MetaPropertiesError`].
    pub fn parse(bytes: &[u8]) -> Result<MetaProperties, MetaPropertiesError> {
        let text = String::from_utf8_lossy(bytes);
        let value = |wanted: &str| {
            text.lines()
                .filter(|line| !line.starts_with(['#', '!']))
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| key.trim() == wanted)
                .map(|(_, value)| value.trim().to_owned())
        };
        let invalid = |key, found| MetaPropertiesError::InvalidValue { key, found };
        let format = value(FORMAT_VERSION_KEY).ok_or(MetaPropertiesError::NoFormatVersion)?;
        match format.parse::<u32>() {
            Ok(0) => return Err(invalid(FORMAT_VERSION_KEY, Some(format))),
            Ok(version) if version <= FORMAT_VERSION => {}
            Ok(_) => return Err(MetaPropertiesError::NewerFormat { found: format }),
            Err(_) => return Err(invalid(FORMAT_VERSION_KEY, Some(format))),
        }
        let version = value("version");
        if version.as_deref() != Some("1") {
            return Err(invalid("version", version));
        }
        let node_id = value("node.id");
        let parsed_node_id = node_id.as_deref().and_then(|id| id.parse().ok());
        let directory_id = value("directory.id");
        let parsed_directory_id = directory_id.as_deref().and_then(|id| id.parse().ok());
        Ok(MetaProperties {
            node_id: parsed_node_id
                .filter(|id| *id >= 0)
                .ok_or_else(|| invalid("node.id", node_id.clone()))?,
            cluster_id: value("cluster.id"),
            directory_id: parsed_directory_id
                .ok_or_else(|| invalid("directory.id", directory_id.clone()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for cluster_id in [None, Some("4L6g3nShT-eMCtK--X86sw".to_owned())] {
            let meta = MetaProperties {
                node_id: 3,
                cluster_id,
                directory_id: TopicId::from_bytes([9; 16]),
            };
            assert_eq!(MetaProperties::parse(meta.to_text().as_bytes()), Ok(meta));
        }
    }

    #[test]
    fn a_newer_format_and_a_directory_of_kafkas_are_told_apart() {
        let newer = "version=1\nhighwater.format.version=2\nnode.id=x";
        let error = MetaProperties::parse(newer.as_bytes()).unwrap_err();
        assert_eq!(error, MetaPropertiesError::NewerFormat { found: "2".into() });
        let kafka = "version=1\nnode.id=1\ncluster.id=x\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ";
        let error = MetaProperties::parse(kafka.as_bytes()).unwrap_err();
        assert_eq!(error, MetaPropertiesError::NoFormatVersion);
        let torn = "version=1\nhighwater.format.version=1\nnode.id=-1";
        let error = MetaProperties::parse(torn.as_bytes()).unwrap_err();
        assert!(matches!(error, MetaPropertiesError::InvalidValue { key: "node.id", .. }));
    }
}
