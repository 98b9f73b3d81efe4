//! The twelve factors, each proved against the real binaries on every engine: one module a factor,
//! named as the factor is.
//!
//! A test runs once for each engine that is installed here, on a database of its own; one whose engine
//! is missing is reported as ignored. `REQUIRE_ENGINES=sqlite,mariadb,mysql,postgres` makes a missing engine an error, and
//! `REQUIRE_TOOLS` a missing judge from outside.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

mod admin_processes;
mod backing_services;
mod build_release_run;
mod codebase;
mod concurrency;
mod config;
mod dependencies;
mod dev_prod_parity;
mod disposability;
mod logs;
mod port_binding;
mod processes;

use std::process::ExitCode;

use support::engine;

fn main() -> ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    if !arguments.list && !support::announce() {
        return ExitCode::FAILURE;
    }
    let factors = [
        codebase::tests(),
        dependencies::tests(),
        config::tests(),
        backing_services::tests(),
        build_release_run::tests(),
        processes::tests(),
        port_binding::tests(),
        concurrency::tests(),
        disposability::tests(),
        dev_prod_parity::tests(),
        logs::tests(),
        admin_processes::tests(),
    ];
    let conclusion = libtest_mimic::run(&arguments, factors.into_iter().flatten().collect());
    engine::stop_servers();
    conclusion.exit_code()
}
