//! Who a node is inside the metadata quorum: its node id *and* its disk.
//!
//! A Raft peer that forgets its vote or its log is not the same peer any more, so an identity must not
//! outlive its disk (DESIGN D2). The Raft id therefore carries a hash of the directory id, which is drawn
//! once when a log directory is formatted.

use std::fmt;

/// Identity of one log directory, drawn at random when it is formatted (`directory.id` in `meta.properties`).
pub type DirectoryIdBytes = [u8; 16];

/// A peer of the Raft group: `(node.id + 1) << 32 | CRC-32C of the directory id`. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftId(u64);

impl RaftId {
    /// The id of node `node_id` on the directory `directory_id`. `None` for a negative node id.
    pub fn new(node_id: i32, directory_id: &DirectoryIdBytes) -> Option<RaftId> {
        let node_id = u64::try_from(node_id).ok()?;
        let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, directory_id);
        Some(RaftId((node_id + 1) << 32 | (hash & 0xffff_ffff)))
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
    pub fn node_id(self) -> i32 {
        i32::try_from((self.0 >> 32) - 1).expect("both constructors bound the upper half")
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

    #[test]
    fn the_same_node_on_another_directory_is_another_peer() {
        let first = RaftId::new(3, &[1; 16]).expect("node ids start at 0");
        let second = RaftId::new(3, &[2; 16]).expect("node ids start at 0");
        assert_ne!(first, second);
        assert_eq!((first.node_id(), second.node_id()), (3, 3));
    }

    #[test]
    fn ids_are_fixed_for_good_because_disks_carry_them() {
        assert_eq!(RaftId::new(0, &[0; 16]).expect("valid").value(), 0x0000_0001_4270_9aea);
        assert_eq!(RaftId::new(i32::MAX, &[7; 16]).expect("valid").value() >> 32, 1 << 31);
        assert_eq!(RaftId::new(-1, &[0; 16]), None);
    }

    #[test]
    fn a_number_that_names_no_node_is_refused() {
        for value in [0, 1, u64::from(u32::MAX), u64::MAX, ((1 << 31) + 1) << 32] {
            assert_eq!(RaftId::from_value(value), None, "{value:#x}");
        }
        let id = RaftId::new(7, &[9; 16]).expect("valid");
        assert_eq!(RaftId::from_value(id.value()), Some(id));
    }
}
