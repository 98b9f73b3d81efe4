//! The migrations that are a part of this binary. `build.rs` finds them in their folder.

/// One migration of one engine, as `build.rs` found it.
pub(in crate::db) struct Files {
    pub(super) version: i64,
    pub(super) name: &'static str,
    pub(super) up: Script,
    pub(super) down: Script,
}

/// The content of a file.
pub(super) struct Script {
    pub(super) sql: &'static str,
    /// Whether its first line is `-- no transaction`.
    pub(super) no_transaction: bool,
}

// A constant for each folder in `migrations/`.
include!(concat!(env!("OUT_DIR"), "/migrations.rs"));
