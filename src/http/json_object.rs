//! A JSON object as the body of a request.

use std::collections::HashSet;
use std::fmt;

use actix_web::HttpRequest;
use actix_web::http::header;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value as Json;
use serde_json::error::Category;

use super::problem::Problem;
use super::representation::ACCEPT_PATCH;

/// The media types of a new state of a resource.
pub const JSON: &[&str] = &["application/json"];
/// The media types of a change of a resource (RFC 7396). A merge patch is JSON, and many clients send it as that.
pub const MERGE_PATCH: &[&str] = &["application/merge-patch+json", "application/json"];

/// The members of an object, in the order of the text.
pub type Members = Vec<(String, Json)>;

/// Reads the body of a request, which has one of these media types.
///
/// # Errors
/// 415, and 400 with the line and the column if it is not JSON, and 422 if it is not an object.
pub fn json_object(request: &HttpRequest, body: &[u8], media_types: &[&str]) -> Result<Members, Problem> {
    check_type(request, media_types)?;
    let mut json = serde_json::Deserializer::from_slice(body);
    let members = json.deserialize_map(ObjectVisitor).and_then(|members| json.end().map(|()| members));
    members.map_err(|error| match error.classify() {
        // The message would contain the value, and the rest of the body was not read.
        Category::Data if !error.to_string().starts_with(DUPLICATE) => match serde_json::from_slice::<IgnoredAny>(body)
        {
            Ok(_) => Problem::unprocessable("the body must be a JSON object", Vec::new()),
            Err(error) => Problem::malformed_body(format!("the body is not JSON: {error}")),
        },
        Category::Data => Problem::malformed_body(format!("the body is ambiguous: {error}")),
        _ => Problem::malformed_body(format!("the body is not JSON: {error}")),
    })
}

fn check_type(request: &HttpRequest, media_types: &[&str]) -> Result<(), Problem> {
    // Several lines are one list (RFC 9110, section 5.3), which neither of these headers supports.
    let text = |name| {
        let mut lines = request.headers().get_all(name);
        match (lines.next().map(|line| line.to_str()), lines.next()) {
            (None, _) => "",
            (Some(Ok(line)), None) => line,
            _ => "several",
        }
    };
    let unsupported = |detail| {
        let problem = Problem::unsupported_media_type(detail);
        let name = if media_types == MERGE_PATCH { ACCEPT_PATCH.0 } else { header::ACCEPT };
        problem.with_header(name, media_types[0])
    };
    let media_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if !media_types.iter().any(|accepted| accepted.eq_ignore_ascii_case(media_type)) {
        return Err(unsupported(format!("Content-Type: expected {}", media_types.join(" or "))));
    }
    let encoding = text(header::CONTENT_ENCODING);
    if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") {
        return Ok(());
    }
    let problem = unsupported("Content-Encoding: send the body without an encoding".to_owned());
    Err(problem.with_header(header::ACCEPT_ENCODING, "identity"))
}

/// The beginning of an error of [`ObjectVisitor`].
const DUPLICATE: &str = "it has a member twice";

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Members, A::Error> {
        let (mut members, mut names) = (Members::new(), HashSet::new());
        while let Some((name, value)) = object.next_entry::<String, Json>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(DUPLICATE));
            }
            members.push((name, value));
        }
        Ok(members)
    }
}
