//! End-to-end, chaos and simulation tests, and what they share.
#![forbid(unsafe_code)]

pub mod fuzz;
