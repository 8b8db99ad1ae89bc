//! log store.
