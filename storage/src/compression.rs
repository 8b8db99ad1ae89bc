//! compression.
