//! Sockets: listeners accept, connections read frames and write answers in order.
//!
//! ```text
//! listener ──▶ connection ──▶ frame ──▶ frame_check ──▶ api::dispatch ──▶ response ──▶ outgoing
//! ```

mod buffer_pool;
pub mod connection;
pub mod frame;
pub mod frame_check;
pub mod listener;
mod log_limit;
mod memory_account;
pub mod memory_budget;
mod outgoing;
pub mod response;
