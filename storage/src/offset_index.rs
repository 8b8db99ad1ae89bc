//! offset index.
