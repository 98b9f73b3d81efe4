//! What every test stands on: the engines, the real binaries, and a client.

pub(crate) mod browser;
pub(crate) mod engine;
pub(crate) mod fault_proxy;
pub(crate) mod load;
pub(crate) mod mail_server;
pub(crate) mod pooler;
pub(crate) mod prefix_proxy;
pub(crate) mod process;
pub(crate) mod resource;
pub(crate) mod sql;
pub(crate) mod step_proxy;
pub(crate) mod terminal;
pub(crate) mod tool;

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use socket2::{Domain, Socket, Type};

use engine::{Database, Engine};
use tool::Tool;

/// A list of test functions with their names, for the methods of [`Tests`].
macro_rules! tests {
    ($($test:ident),+ $(,)?) => { [$((stringify!($test), $test as _)),+] };
}
pub(crate) use tests;

/// Test functions of one kind, and their names.
type List<F, const N: usize> = [(&'static str, F); N];

/// The tests of one module. The name of a test is its path: `factors::config::no_secret_is_shown`.
pub(crate) struct Tests {
    module: &'static str,
    trials: Vec<Trial>,
}

impl Tests {
    /// No tests yet, of the module with this `module_path!()`.
    pub(crate) fn of(module_path: &'static str) -> Self {
        let (_, module) = module_path.split_once("::").unwrap();
        Self { module, trials: Vec::new() }
    }

    /// Tests that need no engine.
    pub(crate) fn once<const N: usize>(mut self, tests: List<fn(), N>) -> Self {
        self.trials.extend(tests.map(|(name, test)| {
            Trial::test(format!("{}::{name}", self.module), move || {
                test();
                Ok(())
            })
        }));
        self
    }

    /// Tests that run on each of these engines, on a database of their own.
    pub(crate) fn on<const N: usize>(mut self, engines: &[Engine], tests: List<fn(&Database), N>) -> Self {
        for (name, test) in tests {
            self.trials.extend(engines.iter().map(|&engine| {
                let trial = Trial::test(format!("{}::{name}::{}", self.module, engine.name()), move || {
                    test(&engine.database());
                    Ok(())
                });
                trial.with_ignored_flag(!engine.is_installed())
            }));
        }
        self
    }

    /// Tests that run on each of these engines, and need a tool.
    pub(crate) fn with_tool<const N: usize>(
        mut self,
        tool: Tool,
        engines: &[Engine],
        tests: List<fn(&Database), N>,
    ) -> Self {
        let before = self.trials.len();
        self = self.on(engines, tests);
        let new = self.trials.split_off(before);
        self.trials.extend(new.into_iter().map(|trial| {
            let ignored = trial.has_ignored_flag() || !tool.is_installed();
            trial.with_ignored_flag(ignored)
        }));
        self
    }

    /// Tests that run on one engine, whichever that is, on a database of their own.
    pub(crate) fn any<const N: usize>(self, tests: List<fn(&Database), N>) -> Self {
        self.on(&[Engine::any()], tests)
    }

    /// Tests that run on every engine, on a database of their own.
    pub(crate) fn each<const N: usize>(self, tests: List<fn(&Database), N>) -> Self {
        self.on(&Engine::ALL, tests)
    }

    /// The tests of another module too.
    pub(crate) fn and(mut self, trials: Vec<Trial>) -> Self {
        self.trials.extend(trials);
        self
    }

    pub(crate) fn trials(self) -> Vec<Trial> {
        self.trials
    }
}

/// Says which engines and tools this run has. False when one is missing that `REQUIRE_ENGINES` or
/// `REQUIRE_TOOLS` names.
pub(crate) fn announce() -> bool {
    let engines = Engine::ALL.map(|engine| (engine.name(), engine.is_installed(), engine.package()));
    let tools = Tool::ALL.map(|tool| (tool.name(), tool.is_installed(), "it by .ci/tools"));
    // Not by `&&`, which would leave the second unsaid.
    announce_all("engine", "REQUIRE_ENGINES", &engines) & announce_all("tool", "REQUIRE_TOOLS", &tools)
}

fn announce_all(kind: &str, variable: &str, all: &[(&str, bool, &str)]) -> bool {
    let required = std::env::var(variable).unwrap_or_default();
    let required: Vec<_> = required.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let mut is_complete = true;
    let mut say = |line: String, is_fine: bool| {
        is_complete &= is_fine;
        let _ = writeln!(io::stderr(), "{line}");
    };
    for name in required.iter().filter(|required| !all.iter().any(|(name, ..)| name == *required)) {
        say(format!("{variable}: there is no {kind} {name}"), false);
    }
    for (name, is_installed, remedy) in all {
        match (is_installed, required.contains(name)) {
            (true, _) => say(format!("{kind} {name}: found"), true),
            (false, true) => say(format!("{kind} {name}: NOT FOUND, and {variable} names it"), false),
            (false, false) => say(format!("{kind} {name}: NOT FOUND, its tests are ignored; install {remedy}"), true),
        }
    }
    is_complete
}

/// A port that is reserved for a server until this is dropped.
///
/// Its socket is bound and does not listen. So the kernel assigns the port to nobody else, and a server that sets
/// `SO_REUSEADDR`, as all of the tests do, can listen on it.
pub(crate) struct Port {
    pub(crate) number: u16,
    _socket: Socket,
}

impl Port {
    /// Reserves a port on all addresses of this machine.
    pub(crate) fn reserve() -> Self {
        let bound = |domain, host: IpAddr| {
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(host, 0).into())?;
            Ok::<_, io::Error>(socket)
        };
        let socket = bound(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into())
            .or_else(|_| bound(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()))
            .unwrap();
        let number = socket.local_addr().unwrap().as_socket().unwrap().port();
        Self { number, _socket: socket }
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
