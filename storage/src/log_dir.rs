//! log dir.
