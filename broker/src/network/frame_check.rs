//! frame check.
