//! The parameters of a listing, and its link to the next page.

use utoipa::{IntoParams, ToSchema};

use super::cursor;
use super::problem::Problem;
use crate::db::users::{Column, EMAIL_MAX, Key, Listing};

/// The most rows of a page.
const LIMIT_MAX: u32 = 1000;

/// The parameters of a listing of users.
pub(crate) const ALL: &[&str] = &["limit", "after", "sort", "q"];

/// The query string of a listing, checked.
#[derive(Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// The most users that are wanted: 100 by default for a page, and all for a stream.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<u32>,
    /// Where to go on: a cursor from the `Link` of the page before, with the same `sort` and `q`.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    after: Option<String>,
    /// The column that orders the listing, with `-` before it to descend; `id` by default. With `q` the order is
    /// that of the column that it matches, and this may only reverse it.
    #[param(value_type = Option<SortName>, inline)]
    pub(crate) sort: Option<Sort>,
    /// What the username begins with, or the e-mail address when there is an `@` in it, in any case.
    #[param(max_length = 120, pattern = "^[^\\u0000\\ufffd]*$")]
    pub(crate) q: Option<String>,
}

/// A column, and `-` for descending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sort {
    pub(crate) column: Column,
    pub(crate) descending: bool,
}

/// An order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the parameter for the API's documentation")]
enum SortName {
    #[schema(rename = "id")]
    Id,
    #[schema(rename = "-id")]
    IdDescending,
    #[schema(rename = "username")]
    Username,
    #[schema(rename = "-username")]
    UsernameDescending,
    #[schema(rename = "email")]
    Email,
    #[schema(rename = "-email")]
    EmailDescending,
}

impl Sort {
    fn parse(value: &str) -> Option<Self> {
        let (descending, name) = value.strip_prefix('-').map_or((false, value), |name| (true, name));
        let column = match name {
            "id" => Column::Id,
            "username" => Column::Username,
            "email" => Column::Email,
            _ => return None,
        };
        Some(Self { column, descending })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match (self.column, self.descending) {
            (Column::Id, false) => "id",
            (Column::Id, true) => "-id",
            (Column::Username, false) => "username",
            (Column::Username, true) => "-username",
            (Column::Email, false) => "email",
            (Column::Email, true) => "-email",
        }
    }
}

/// How an unknown parameter is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The request is rejected, because the client may have misspelt a parameter. For the API.
    Refuse,
    /// The parameter is ignored, because other sites append parameters such as `utm_source` and `fbclid`. For pages.
    Ignore,
}

impl Parameters {
    /// Reads a query string with these parameters.
    pub(crate) fn parse(query: &str, allowed: &[&str], unknown: Unknown) -> Result<Self, Problem> {
        let mut parameters = Self::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(name) = allowed.iter().find(|allowed| **allowed == name) else {
                if unknown == Unknown::Ignore {
                    continue;
                }
                let takes = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
                let reason = format!("there is no such parameter; this resource takes {takes}");
                return Err(Problem::bad_parameter(&name, reason));
            };
            if seen.contains(name) {
                return Err(Problem::bad_parameter(name, "it is given twice"));
            }
            seen.push(name);
            // The decoder puts U+FFFD in the place of what is not UTF-8, and no database stores NUL everywhere.
            if value.contains(['\u{fffd}', '\0']) {
                return Err(Problem::bad_parameter(name, "expected text in UTF-8, without U+0000"));
            }
            match *name {
                // A field of a form that was not filled in.
                "q" if value.is_empty() => {}
                "limit" => parameters.limit = Some(parse_limit(&value)?),
                "after" => parameters.after = Some(value.into_owned()),
                "sort" => parameters.sort = Some(parse_sort(&value)?),
                "q" => parameters.q = Some(parse_prefix(&value)?),
                _ => unreachable!("every allowed parameter is read here"),
            }
        }
        Ok(parameters)
    }

    /// The listing that these parameters ask for.
    pub(crate) fn listing(&self, default_limit: u32) -> Result<Listing, Problem> {
        let mut sort = self.sort.unwrap_or_default();
        if let Some(q) = &self.q {
            let column = if q.contains('@') { Column::Email } else { Column::Username };
            if self.sort.is_some_and(|sort| sort.column != column) {
                let own = Sort { column, descending: false }.as_str();
                let reason = format!("a listing with this q is ordered by {own}; sort may be {own} or -{own}");
                return Err(Problem::bad_parameter("sort", reason));
            }
            sort.column = column;
        }
        Ok(Listing {
            column: sort.column,
            descending: sort.descending,
            prefix: self.q.clone(),
            after: self.after(sort.column)?,
            limit: self.limit.unwrap_or(default_limit),
        })
    }

    /// The key that the cursor stands for.
    fn after(&self, column: Column) -> Result<Option<Key>, Problem> {
        let Some(cursor) = &self.after else { return Ok(None) };
        let key = cursor::decode(cursor, column)
            .ok_or_else(|| Problem::bad_parameter("after", "it is not a cursor that a Link of this listing named"))?;
        Ok(Some(key))
    }

    /// The id that the cursor of a listing by id stands for.
    pub(crate) fn after_id(&self) -> Result<Option<i64>, Problem> {
        Ok(match self.after(Column::Id)? {
            Some(Key::Id(id)) => Some(id),
            _ => None,
        })
    }

    /// These parameters with another cursor and order, as the query of a URL.
    pub(crate) fn query(&self, sort: Option<Sort>, after: Option<(Column, &Key)>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(q) = &self.q {
            query.append_pair("q", q);
        }
        if let Some(sort) = sort {
            query.append_pair("sort", sort.as_str());
        }
        if let Some(limit) = self.limit {
            query.append_pair("limit", &limit.to_string());
        }
        if let Some((column, key)) = after {
            query.append_pair("after", &cursor::encode(column, key));
        }
        query.finish()
    }
}

fn parse_limit(value: &str) -> Result<u32, Problem> {
    match value.parse() {
        Ok(limit @ 1..=LIMIT_MAX) if value.starts_with(|c: char| matches!(c, '1'..='9')) => Ok(limit),
        _ => Err(Problem::bad_parameter("limit", format_args!("it must be a whole number from 1 to {LIMIT_MAX}"))),
    }
}

fn parse_sort(value: &str) -> Result<Sort, Problem> {
    Sort::parse(value).ok_or_else(|| {
        Problem::bad_parameter("sort", "it must be id, username or email, with a - before it to descend")
    })
}

fn parse_prefix(value: &str) -> Result<String, Problem> {
    if value.chars().count() > EMAIL_MAX {
        return Err(Problem::bad_parameter("q", format_args!("it must have {EMAIL_MAX} characters at most")));
    }
    Ok(value.to_owned())
}
