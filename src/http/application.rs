//! The interface of an application to the service.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::ServiceConfig;
use async_trait::async_trait;
use futures_util::future::{try_join, try_join_all};
use tokio::time::timeout;

use crate::db::{self, Db};

/// The longest check of a backing service.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// An application, as the service uses it.
pub struct Application {
    /// Adds its routes, and the data of their handlers.
    pub routes: Box<dyn Fn(&mut ServiceConfig) + Send + Sync>,
    /// The oldest schema that it can serve.
    pub required_schema: i64,
    /// The backing services that readiness requires, besides the database.
    pub services: Vec<Arc<dyn BackingService>>,
}

/// A backing service, such as a cache or the API of another system.
#[async_trait]
pub trait BackingService: Send + Sync {
    /// Its name in the response of `/readyz`.
    fn name(&self) -> &'static str;

    /// Checks that it can be used. It is called for each request of `/readyz`, and every second until the process is ready.
    /// A call is cancelled after one second.
    ///
    /// # Errors
    /// The reason, which is logged. It must not contain a secret.
    async fn check(&self) -> Result<(), String>;
}

/// Why a process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Unready {
    /// The database does not respond, or its schema is older than this release.
    #[error("{0}")]
    Database(#[source] db::Unready),
    /// A backing service cannot be used.
    #[error("{name}: {reason}")]
    Service {
        /// Its name.
        name: &'static str,
        /// The reason.
        reason: String,
    },
}

impl Application {
    /// Checks that the database and the other backing services can be used.
    ///
    /// # Errors
    /// The reason why the process is not ready.
    pub async fn ready(&self, db: &Db) -> Result<(), Unready> {
        let database = async { db.ready(self.required_schema).await.map_err(Unready::Database) };
        try_join(database, check_all(&self.services)).await.map(drop)
    }
}

async fn check_all(services: &[Arc<dyn BackingService>]) -> Result<(), Unready> {
    let checks = services.iter().map(|service| async {
        let checked = timeout(CHECK_TIMEOUT, service.check()).await;
        let no_response = |_| Err(format!("no response within {} ms", CHECK_TIMEOUT.as_millis()));
        checked.unwrap_or_else(no_response).map_err(|reason| Unready::Service { name: service.name(), reason })
    });
    try_join_all(checks).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    struct Service(Option<Result<(), &'static str>>);

    #[async_trait]
    impl BackingService for Service {
        fn name(&self) -> &'static str {
            "cache"
        }

        async fn check(&self) -> Result<(), String> {
            match self.0 {
                Some(checked) => checked.map_err(str::to_owned),
                None => pending().await,
            }
        }
    }

    #[tokio::test]
    async fn each_service_must_respond() {
        let services = |last| [Some(Ok(())), last].map(|checked| Arc::new(Service(checked)) as Arc<dyn BackingService>);
        for (last, expected) in [
            (Some(Ok(())), None),
            (Some(Err("connection refused")), Some("cache: connection refused")),
            (None, Some("cache: no response within 1000 ms")),
        ] {
            let reason = check_all(&services(last)).await.err().map(|unready| unready.to_string());
            assert_eq!(reason.as_deref(), expected);
        }
    }
}
