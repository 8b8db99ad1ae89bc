//! What can go wrong while measuring: said, recorded as a line of the results, and the next row is tried.

use std::io;

/// One row that could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file, a socket or a process of ours.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A broker did not do what was asked.
    #[error("{broker}: {what}")]
    Broker {
        /// Its name.
        broker: &'static str,
        /// What it did or did not do.
        what: String,
    },
    /// The load generator gave up; its own words.
    #[error("load: {0}")]
    Load(String),
    /// The command line or a results file.
    #[error("{0}")]
    Usage(String),
}

/// For `map_err`: what was tried when the error came.
pub fn io_failure(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let what = what.into();
    move |source| Failure::Io { what, source }
}
