//! handlers.
