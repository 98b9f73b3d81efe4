//! **roster** lists users from a database, as a twelve-factor service.
//!
//! Data flows one way, and the modules stand in its order:
//!
//! - [`config`] reads the environment, once;
//! - [`lifecycle`] is a process from its start to its end: signals, readiness, what is in flight;
//! - [`json`] writes JSON without line breaks;
//! - [`telemetry`] writes events to the process's output;
//! - [`db`] is the attached database: the pool, the migrations, a file a table;
//! - [`admin`] is what `migrate` does besides the schema: sample users, import, export;
//! - [`http`] is the routes and what stands behind each;
//! - [`server`] runs them until a stop is requested.
//!
//! The binaries `web` and `migrate` put these together, and alone may print or exit.

pub mod config;
pub mod db;
pub mod friends;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod json;
pub mod lifecycle;
pub mod listing;
pub mod resources;
pub mod server;
pub mod telemetry;
pub mod users;
