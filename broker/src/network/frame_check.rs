//! The gate in front of every decoder: no request reaches one before its counts and lengths were checked (DESIGN D9).
//! It lives in the client crate, because what a broker answers needs the same gate there.

pub use client::frame_check::*;
