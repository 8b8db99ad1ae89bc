//! log validator.
