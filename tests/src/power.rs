//! Power cuts, for real: the broker's data on an ext4 of its own, which forgets at a random moment what was not synced.
//!
//! [`ext4`] cuts, [`process`] runs the real binary, [`load`] writes and reads, and a [`ledger`] for each partition decides
//! what may be missing afterwards. [`run`] puts them together.

pub mod ext4;
pub mod ledger;
pub mod load;
pub mod process;
pub mod run;
