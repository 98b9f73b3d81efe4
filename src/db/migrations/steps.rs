//! The migrations that are part of this binary. `build.rs` finds them in their folder.

use sqlx::SqlStr;
use sqlx::migrate::{Migration, MigrationType};

use super::engine::EngineMigrations;
use crate::db::engine::on_engine;
use crate::db::session::Session;

/// One migration of one engine, as `build.rs` found it.
pub(in crate::db) struct Files {
    version: i64,
    name: &'static str,
    up: Script,
    down: Script,
}

/// The content of a file.
struct Script {
    sql: &'static str,
    /// Whether its first line is `-- no transaction`.
    no_transaction: bool,
}

// A constant for each folder in `migrations/`.
include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// A migration: what it executes in both directions.
pub(super) struct Step {
    pub(super) version: i64,
    pub(super) name: &'static str,
    pub(super) up: Migration,
    pub(super) down: Migration,
}

impl From<&Files> for Step {
    fn from(&Files { version, name, ref up, ref down }: &Files) -> Self {
        let migration = |kind, script: &Script| {
            Migration::new(version, name.into(), kind, SqlStr::from_static(script.sql), script.no_transaction)
        };
        Self {
            version,
            name,
            up: migration(MigrationType::ReversibleUp, up),
            down: migration(MigrationType::ReversibleDown, down),
        }
    }
}

/// The migrations of the session's engine, in order.
pub(super) fn steps(session: &Session) -> Vec<Step> {
    fn files<C: EngineMigrations>(_: &C) -> &'static [Files] {
        C::FILES
    }
    on_engine!(Session, session, conn => files(conn)).iter().map(Step::from).collect()
}
