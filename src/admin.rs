//! What `migrate` does besides the schema: one-off tasks on one connection (factor XII).

pub mod output;
pub mod reader;
pub mod sample;
pub mod transfer;
