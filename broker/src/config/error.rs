//! Why the broker does not start: every error names the key, the value and what is allowed. All end with exit 2.

use std::path::PathBuf;

use super::value::InvalidValue;

/// An error in the command line, the environment or the configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that is not of its type or not allowed.
    #[error("{origin}: {invalid}")]
    InvalidValue {
        /// What is wrong with it.
        invalid: InvalidValue,
        /// Where it was given.
        origin: Origin,
    },
    /// A value that fits its type and makes no sense with the others.
    #[error("{key}={value}: {reason}")]
    Conflict {
        /// The configuration's name.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// A setting whose feature is not there.
    #[error("{key}={value}: {feature} is not in this version of highwater; {remedy}")]
    Unsupported {
        /// The configuration's name.
        key: String,
        /// Its value.
        value: String,
        /// What is absent.
        feature: String,
        /// What to do instead.
        remedy: String,
    },
    /// A flag that is not of the form it should be.
    #[error("{flag} {value}: {reason}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path:?}: {source}")]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration file is not in Java's properties format.
    #[error("{path:?} is not a properties file: {reason}")]
    ParseFile {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This flag.
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag(flag) => write!(f, "{flag}"),
        }
    }
}
