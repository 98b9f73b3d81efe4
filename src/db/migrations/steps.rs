//! The migrations as they are executed.

use sqlx::SqlStr;
use sqlx::migrate::{Migration, MigrationType};

use super::engine::EngineMigrations;
use super::files::{Files, Script};
use crate::db::engine::on_engine;
use crate::db::session::Session;

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
