//! The confirmation of `migrate down`, which deletes data.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::thread;

use roster::db::Session;
use roster::db::migrations::{self, COUNT_MAX, Limits};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::report::{Failure, counted};

/// Returns an error without a terminal.
pub(super) fn check_terminal() -> Result<(), Failure> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(());
    }
    let message = "`down` deletes data, and there is no terminal to ask for confirmation: pass --yes to confirm it, or \
                   --dry-run to print what it would execute";
    Err(Failure::new(2, &message))
}

/// Shows what will be reverted, and returns its versions if it is confirmed.
#[expect(clippy::print_stderr, reason = "the question goes to the terminal, and not to the result")]
pub(super) async fn confirm(
    session: &mut Session,
    to: Option<i64>,
    stop: &CancellationToken,
) -> Result<Vec<i64>, Failure> {
    let migrations = migrations::applied(session, to, Limits::new(stop)).await?;
    let versions = migrations.iter().map(|(version, ..)| *version).collect();
    if migrations.is_empty() {
        return Ok(versions);
    }
    let mut question = format!("{} to revert:\n", counted(migrations.len() as u64, "migration"));
    for (version, name, sql) in &migrations {
        let _ = writeln!(question, "{version:04}  {name}");
        for line in sql.lines() {
            let _ = writeln!(question, "      {line}");
        }
        for (table, count) in migrations::count_rows(session, sql).await? {
            let rows = match count {
                Some(count) if count > COUNT_MAX => format!("more than {COUNT_MAX} rows"),
                Some(count) => counted(count.unsigned_abs(), "row"),
                None => "the rows cannot be counted".to_owned(),
            };
            let _ = writeln!(question, "      {table}: {rows}");
        }
    }
    eprint!("{question}Type yes to revert: ");
    let answer = tokio::select! {
        answer = line() => answer,
        () = stop.cancelled() => Ok(String::new()),
    };
    if answer?.trim() == "yes" { Ok(versions) } else { Err(Failure::new(1, &"not confirmed; nothing was reverted")) }
}

/// A line of standard input, from a thread of its own, so that a signal ends the wait.
async fn line() -> io::Result<String> {
    let (sender, line) = oneshot::channel();
    thread::Builder::new().name("reader".to_owned()).spawn(|| {
        let mut line = String::new();
        let _ = sender.send(io::stdin().read_line(&mut line).map(|_| line));
    })?;
    line.await.unwrap_or_else(|_| Err(io::Error::other("the reading thread ended early")))
}
