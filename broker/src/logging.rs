//! Logs: by `tracing`, to stderr. `HIGHWATER_LOG` or else `RUST_LOG` filters them (`debug`,
//! `broker::network=trace,info`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
pub use tracing_subscriber::filter::LevelFilter;

/// Begins to log, `level` and above where no variable says otherwise. To be called once, before anything that
/// logs.
///
/// # Errors
/// A filter that cannot be read: which variable, and why.
pub fn init(level: LevelFilter) -> Result<(), String> {
    let filter = ["HIGHWATER_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| Some((name, std::env::var(name).ok().filter(|text| !text.is_empty())?)));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match filter {
        // A plain level is cheaper than a filter, at every event and at the start.
        None => subscriber.with_max_level(level).init(),
        Some((name, text)) => {
            let filter = EnvFilter::try_new(&text)
                .map_err(|error| format!("environment variable {name}={text}: {error}"))?;
            subscriber.with_env_filter(filter).init();
        }
    }
    Ok(())
}
