//! The description of the API: generated from the handlers, served as OpenAPI 3.1 and as a page.
//!
//! The committed file is served, and a test of `src/resources.rs` generates it. So a change of the API is visible in a
//! review, and the generator, which is as large as all handlers together, is in no release.

mod json;

use actix_web::{HttpRequest, HttpResponse};
use askama::Template;
use indexmap::IndexMap;
use utoipa::IntoResponses;

use super::assets::{DOCS_STYLE_NAME, Frame};
use super::problem::{self, Problem};
use super::representation::{self, Format};
use json::Json;

/// The description, as OpenAPI 3.1.
pub(crate) const API: &str = include_str!("../../openapi.json");

/// What may go wrong with any request.
#[derive(IntoResponses)]
pub enum Failures {
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
///
/// # Errors
/// 412 for another `If-Match`.
pub async fn openapi(request: HttpRequest) -> Result<HttpResponse, Problem> {
    representation::respond_with_etag(&request, Format::Json, API.into(), None)
}

/// The page of the API.
///
/// # Errors
/// 412 for another `If-Match`.
pub async fn page(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let api = serde_json::from_str(API).map_err(|error| Problem::internal(&error))?;
    representation::respond_with_page(&request, &DocsPage::of(&api, Frame::of(&request)))
}

#[derive(Template)]
#[template(path = "docs.html")]
struct DocsPage<'a> {
    frame: Frame<'a>,
    style: &'static str,
    title: String,
    version: String,
    description: String,
    groups: Vec<Group>,
    errors: Vec<Errors>,
    schemas: Vec<Schema>,
}

/// The operations of one tag.
struct Group {
    name: String,
    description: String,
    operations: Vec<Operation>,
}

struct Operation {
    anchor: String,
    method: String,
    path: String,
    summary: String,
    description: String,
    needs_token: bool,
    /// A command that sends the request.
    curl: String,
    /// An example of its response.
    example: Option<Example>,
    /// The same request as a reference, if it reads.
    link: Option<String>,
    /// The media types of the body.
    body: Vec<Content>,
    parameters: Vec<Member>,
    /// Those that are not in [`Errors`].
    responses: Vec<Response>,
}

/// The errors that are common to these requests.
struct Errors {
    of: &'static str,
    responses: Vec<Response>,
}

struct Response {
    status: String,
    description: String,
    content: Vec<Content>,
    headers: Vec<Member>,
}

struct Example {
    status: String,
    media_type: String,
    text: String,
}

/// A representation.
struct Content {
    media_type: String,
    /// The name of its schema, if it has one.
    schema: String,
}

struct Schema {
    name: String,
    description: String,
    example: Option<String>,
    members: Vec<Member>,
}

/// A parameter of an operation, a header of a response, or a member of a schema.
struct Member {
    name: String,
    location: String,
    kind: String,
    description: String,
}

/// Whether an operation is of a kind.
type IsOfKind = fn(&Json) -> bool;

/// The kinds of requests that have errors in common.
const KINDS: [(&str, IsOfKind); 3] = [
    ("any request", |_| true),
    ("a request that needs a token", |operation| !operation["security"].is_null()),
    ("a request with a body", |operation| !operation["requestBody"].is_null()),
];

impl<'a> DocsPage<'a> {
    fn of(api: &Json, frame: Frame<'a>) -> Self {
        let common = KINDS.map(|(_, is_of_kind)| common_errors(api, is_of_kind));
        let is_common = |operation: &Json, response: &(&String, &Json)| {
            let of_kinds = KINDS.iter().zip(&common).filter(|((_, is_of_kind), _)| is_of_kind(operation));
            of_kinds.into_iter().any(|(_, common)| common.contains(response))
        };
        let group = |tag: &Json| Group {
            name: text(&tag["name"]),
            description: text(&tag["description"]),
            operations: operations(api)
                .filter(|(_, _, operation)| operation["tags"].items().any(|name| *name == tag["name"]))
                .map(|(path, method, operation)| Operation {
                    anchor: text(&operation["operationId"]),
                    method: method.to_uppercase(),
                    path: path.clone(),
                    summary: text(&operation["summary"]),
                    description: text(&operation["description"]),
                    needs_token: !operation["security"].is_null(),
                    curl: curl(api, path, method, operation),
                    example: Example::of(api, operation),
                    link: (method == "get").then(|| example_target(path, operation)),
                    body: contents(&operation["requestBody"]["content"]).collect(),
                    parameters: operation["parameters"].items().map(Member::parameter).collect(),
                    responses: operation["responses"]
                        .members()
                        .filter(|response| !is_common(operation, response))
                        .map(Response::of)
                        .collect(),
                })
                .collect(),
        };
        // An error of any request is not repeated for other kinds.
        let errors = KINDS.iter().enumerate().map(|(number, (of, _))| Errors {
            of,
            responses: common[number]
                .iter()
                .filter(|error| !common[..number].iter().any(|earlier| earlier.contains(error)))
                .map(|error| Response::of(*error))
                .collect(),
        });
        let schemas = api["components"]["schemas"].members().map(|(name, schema)| Schema {
            name: name.clone(),
            description: text(&schema["description"]),
            example: example_of_schema(api, schema).map(|example| example.to_string()),
            members: schema["properties"]
                .members()
                .map(|property| Member::property(property, &schema["required"]))
                .collect(),
        });
        Self {
            frame,
            style: DOCS_STYLE_NAME,
            title: text(&api["info"]["title"]),
            version: text(&api["info"]["version"]),
            description: text(&api["info"]["description"]),
            groups: api["tags"].items().map(group).collect(),
            errors: errors.filter(|errors| !errors.responses.is_empty()).collect(),
            schemas: schemas.collect(),
        }
    }
}

