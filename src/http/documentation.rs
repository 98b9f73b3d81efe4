//! The description of the API: generated from the handlers, served as OpenAPI 3.1 and as a page.
//!
//! The committed file is served, and a test of `src/resources.rs` generates it. So a change of the API is visible in a
//! review, and the generator, which is as large as all handlers together, is in no release.

use actix_web::{HttpRequest, HttpResponse};
use askama::Template;
use serde_json::{Map, Value};
use utoipa::IntoResponses;

use super::assets::{STYLE_NAME, root};
use super::problem::{self, Problem};
use super::representation::{self, Format};

/// The description, as OpenAPI 3.1.
pub(crate) const API: &str = include_str!("../../openapi.json");

/// What may go wrong with any request.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers, and is none")]
pub(crate) enum Failures {
    /// A parameter is unknown, malformed or given twice, or the body is not JSON; `detail` names it.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(problem::Body<'static>),
    /// The request did not arrive in time.
    #[response(status = 408, content_type = "application/problem+json")]
    Timeout(problem::Body<'static>),
    /// The body is too long.
    #[response(status = 413, content_type = "application/problem+json")]
    BodyTooLarge(problem::Body<'static>),
    /// The URI is longer than 8 KiB.
    #[response(status = 414, content_type = "application/problem+json")]
    UriTooLong(problem::Body<'static>),
    /// There are more than 100 headers, or more than 128 KiB of them.
    #[response(status = 431)]
    HeadTooLarge,
    /// An unexpected error on the server.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(problem::Body<'static>),
    /// The database is unavailable, or the limit of connections or requests is reached. For a request that writes, `detail`
    /// states whether nothing was changed, or that this is not known.
    #[response(
        status = 503,
        content_type = "application/problem+json",
        headers(("retry-after" = u32, description = "Seconds after which to try again."))
    )]
    Unavailable(problem::Body<'static>),
}

/// What may go wrong with a request that writes.
#[derive(IntoResponses)]
pub enum WriteFailures {
    /// The token is missing or not valid.
    #[response(
        status = 401,
        content_type = "application/problem+json",
        headers(("www-authenticate" = String, description = "Bearer (RFC 6750)."))
    )]
    Unauthorized(problem::Body<'static>),
    /// This server accepts no writes.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(problem::Body<'static>),
}

/// What may go wrong with a request that has a body.
#[derive(IntoResponses)]
pub enum BodyFailures {
    /// The media type or the encoding of the body is not supported.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(problem::Body<'static>),
}

/// `GET /openapi.json`
pub(super) async fn openapi(request: HttpRequest) -> Result<HttpResponse, Problem> {
    representation::respond_with_etag(&request, Format::Json, API.into(), None)
}

/// `GET /docs`
pub(super) async fn page(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let api = serde_json::from_str(API).map_err(|error| Problem::internal(&error))?;
    representation::respond_with_page(&request, &DocsPage::of(&api, root(request.path())))
}

#[derive(Template)]
#[template(path = "docs.html")]
struct DocsPage {
    root: String,
    style: &'static str,
    title: String,
    version: String,
    description: String,
    operations: Vec<Operation>,
    schemas: Vec<Schema>,
}

struct Operation {
    anchor: String,
    method: String,
    path: String,
    summary: String,
    description: String,
    needs_token: bool,
    /// The media types of the body, each with the name of its schema.
    body: Vec<(String, String)>,
    parameters: Vec<Member>,
    /// A command that sends the request.
    curl: String,
    responses: Vec<Response>,
}

struct Response {
    status: String,
    description: String,
    types: String,
    headers: String,
}

struct Schema {
    name: String,
    description: String,
    members: Vec<Member>,
}

/// A parameter of an operation, or a member of a schema.
struct Member {
    name: String,
    location: String,
    kind: String,
    description: String,
}

impl DocsPage {
    fn of(api: &Value, root: String) -> Self {
        let operations = members(&api["paths"]).flat_map(|(path, methods)| {
            members(methods).map(|(method, operation)| Operation {
                anchor: text(&operation["operationId"]),
                method: method.to_uppercase(),
                path: path.clone(),
                summary: text(&operation["summary"]),
                description: text(&operation["description"]),
                needs_token: !operation["security"].is_null(),
                body: members(&operation["requestBody"]["content"])
                    .map(|(media_type, body)| (media_type.clone(), schema_name(&body["schema"]).to_owned()))
                    .collect(),
                parameters: items(&operation["parameters"]).map(Member::parameter).collect(),
                curl: curl(api, path, method, operation),
                responses: members(&operation["responses"]).map(Response::of).collect(),
            })
        });
        let schemas = members(&api["components"]["schemas"]).map(|(name, schema)| Schema {
            name: name.clone(),
            description: text(&schema["description"]),
            members: members(&schema["properties"])
                .map(|property| Member::property(property, &schema["required"]))
                .collect(),
        });
        Self {
            root,
            style: STYLE_NAME,
            title: text(&api["info"]["title"]),
            version: text(&api["info"]["version"]),
            description: text(&api["info"]["description"]),
            operations: operations.collect(),
            schemas: schemas.collect(),
        }
    }
}

/// The name of the schema that this one refers to.
fn schema_name(schema: &Value) -> &str {
    schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default()
}

/// A command that sends a request with the examples of the description. `URL` and `TOKEN` are variables of the shell.
fn curl(api: &Value, path: &str, method: &str, operation: &Value) -> String {
    let mut ids = 1..;
    let parts = path
        .split('/')
        .map(|part| if part.starts_with('{') { ids.next().unwrap_or(1).to_string() } else { part.to_owned() });
    let mut words = vec!["curl".to_owned()];
    if method != "get" {
        words.push(format!("-X {}", method.to_uppercase()));
    }
    words.push(format!("\"$URL{}\"", parts.collect::<Vec<_>>().join("/")));
    if !operation["security"].is_null() {
        words.push("-H \"Authorization: Bearer $TOKEN\"".to_owned());
    }
    let headers = items(&operation["parameters"]).filter(|parameter| parameter["in"] == "header");
    let required = headers.filter(|parameter| parameter["required"] == true);
    words.extend(required.map(|header| format!("-H '{}: *'", text(&header["name"]))));
    if let Some((media_type, body)) = members(&operation["requestBody"]["content"]).next() {
        let properties = members(&api["components"]["schemas"][schema_name(&body["schema"])]["properties"]);
        let example = properties.map(|(name, schema)| (name.clone(), schema["example"].clone()));
        words.push(format!("-H 'Content-Type: {media_type}' -d '{}'", Value::Object(example.collect())));
    }
    words.join(" ")
}

impl Response {
    fn of((status, response): (&String, &Value)) -> Self {
        Self {
            status: status.clone(),
            description: text(&response["description"]),
            types: names(&response["content"]),
            headers: names(&response["headers"]),
        }
    }
}

impl Member {
    fn parameter(parameter: &Value) -> Self {
        let is_required = parameter["required"] == true && parameter["in"] != "path";
        Self {
            name: text(&parameter["name"]),
            location: text(&parameter["in"]) + if is_required { ", required" } else { "" },
            kind: kind(&parameter["schema"]),
            description: text(&parameter["description"]),
        }
    }

