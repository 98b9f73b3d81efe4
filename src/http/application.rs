//! The interface of an application to the service.

use actix_web::web::ServiceConfig;

/// An application, as the service uses it.
#[derive(Debug)]
pub struct Application {
    /// Adds its routes.
    pub routes: fn(&mut ServiceConfig),
    /// The oldest schema that it can serve.
    pub required_schema: i64,
}
