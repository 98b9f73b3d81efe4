//! The mail that welcomes a new user.

use askama::Template;
use serde::{Deserialize, Serialize};

use super::{User, Users};
use crate::db::Db;
use crate::jobs::{Failure, Job, NewJob};
use crate::listing;
use crate::mail::{Error, Mail, Mailer};
use crate::telemetry::Origin;

/// The name of this kind of job.
pub(crate) const KIND: &str = "welcome";

/// What the handlers need to know.
pub(crate) struct Setting {
    /// Whether the mail is enqueued: not without a mail server.
    pub(crate) is_sent: bool,
}

/// The address is not a part of it: the user may change it, or may be removed.
#[derive(Deserialize, Serialize)]
struct Payload {
    user_id: i64,
}

#[derive(Template)]
#[template(path = "mail/welcome.txt")]
struct Text<'a> {
    username: &'a str,
}

#[derive(Template)]
#[template(path = "mail/welcome.html")]
struct Html<'a> {
    username: &'a str,
}

/// The job that sends the mail to a user.
pub(crate) fn job(user_id: i64, origin: Origin) -> NewJob {
    NewJob::new(KIND, &Payload { user_id }).caused_by(origin)
}

/// Sends the mail.
pub(crate) async fn send(db: &Db, mailer: Option<&Mailer>, job: &Job) -> Result<(), Failure> {
    let Payload { user_id } = job.payload()?;
    let mailer = mailer.ok_or_else(|| Failure::temporary("SMTP_URL is not set for this worker".to_owned()))?;
    let recipient = |user: User<'_>| (user.username.to_owned(), user.email.to_owned());
    let Some((username, email)) = listing::get::<Users, _>(db, user_id, recipient).await? else {
        // The user was removed meanwhile.
        return Ok(());
    };
    let render = |error: askama::Error| Failure::permanent(error.to_string());
    let mail = Mail {
        // Another database may have had a job with this number.
        id: &format!("welcome.{}.{}", job.created_at, job.id),
        to: &email,
        subject: "Welcome",
        text: Text { username: &username }.render().map_err(render)?,
        html: Html { username: &username }.render().map_err(render)?,
    };
    mailer.send(mail).await.map_err(|error| {
        let reason = error.to_string();
        match error {
            Error::Configuration(_) | Error::Invalid(_) => Failure::permanent(reason),
            Error::Refused { text, .. } => Failure::permanent(reason).with_detail(text),
            Error::Unavailable { text, .. } => Failure::temporary(reason).with_detail(text),
        }
    })
}
