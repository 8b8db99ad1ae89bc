//! The broker from its start to its stop.

use std::future::Future;

use crate::config::BrokerConfig;

/// Why a broker does not start, or stops by itself. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration, the command line or what it points to: a taken port, a directory that is not ours.
    #[error("{0}")]
    Configuration(String),
    /// The cluster does not let this process in: fenced, or its id is taken.
    #[error("{0}")]
    Fenced(String),
    /// The disk failed, or says that it did.
    #[error("{0}")]
    Disk(String),
}

impl ServeError {
    /// The exit code: 2, 3 and 4 in this order.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServeError::Configuration(_) => 2,
            ServeError::Fenced(_) => 3,
            ServeError::Disk(_) => 4,
        }
    }
}

/// Runs a broker until `shutdown` resolves and everything is flushed and closed.
///
/// # Errors
/// What keeps it from starting, or stopped it.
pub async fn run(
    config: BrokerConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    drop(shutdown);
    Err(ServeError::Configuration(format!(
        "{}: this build has no server yet",
        config.data_dir.display()
    )))
}
