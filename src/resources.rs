//! The resources of this application. The service uses them only by this list.

mod samples;

use actix_web::http::Method;
use actix_web::web::{Data, ServiceConfig};

use crate::config::Config;
use crate::db::{Db, Error};
use crate::friends::{self, FRIENDSHIPS};
use crate::http::{Application, at, documentation, remove_expired_keys};
use crate::jobs::clock::Scheduled;
use crate::jobs::{self, Kind};
use crate::listing::Table;
use crate::mail::{self, Mailer};
use crate::users::{self, Users, welcome};
pub use samples::{SAMPLE, is_empty, seed};

/// The oldest schema that this code can serve. A newer one is served, too, so that a release can be rolled back without
/// its database.
pub const REQUIRED_SCHEMA: i64 = 6;

/// This application, as the service uses it.
#[must_use]
pub fn application(config: &Config) -> Application {
    let welcome = Data::new(welcome::Setting { is_sent: config.smtp_url.is_some() });
    let routes = move |config: &mut ServiceConfig| routes(config.app_data(welcome.clone()));
    Application { routes: Box::new(routes), ..operations() }
}

/// A process without routes of its own, such as a worker.
#[must_use]
pub fn operations() -> Application {
    Application { routes: Box::new(|_| {}), required_schema: REQUIRED_SCHEMA, services: Vec::new() }
}

/// What jobs need.
pub struct JobContext {
    /// The database.
    pub db: Db,
    /// None without `SMTP_URL`.
    pub mailer: Option<Mailer>,
}

impl JobContext {
    /// What the jobs of a worker with this configuration need.
    ///
    /// # Errors
    /// When `SMTP_URL` cannot be used.
    pub fn new(config: &Config, db: &Db) -> Result<Self, mail::Error> {
        let mailer = Mailer::new(config)?;
        if mailer.is_none() {
            tracing::warn!("SMTP_URL is not set: no mail is enqueued, and jobs that send mail fail");
        }
        Ok(Self { db: db.clone(), mailer })
    }
}

/// The kinds of jobs.
pub const JOBS: &[Kind<JobContext>] = &[
    // [only users]
    Kind {
        name: welcome::KIND,
        run: |context, job| Box::pin(async move { welcome::send(&context.db, context.mailer.as_ref(), &job).await }),
    },
    // [end]
    Kind { name: CLEANUP, run: |context, _| Box::pin(async move { clean_up(&context.db).await.map_err(Into::into) }) },
];

const CLEANUP: &str = "cleanup";

/// The schedules.
#[must_use]
pub fn schedules(config: &Config) -> Vec<Scheduled> {
    vec![Scheduled { name: CLEANUP, kind: CLEANUP, schedule: config.cleanup_schedule.clone() }]
}

/// Removes what is stored for a limited time.
async fn clean_up(db: &Db) -> Result<(), Error> {
    let (keys, jobs) = (remove_expired_keys(db).await?, jobs::remove_finished(db).await?);
    tracing::info!(keys, jobs, "old idempotency keys and jobs were removed");
    Ok(())
}

/// The tables of `migrate import` and `migrate export`.
pub const TABLES: &[&Table] = &[
    Table::of::<Users>(),
    FRIENDSHIPS,
    // The first one is the default of `--table`.
];

/// The routes.
fn routes(config: &mut ServiceConfig) {
    config.service(at("/openapi.json").get(documentation::openapi)).service(at("/docs").get(documentation::page));
    config.service(at("/").with_page().get(users::pages::list));
    config
        .service(at("/users").get(users::api::list).on(Method::POST, users::writes::create))
        .service(at("/users.ndjson").get(users::api::ndjson))
        .service(at("/users.csv").get(users::api::csv))
        .service(
            at("/users/{id}")
                .with_page()
                .get(friends::api::user)
                .on(Method::PATCH, users::writes::change)
                .on(Method::DELETE, users::writes::remove),
        )
        .service(at("/users/{id}/friends").with_page().get(friends::api::list))
        .service(
            at("/users/{id}/friends/{friend_id}")
                .on(Method::PUT, friends::writes::add)
                .on(Method::DELETE, friends::writes::remove),
        );
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;
    use std::{env, fs};

    use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
    use utoipa::{Modify, OpenApi};

    use crate::friends::{self, Friend};
    use crate::http::{API, Body, Fault, operations};
    use crate::users::writes::{NewUser, UserChanges};
    use crate::users::{self, User};

    #[derive(OpenApi)]
    #[openapi(
        info(
            description = "Every error is a problem of RFC 9457, whose instance is the request id, as in the header \
                           x-request-id of every response and in the log. HEAD is supported wherever GET is."
        ),
        // Relative to the URL of this description, so it includes a path prefix.
        servers((url = ".")),
        paths(
            // [only users]
            users::api::list,
            users::api::ndjson,
            users::api::csv,
            friends::api::user,
            users::writes::create,
            users::writes::change,
            users::writes::remove,
            friends::api::list,
            friends::writes::add,
            friends::writes::remove,
            // [end]
            operations::livez,
            operations::readyz,
            operations::metrics,
            operations::version,
        ),
        tags(
            // [only users]
            (name = "users", description = "One user, pages of users, and all users as a stream."),
            (name = "friends", description = "Friendships, which both users have."),
            // [end]
            (name = "service", description = "For operators and load balancers."),
        ),
        components(schemas(
            // [only users]
            User,
            NewUser,
            UserChanges,
            Friend,
            // [end]
            Body,
            Fault,
        )),
        modifiers(&Token)
    )]
    struct Api;

    struct Token;

    impl Modify for Token {
        fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A token of API_TOKENS."));
            let components = api.components.get_or_insert_default();
            components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
        }
    }

    /// `UPDATE_OPENAPI=1` writes it.
    #[test]
    fn the_committed_description_is_that_of_the_handlers() {
        let mut api = Api::openapi();
        // A package without a license would have one without a name.
        api.info.license.take_if(|license| license.name.is_empty());
        let paths = serde_json::to_value(&api.paths).expect("it is JSON");
        let operations =
            paths.as_object().into_iter().flatten().flat_map(|(_, path)| path.as_object().into_iter().flatten());
        let operations = operations.filter_map(|(_, operation)| operation["operationId"].as_str());
        let ids: HashSet<_> = operations.clone().collect();
        assert_eq!(ids.len(), operations.count(), "an operation_id is used twice");
        let generated = api.to_pretty_json().expect("it is JSON") + "\n";
        if env::var_os("UPDATE_OPENAPI").is_some() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
            fs::write(file, &generated).expect("it can be written");
        } else {
            assert!(generated == API, "openapi.json does not match the handlers; `just openapi` generates it");
        }
    }
}