/// The path, the method and the description of each operation.
fn operations(api: &Json) -> impl Iterator<Item = (&String, &'static str, &Json)> {
    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
    let operations =
        api["paths"].members().flat_map(|(path, methods)| METHODS.map(|method| (path, method, &methods[method])));
    operations.filter(|(_, _, operation)| !operation.is_null())
}

/// The errors that all operations of a kind have.
fn common_errors(api: &Json, is_of_kind: IsOfKind) -> Vec<(&String, &Json)> {
    let of_kind: Vec<_> = operations(api).map(|(_, _, operation)| operation).filter(|it| is_of_kind(it)).collect();
    let is_of_all = |(status, response): &(&String, &Json)| {
        status.as_str() >= "400" && of_kind.iter().all(|operation| operation["responses"][status] == **response)
    };
    of_kind.first().into_iter().flat_map(|first| first["responses"].members()).filter(is_of_all).collect()
}

/// The name of the schema that this one refers to, or of its items.
fn schema_name(schema: &Json) -> &str {
    let reference = schema["$ref"].as_str().or_else(|| schema["items"]["$ref"].as_str());
    reference.and_then(|name| name.rsplit('/').next()).unwrap_or_default()
}

/// The reference of an example of a request, relative to the root.
fn example_target(path: &str, operation: &Json) -> String {
    let mut target = path.trim_start_matches('/').to_owned();
    let mut query = form_urlencoded::Serializer::new(String::new());
    for parameter in operation["parameters"].items().filter(|parameter| !parameter["example"].is_null()) {
        let (name, example) = (text(&parameter["name"]), text(&parameter["example"]));
        if parameter["in"].as_str() == Some("path") {
            target = target.replace(&format!("{{{name}}}"), &example);
        } else if parameter["in"].as_str() == Some("query") {
            query.append_pair(&name, &example);
        }
    }
    let query = query.finish();
    if query.is_empty() { target } else { format!("{target}?{query}") }
}

/// A command that sends a request with the examples of the description. `URL` and `TOKEN` are variables of the shell.
fn curl(api: &Json, path: &str, method: &str, operation: &Json) -> String {
    let mut words = vec!["curl".to_owned()];
    if method != "get" {
        words.push(format!("-X {}", method.to_uppercase()));
    }
    words.push(format!("\"$URL/{}\"", example_target(path, operation)));
    if !operation["security"].is_null() {
        words.push("-H \"Authorization: Bearer $TOKEN\"".to_owned());
    }
    let headers = operation["parameters"].items().filter(|parameter| parameter["in"].as_str() == Some("header"));
    let required = headers.filter(|parameter| parameter["required"].is_true());
    let line = |header: &Json| format!("{}: {}", text(&header["name"]), text(&header["example"]));
    words.extend(required.map(|header| format!("-H {}", quoted(&line(header)))));
    if let Some((media_type, content)) = operation["requestBody"]["content"].members().next() {
        words.push(format!("-H {}", quoted(&format!("Content-Type: {media_type}"))));
        words.extend(example(api, content).map(|example| format!("-d {}", quoted(&example))));
    }
    words.join(" ")
}

