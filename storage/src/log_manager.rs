//! log manager.
