//! quorum.
