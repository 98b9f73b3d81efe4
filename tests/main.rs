//! The tests, on the real binaries and every engine: the twelve factors, the HTTP interface, the queue and mail,
//! and conformance as external tools check it.
//!
//! A test runs once for each engine that is installed here, on a database of its own; one whose engine
//! is missing is reported as ignored. `REQUIRE_ENGINES=sqlite,mariadb,mysql,postgres` makes a missing engine an error, and
//! `REQUIRE_TOOLS` a missing external tool. A test that needs no particular engine runs on the first one that
//! `REQUIRE_ENGINES` names, or else on the first one that is installed.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

mod conformance;
mod factors;
mod http;
mod jobs;

use std::process::ExitCode;

use support::engine;

fn main() -> ExitCode {
    let mut arguments = libtest_mimic::Arguments::from_args();
    // Most tests wait for processes and time limits, so twice as many run as there are processors.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(2 * processors);
    if !arguments.list && !support::announce() {
        return ExitCode::FAILURE;
    }
    let tests = [factors::tests(), http::tests(), jobs::tests(), conformance::tests()].into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, tests);
    // [only servers]
    engine::stop_servers();
    // [end]
    conclusion.exit_code()
}
