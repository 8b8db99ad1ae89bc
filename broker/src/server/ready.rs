//! Saying that the broker is ready: one line on stdout, and the ready file (DESIGN §5).

use crate::broker::Broker;
use crate::server::ServeError;
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

#[derive(Serialize)]
struct ReadyFile<'a> {
    node_id: i32,
    cluster_id: String,
    pid: u32,
    ready_ms: u64,
    data_dir: &'a Path,
    listeners: Vec<ReadyListener>,
}

#[derive(Serialize)]
struct ReadyListener {
    name: String,
    host: String,
    port: u16,
}

/// Prints the ready line and renames the ready file into place.
pub(super) fn announce(broker: &Broker, started: Instant) -> Result<(), ServeError> {
    let listeners: Vec<ReadyListener> = broker
        .listeners
        .iter()
        .map(|bound| {
            let told = bound.listener.advertise_here(bound.port);
            ReadyListener { name: bound.listener.name.clone(), host: told.host, port: told.port }
        })
        .collect();
    let ready_ms = started.elapsed().as_millis() as u64;
    let node_id = broker.node_id().value();
    let addresses: Vec<String> = listeners
        .iter()
        .map(|listener| crate::config::Endpoint {
            host: listener.host.clone(),
            port: listener.port,
        })
        .map(|endpoint| endpoint.to_string())
        .collect();
    if let Some(path) = &broker.config().ready_file {
        let content = ReadyFile {
            node_id,
            cluster_id: broker.image().cluster_id().to_string(),
            pid: std::process::id(),
            ready_ms,
            data_dir: broker.data_dir(),
            listeners,
        };
        write_ready_file(path, &content).map_err(|error| {
            ServeError::Configuration(format!("--ready-file {}: {error}", path.display()))
        })?;
    }
    let mut stdout = std::io::stdout().lock();
    // Whoever started us may not read it; that is no reason to stop.
    let _ = writeln!(
        stdout,
        "highwater ready: node {node_id}, {}, {ready_ms} ms",
        addresses.join(", ")
    );
    let _ = stdout.flush();
    Ok(())
}

/// Written beside and renamed, so that a reader sees all of it or nothing.
fn write_ready_file(path: &Path, content: &ReadyFile<'_>) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    std::fs::write(&beside, serde_json::to_vec(content)?)?;
    std::fs::rename(&beside, path)
}
