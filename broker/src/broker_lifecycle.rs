//! broker lifecycle.
