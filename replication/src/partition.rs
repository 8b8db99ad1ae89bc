//! One partition on one broker: leader or follower, in-sync replicas, high watermark, acknowledgement,
//! truncation (kafka-facts 5; DESIGN flows 1 and 3). Pure: the shell owns log, lock, sockets and clock.
//!
//! The shell holds a [`leader::Leader`] or a [`follower::Follower`] under the partition's short lock, beside
//! its log, and replaces it when the metadata names another leader epoch.

pub mod acks;
pub mod epoch_truncation;
pub mod follower;
pub mod high_watermark;
pub mod isr;
pub mod leader;
#[cfg(test)]
mod simulation;
