//! Sockets: listeners accept, connections read frames and write answers in order.
//!
//! ```text
//! listener ──▶ connection ──▶ frame ──▶ frame_check ──▶ api::dispatch ──▶ response
//! ```

pub mod connection;
pub mod frame;
pub mod frame_check;
pub mod listener;
pub mod response;
mod response_writer;