    fn property((name, schema): (&String, &Value), required: &Value) -> Self {
        let is_required = items(required).any(|required| required == name);
        let location = if is_required { "required" } else { "" };
        let description = text(&schema["description"]);
        Self { name: name.clone(), location: location.to_owned(), kind: kind(schema), description }
    }
}

/// The members of an object; none of anything else.
fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn names(value: &Value) -> String {
    members(value).map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A piece of text as a person reads it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('`', ""),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A schema in words, such as `integer, minimum 1, maximum 1000`.
fn kind(schema: &Value) -> String {
    let types = match &schema["type"] {
        Value::Array(types) => types.iter().map(text).filter(|name| name != "null").collect::<Vec<_>>().join(" or "),
        one => text(one),
    };
    let limits = [("minimum", "minimum"), ("maximum", "maximum"), ("maxLength", "characters at most:")];
    let limits = limits.into_iter().filter(|(key, _)| !schema[*key].is_null());
    let limits = limits.map(|(key, words)| format!("{words} {}", schema[key]));
    let values = items(&schema["enum"]).map(text).collect::<Vec<_>>().join(", ");
    let values = (!values.is_empty()).then(|| format!("one of {values}"));
    std::iter::once(types).chain(limits).chain(values).collect::<Vec<_>>().join(", ")
}
