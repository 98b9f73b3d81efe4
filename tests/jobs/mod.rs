//! The queue, its workers, the clock, and mail.

mod clock;
mod mail;
mod queue;

use libtest_mimic::Trial;

use crate::support::engine::Database;
use crate::support::mail_server::MailServer;
use crate::support::process::{Web, migrated};

pub(crate) fn tests() -> Vec<Trial> {
    [clock::tests(), mail::tests(), queue::tests()].into_iter().flatten().collect()
}

/// A server that enqueues mail, and workers that send it.
struct Deploy<'d> {
    database: &'d Database,
    smtp_url: String,
    web: Web,
}

impl<'d> Deploy<'d> {
    fn new(database: &'d Database, mail_server: &MailServer) -> Self {
        Self::with_url(database, &mail_server.url())
    }

    fn with_url(database: &'d Database, smtp_url: &str) -> Self {
        migrated(database, &["up"]);
        let web = Web::writable(database, &mail_settings(smtp_url));
        Self { database, smtp_url: smtp_url.to_owned(), web }
    }

    fn worker(&self, environment: &[(&str, &str)]) -> Web {
        let environment: Vec<_> =
            mail_settings(&self.smtp_url).into_iter().chain(environment.iter().copied()).collect();
        Web::program("worker", self.database, &environment)
    }

    /// Creates a user, whose address begins with this name.
    fn create_user(&self, name: &str) {
        let body = format!(r#"{{"username":"{name}","email":"{name}@example.com"}}"#);
        let created = self.web.write("POST", "/users", &[("x-request-id", &format!("request-{name}"))], &body);
        assert_eq!(created.status, 201, "{}", created.body);
    }

    /// The jobs, as `migrate jobs list` shows them.
    fn jobs(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&migrated(self.database, &["jobs", "list", "--json"])).unwrap()
    }

    /// The states of the jobs, the oldest first.
    fn states(&self) -> Vec<String> {
        self.jobs().iter().rev().map(|job| job["state"].as_str().unwrap().to_owned()).collect()
    }
}

fn mail_settings(smtp_url: &str) -> [(&str, &str); 2] {
    [("SMTP_URL", smtp_url), ("MAIL_FROM", "Roster <roster@example.com>")]
}
