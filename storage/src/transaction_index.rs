//! transaction index.
