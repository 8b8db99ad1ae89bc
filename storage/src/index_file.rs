//! index file.
