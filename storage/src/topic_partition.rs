//! topic partition.
