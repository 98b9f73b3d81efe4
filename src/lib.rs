//! **roster** is a twelve-factor service, and an application that it carries. Its example is a list of users and their friends.
//!
//! Data flows one way. These are the modules in its order:
//!
//! - [`config`] reads the environment, once;
//! - [`json`] writes JSON without line breaks;
//! - [`lifecycle`] is a process from its start to its end: signals, readiness, what is in flight;
//! - [`telemetry`] writes events to the output of the process;
//! - [`db`] is the attached database: the pool, the engines, the migrations;
//! - [`mail`] is the attached mail server;
//! - [`http`] is what surrounds every handler: middleware, errors, negotiation, the operational routes;
//! - [`listing`] makes pages, streams, imports and exports from the description of a table;
//! - [`jobs`] is the queue, its workers and its clock;
//! - [`users`] and [`friends`] are resources of the application;
//! - [`resources`] is the one list of resources;
//! - [`server`] serves connections until a stop is requested.
//!
//! The binaries `web`, `worker`, `clock` and `migrate` put these together. Only they print or exit.

pub mod config;
pub mod db;
pub mod friends;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod jobs;
pub mod json;
pub mod lifecycle;
pub mod listing;
pub mod mail;
pub mod resources;
pub mod server;
pub mod telemetry;
pub mod users;
