//! Authorization by bearer tokens (RFC 6750).
//!
//! This is the place for another kind of identity, such as the token of an OpenID provider or the certificate of a client:
//! it needs the request, and returns the name of the client.

use actix_web::HttpMessage as _;
use actix_web::dev::ServiceRequest;
use actix_web::http::header;

use super::context::RequestContext;
use crate::config::TokensRequired;
use crate::http::problem::Problem;
use crate::http::route::is_safe;

/// The routes that need no token: load balancers and supervisors have none, and the page of an error has a style.
const ALWAYS_OPEN: [&str; 5] = ["/livez", "/readyz", "/style-{hash}.css", "/docs-{hash}.css", "/favicon.ico"];

/// The name of the client that sent a request.
pub(crate) struct Client(pub(crate) String);

/// Rejects a request that needs a token and has none. The name of the client is in the line of the request.
///
/// # Errors
/// 401, or 403 if there are no tokens.
pub(super) fn authorize(context: &mut RequestContext, request: &ServiceRequest) -> Result<(), Problem> {
    let needs_token = match context.state.tokens_required {
        TokensRequired::Writes => !is_safe(request.method().as_str()),
        TokensRequired::All => !context.route.pattern.is_some_and(|pattern| ALWAYS_OPEN.contains(&pattern)),
    };
    if !needs_token || context.route.pattern.is_none() {
        return Ok(());
    }
    if context.state.tokens.is_empty() {
        return Err(Problem::forbidden("this server accepts no writes, because API_TOKENS is not set"));
    }
    let mut headers = request.headers().get_all(header::AUTHORIZATION);
    let token = match (headers.next(), headers.next()) {
        (Some(credentials), None) => bearer(credentials.as_bytes()),
        // Which of several counts is not defined.
        _ => None,
    };
    let token = token.ok_or_else(Problem::no_token)?;
    let client = context.state.tokens.client(token).ok_or_else(Problem::invalid_token)?.to_owned();
    request.extensions_mut().insert(Client(client.clone()));
    context.client = Some(client);
    Ok(())
}

/// The token of credentials, whose scheme has any case (RFC 9110, section 11.1).
fn bearer(credentials: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = credentials.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii_start())
}
