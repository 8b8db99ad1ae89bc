//! Seeded mutational fuzzing: made-up legal input, damaged, thrown at what must survive it. One seed is one run.
pub mod broker;
pub mod frames;
pub mod log_dir;
