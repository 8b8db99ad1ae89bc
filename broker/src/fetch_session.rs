//! fetch session.
