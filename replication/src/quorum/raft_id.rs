//! Who a node is inside the metadata quorum: its node id *and* its disk.
//!
//! A Raft peer that forgets its vote or its log is not the same peer any more, so an identity must not
//! outlive its disk (DESIGN D2). The Raft id therefore carries a hash of the directory id, which is drawn
//! once when a log directory is formatted.

use std::fmt;

use crate::identity::{BrokerId, DirectoryId};

/// A peer of the Raft group: `(node.id + 1) << 32 | CRC-32C of the directory id`. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftId(u64);

impl RaftId {
    /// The id of node `node_id` on the directory `directory_id`.
    pub fn new(node_id: BrokerId, directory_id: &DirectoryId) -> RaftId {
        let node_id = u64::from(node_id.value().cast_unsigned()); // never negative
        let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, directory_id.as_bytes());
        RaftId(((node_id + 1) << 32) | (hash & 0xffff_ffff))
    }

    /// Takes back what [`RaftId::value`] gave. `None` when no node has this id.
    pub fn from_value(value: u64) -> Option<RaftId> {
        let node_id_plus_one = value >> 32;
        (1..=1 << 31).contains(&node_id_plus_one).then_some(RaftId(value))
    }

    /// The number that Raft, its log and its snapshots carry.
    pub fn value(self) -> u64 {
        self.0
    }

    /// The `node.id` inside.
    pub fn node_id(self) -> BrokerId {
        let node_id = i32::try_from((self.0 >> 32) - 1).ok().and_then(BrokerId::new);
        node_id.expect("both constructors bound the upper half")
    }
}

impl fmt::Display for RaftId {
    /// `node 1 (directory hash 1a2b3c4d)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} (directory hash {:08x})", self.node_id(), self.0 as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raft_id(node_id: i32, directory: u8) -> RaftId {
        RaftId::new(BrokerId::new(node_id).unwrap(), &DirectoryId::from_bytes([directory; 16]))
    }

    #[test]
    fn the_same_node_on_another_directory_is_another_peer() {
        assert_ne!(raft_id(3, 1), raft_id(3, 2));
        assert_eq!(raft_id(3, 1).node_id(), raft_id(3, 2).node_id());
        assert_eq!(raft_id(3, 1).node_id().value(), 3);
    }

    #[test]
    fn ids_are_fixed_for_good_because_disks_carry_them() {
        assert_eq!(raft_id(0, 0).value(), 0x0000_0001_4270_9aea);
        assert_eq!(raft_id(i32::MAX, 7).value() >> 32, 1 << 31);
        assert_eq!(raft_id(i32::MAX, 7).node_id().value(), i32::MAX);
    }

    #[test]
    fn a_number_that_names_no_node_is_refused() {
        for value in [0, 1, u64::from(u32::MAX), u64::MAX, ((1 << 31) + 1) << 32] {
            assert_eq!(RaftId::from_value(value), None, "{value:#x}");
        }
        assert_eq!(RaftId::from_value(raft_id(7, 9).value()), Some(raft_id(7, 9)));
    }
}