/// A word of a command of a POSIX shell, with this text.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn contents(content: &Json) -> impl Iterator<Item = Content> {
    content.members().map(|(media_type, content)| {
        let schema = schema_name(&content["schema"]).to_owned();
        Content { media_type: media_type.clone(), schema }
    })
}

impl Example {
    /// That of the first response, in the first format that has one.
    fn of(api: &Json, operation: &Json) -> Option<Self> {
        let (status, response) = operation["responses"].members().next()?;
        response["content"].members().find_map(|(media_type, content)| {
            let text = example(api, content)?;
            Some(Self { status: status.clone(), media_type: media_type.clone(), text })
        })
    }
}

/// The example of a representation, as it is sent.
fn example(api: &Json, content: &Json) -> Option<String> {
    let example = Some(&content["example"]).filter(|example| !example.is_null());
    let example = example.cloned().or_else(|| example_of_schema(api, &content["schema"]))?;
    Some(example.as_str().map_or_else(|| example.to_string(), str::to_owned))
}

/// The example of a schema, made of those of its members.
fn example_of_schema(api: &Json, schema: &Json) -> Option<Json> {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        return example_of_schema(api, &api["components"]["schemas"][name]);
    }
    if !schema["example"].is_null() {
        return Some(schema["example"].clone());
    }
    if schema["type"].as_str() == Some("array") {
        return Some(Json::Array(vec![example_of_schema(api, &schema["items"])?]));
    }
    let examples =
        schema["properties"].members().filter_map(|(name, it)| Some((name.clone(), example_of_schema(api, it)?)));
    let object: IndexMap<_, _> = examples.collect();
    (!object.is_empty()).then_some(Json::Object(object))
}

impl Response {
    fn of((status, response): (&String, &Json)) -> Self {
        // Every error is a problem.
        let content = contents(&response["content"]).filter(|_| status.as_str() < "400");
        Self {
            status: status.clone(),
            description: text(&response["description"]),
            content: content.collect(),
            headers: response["headers"].members().map(Member::header).collect(),
        }
    }
}

impl Member {
    fn parameter(parameter: &Json) -> Self {
        let is_required = parameter["required"].is_true() && parameter["in"].as_str() != Some("path");
        Self {
            name: text(&parameter["name"]),
            location: text(&parameter["in"]) + if is_required { ", required" } else { "" },
            kind: kind(&parameter["schema"]),
            description: text(&parameter["description"]),
        }
    }

    fn header((name, header): (&String, &Json)) -> Self {
        let (location, kind) = (String::new(), kind(&header["schema"]));
        Self { name: name.clone(), location, kind, description: text(&header["description"]) }
    }

    fn property((name, schema): (&String, &Json), required: &Json) -> Self {
        let is_required = required.items().any(|required| required.as_str() == Some(name));
        let location = if is_required { "required" } else { "" };
        let description = text(&schema["description"]);
        Self { name: name.clone(), location: location.to_owned(), kind: kind(schema), description }
    }
}

/// A piece of text as a person reads it.
fn text(value: &Json) -> String {
    match value {
        Json::Text(text) => text.replace('`', ""),
        value if value.is_null() => String::new(),
        other => other.to_string(),
    }
}

/// A schema in words, such as `integer, minimum 1, maximum 1000`.
fn kind(schema: &Json) -> String {
    let types = match &schema["type"] {
        Json::Array(types) => types.iter().map(text).filter(|name| name != "null").collect::<Vec<_>>().join(" or "),
        one => text(one),
    };
    let limits = [("minimum", "minimum"), ("maximum", "maximum"), ("maxLength", "characters at most:")];
    let limits = limits.into_iter().filter(|(key, _)| !schema[*key].is_null());
    let limits = limits.map(|(key, words)| format!("{words} {}", schema[key]));
    let values = schema["enum"].items().map(text).collect::<Vec<_>>().join(", ");
    let values = (!values.is_empty()).then(|| format!("one of {values}"));
    std::iter::once(types).chain(limits).chain(values).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_quoted_for_a_shell() {
        let api = r#"{"parameters": [{"name": "X-Own", "in": "header", "required": true, "example": "it's"}],
            "requestBody": {"content": {"application/json": {"example": {"b": "$HOME 'b'", "a": 1}}}}}"#;
        let operation: Json = serde_json::from_str(api).expect("it is JSON");
        let command = curl(&operation, "/", "put", &operation);
        let expected = r#"curl -X PUT "$URL/" -H 'X-Own: it'\''s' -H 'Content-Type: application/json' -d '{"b":"$HOME '\''b'\''","a":1}'"#;
        assert_eq!(command, expected);
    }
}
