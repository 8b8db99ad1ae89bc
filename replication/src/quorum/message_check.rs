//! What a peer's message must be like before `raft` sees it.
//!
//! `raft` trusts its peers: a message that contradicts what it holds for committed panics it. Nothing a peer sends may do
//! that (DESIGN D9), so every such contradiction is refused here.

use raft::eraftpb::{EntryType, MessageType};
use raft::{RawNode, StateRole};

use super::codec::{MAX_ENTRY_DATA_BYTES, QuorumDecodeError, QuorumSnapshot};
use super::log_view::{LogView, conf_state};
use super::{RaftId, RaftMessage};

/// Why a peer's message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// For somebody else, or from nobody.
    #[error("a message from {from:#x} to {to:#x} reached {id}")]
    Misrouted {
        /// The sender it names.
        from: u64,
        /// The receiver it names.
        to: u64,
        /// Who got it.
        id: RaftId,
    },
    /// A kind that peers do not send each other: proposals are never forwarded, and Raft's local events stay local.
    #[error("a peer sent a message of the kind {0}")]
    Kind(&'static str),
    /// It contradicts what is committed here, or itself.
    #[error("a peer's message is not possible: {0}")]
    Impossible(&'static str),
    /// Its snapshot cannot be read.
    #[error("a peer's snapshot cannot be read: {0}")]
    Snapshot(#[from] QuorumDecodeError),
}

pub(super) fn check(
    node: &RawNode<LogView>,
    id: RaftId,
    message: &RaftMessage,
) -> Result<(), MessageError> {
    if message.to != id.value()
        || message.from == id.value()
        || RaftId::from_value(message.from).is_none()
    {
        return Err(MessageError::Misrouted { from: message.from, to: message.to, id });
    }
    if message.term == 0 {
        return Err(MessageError::Impossible("term 0 marks a node's own events"));
    }
    let log = &node.raft.raft_log;
    let is_stale = message.term < node.raft.term; // may contradict what was decided since; Raft drops it
    match message.get_msg_type() {
        MessageType::MsgAppend
        | MessageType::MsgHeartbeat
        | MessageType::MsgSnapshot
        | MessageType::MsgAppendResponse
            if is_stale =>
        {
            Ok(())
        }
        MessageType::MsgAppend => check_append(node, message),
        MessageType::MsgHeartbeat if message.commit > log.last_index() => {
            Err(MessageError::Impossible("a heartbeat commits what was never sent"))
        }
        MessageType::MsgHeartbeat => not_from_a_second_leader(node, message),
        MessageType::MsgSnapshot => check_snapshot(node, message),
        // A leader that crashed sent more than it holds now, but it does not lead that term again.
        MessageType::MsgAppendResponse
            if node.raft.state == StateRole::Leader
                && message.term == node.raft.term
                && message.index > log.last_index() =>
        {
            Err(MessageError::Impossible("a follower holds more than the leader sent"))
        }
        MessageType::MsgAppendResponse => Ok(()),
        MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow => Ok(()),
        MessageType::MsgPropose => Err(MessageError::Kind("proposal")),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            Err(MessageError::Kind("read index"))
        }
        MessageType::MsgTransferLeader => Err(MessageError::Kind("leader transfer")),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => Err(MessageError::Kind("local event")),
    }
}

fn not_from_a_second_leader(
    node: &RawNode<LogView>,
    message: &RaftMessage,
) -> Result<(), MessageError> {
    match node.raft.state == StateRole::Leader && message.term == node.raft.term {
        true => Err(MessageError::Impossible("a second leader in one term")),
        false => Ok(()),
    }
}

fn check_append(node: &RawNode<LogView>, message: &RaftMessage) -> Result<(), MessageError> {
    not_from_a_second_leader(node, message)?;
    let log = &node.raft.raft_log;
    let mut index = message.index;
    let mut term = message.log_term;
    if index == 0 || term == 0 {
        return Err(MessageError::Impossible(
            "an append at the log's very beginning, where the bootstrap snapshot stands",
        ));
    }
    if index <= log.committed && index >= log.first_index() - 1 && !log.match_term(index, term) {
        return Err(MessageError::Impossible(
            "an append behind an entry that is not the committed one",
        ));
    }
    for entry in message.get_entries() {
        let follows = index.checked_add(1) == Some(entry.index)
            && entry.term >= term
            && entry.term <= message.term;
        if !follows {
            return Err(MessageError::Impossible(
                "an append whose entries do not follow each other",
            ));
        }
        (index, term) = (entry.index, entry.term);
        if entry.get_entry_type() != EntryType::EntryNormal {
            return Err(MessageError::Impossible("an entry of a type that is unknown here"));
        }
        if entry.data.len() > MAX_ENTRY_DATA_BYTES {
            return Err(MessageError::Impossible("an entry that is too large to store"));
        }
        if index <= log.committed && index >= log.first_index() && !log.match_term(index, term) {
            return Err(MessageError::Impossible("an append that replaces a committed entry"));
        }
    }
    Ok(())
}

fn check_snapshot(node: &RawNode<LogView>, message: &RaftMessage) -> Result<(), MessageError> {
    not_from_a_second_leader(node, message)?;
    let metadata = message.get_snapshot().get_metadata();
    let snapshot = QuorumSnapshot::decode_contiguous(&message.get_snapshot().data)?;
    let agrees = snapshot.index == metadata.index
        && snapshot.term == metadata.term
        && snapshot.term <= message.term
        && conf_state(&snapshot.members) == *metadata.get_conf_state();
    if !agrees {
        return Err(MessageError::Impossible("a snapshot that is not what its message says"));
    }
    if snapshot.cluster_id != *node.store().cluster_id() {
        return Err(MessageError::Impossible("a snapshot of another cluster"));
    }
    Ok(())
}
