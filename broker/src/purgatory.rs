//! purgatory.
