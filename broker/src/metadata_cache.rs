//! metadata cache.
