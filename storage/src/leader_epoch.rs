//! leader epoch.
