//! record batch.
