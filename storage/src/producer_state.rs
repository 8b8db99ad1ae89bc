//! producer state.
