//! External programs: conformance tools, and what a process runs beside where it is deployed. A test that needs one is
//! ignored where it is not installed; `REQUIRE_TOOLS=chromedriver,promtool,…` makes a missing one an error.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::engine::{in_tree, program};

/// A program that checks the service, or runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// A mail server.
    Aiosmtpd,
    /// The browser's, by WebDriver; with axe-core for what people with other senses make of a page.
    Chromedriver,
    /// The process types of the Procfile.
    Honcho,
    /// Semantics of HTTP.
    Httpolice,
    /// A pooler before PostgreSQL.
    Pgbouncer,
    /// It reads metrics.
    Prometheus,
    /// The text format of metrics, and alerts.
    Promtool,
    /// The service folder of runit.
    Runsv,
    /// The description of the API.
    Schemathesis,
    /// The units of systemd.
    SystemdAnalyze,
    /// A version of PgBouncer that tracks prepared statements.
    TrackingPgbouncer,
}

impl Tool {
    pub(crate) const ALL: [Self; 11] = [
        Self::Aiosmtpd,
        Self::Chromedriver,
        Self::Honcho,
        Self::Httpolice,
        Self::Pgbouncer,
        Self::Prometheus,
        Self::Promtool,
        Self::Runsv,
        Self::Schemathesis,
        Self::SystemdAnalyze,
        Self::TrackingPgbouncer,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Aiosmtpd => "aiosmtpd",
            Self::Chromedriver => "chromedriver",
            Self::Honcho => "honcho",
            Self::Httpolice => "httpolice",
            Self::Pgbouncer => "pgbouncer",
            Self::Prometheus => "prometheus",
            Self::Promtool => "promtool",
            Self::Runsv => "runsv",
            Self::Schemathesis => "schemathesis",
            Self::SystemdAnalyze => "systemd-analyze",
            Self::TrackingPgbouncer => "tracking-pgbouncer",
        }
    }

    pub(crate) fn is_installed(self) -> bool {
        self.program().is_some() && (self != Self::Chromedriver || axe().is_file())
    }

    /// The program and the first arguments of its command line.
    pub(crate) fn program(self) -> Option<Vec<OsString>> {
        if self == Self::TrackingPgbouncer {
            return in_tree("pgbouncer", "usr/sbin/pgbouncer");
        }
        program(self.name()).map(|path| vec![path.into()])
    }

    pub(crate) fn command(self) -> Command {
        let words = self.program().unwrap();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

/// Where `.ci/tools` keeps what no package of the system has.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools")
}

/// The script that checks a page's accessibility from within.
pub(crate) fn axe() -> PathBuf {
    folder().join("node_modules/axe-core/axe.min.js")
}
