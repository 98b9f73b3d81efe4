//! What the service has to know about its application.

use actix_web::web::ServiceConfig;

/// What the service has to know about its application.
#[derive(Debug)]
pub struct Application {
    /// Adds its routes.
    pub routes: fn(&mut ServiceConfig),
    /// The oldest schema that it can serve.
    pub required_schema: i64,
}
