//! instant.
