//! replica manager.
