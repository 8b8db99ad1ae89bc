//! Sockets.
pub mod frame_check;
