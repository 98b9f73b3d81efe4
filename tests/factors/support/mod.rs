//! What every test stands on: the engines, the real binaries, and a client.

pub(crate) mod engine;
pub(crate) mod process;
pub(crate) mod sql;

use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use engine::{Database, Engine};

/// The tests of one factor: those that need no engine, and those that run on each.
pub(crate) struct Factor {
    name: &'static str,
    trials: Vec<Trial>,
}

impl Factor {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, trials: Vec::new() }
    }

    /// A test that needs no engine.
    pub(crate) fn once(mut self, name: &str, test: fn()) -> Self {
        self.trials.push(Trial::test(format!("{}::{name}", self.name), move || {
            test();
            Ok(())
        }));
        self
    }

    /// A test that runs on each of these engines, on a database of its own.
    pub(crate) fn on(mut self, engines: &[Engine], name: &str, test: fn(&Database)) -> Self {
        for &engine in engines {
            let trial = Trial::test(format!("{}::{name}::{}", self.name, engine.name()), move || {
                test(&engine.database());
                Ok(())
            });
            self.trials.push(trial.with_ignored_flag(!engine.is_installed()));
        }
        self
    }

    /// A test that runs on every engine, on a database of its own.
    pub(crate) fn each(self, name: &str, test: fn(&Database)) -> Self {
        self.on(&Engine::ALL, name, test)
    }

    pub(crate) fn tests(self) -> Vec<Trial> {
        self.trials
    }
}

/// Waits until something is so, and fails the test when it does not become so in half a minute.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
