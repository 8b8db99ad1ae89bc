//! offset.
