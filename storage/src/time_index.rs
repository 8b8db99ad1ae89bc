//! time index.
