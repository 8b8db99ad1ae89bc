//! End-to-end, chaos and simulation tests, and what they share.
// One ioctl: `power/ext4.rs`.
#![deny(unsafe_code)]

pub mod fuzz;
pub mod power;
pub mod simulator;
