//! The parameters of a listing, and its link to the next page.

use std::fmt::Write as _;
use std::marker::PhantomData;

use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

use super::column::{ID_MAX, Kind};
use super::cursor;
use super::query::{Key, Listing, Scope};
use super::resource::Resource;
use super::table::Table;
use crate::http::Problem;

/// The most rows of a page.
const LIMIT_MAX: u32 = 1000;

/// The query string of a listing, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    table: &'static Table,
    pub(crate) limit: Option<u32>,
    pub(crate) after: Option<String>,
    /// Only pages support it. The API has only links to the next page.
    pub(crate) before: Option<String>,
    pub(crate) sort: Option<Sort>,
    pub(crate) q: Option<String>,
}

/// The position of a column, and the direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sort {
    pub(crate) column: usize,
    pub(crate) descending: bool,
}

/// How an unknown parameter is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The request is rejected, because the client may have misspelt a parameter. For the API.
    Refuse,
    /// The parameter is ignored, because other sites append parameters such as `utm_source` and `fbclid`. For pages.
    Ignore,
}

impl Parameters {
    /// Reads the query string of a listing of this table.
    ///
    /// # Errors
    /// The first invalid parameter, named.
    pub fn parse(table: &'static Table, query: &str, unknown: Unknown) -> Result<Self, Problem> {
        let mut parameters = Self { table, limit: None, after: None, before: None, sort: None, q: None };
        let allowed: &[_] = match (unknown, table.search.is_some()) {
            (Unknown::Refuse, true) => &["limit", "after", "sort", "q"],
            (Unknown::Refuse, false) => &["limit", "after", "sort"],
            (Unknown::Ignore, true) => &["limit", "after", "before", "sort", "q"],
            (Unknown::Ignore, false) => &["limit", "after", "before", "sort"],
        };
        read(query, allowed, unknown, |name, value| {
            match name {
                "limit" => parameters.limit = Some(parse_limit(value)?),
                "after" => parameters.after = Some(value.to_owned()),
                "before" => parameters.before = Some(value.to_owned()),
                "sort" => parameters.sort = Some(Sort::parse(table, value)?),
                // A field of a form that was not filled in is empty.
                "q" if value.is_empty() => {}
                _ => parameters.q = Some(parse_prefix(table, value)?),
            }
            Ok(())
        })?;
        Ok(parameters)
    }

    /// The listing of these parameters.
    ///
    /// # Errors
    /// When `sort` or `after` does not fit the others.
    ///
    /// # Panics
    /// If the search of the table names no column of it.
    pub fn listing(&self, scope: Option<Scope>, default_limit: u32) -> Result<Listing, Problem> {
        let table = self.table;
        let mut sort = self.sort.unwrap_or_default();
        if let (Some(q), Some(search)) = (&self.q, table.search) {
            let column = table.position((search.column)(q)).expect("a search names a column of its table");
            if self.sort.is_some_and(|sort| sort.column != column) {
                let own = table.columns[column].name;
                let reason = format!("a listing with this q is ordered by {own}; sort may be {own} or -{own}");
                return Err(Problem::bad_parameter("sort", reason));
            }
            sort.column = column;
        }
        let after = self.after.as_ref().map(|after| {
            let key = cursor::decode(after, table, sort.column);
            key.ok_or_else(|| Problem::bad_parameter("after", "expected a cursor from the Link of this listing"))
        });
        let after = after.transpose()?;
        Ok(Listing {
            table,
            scope,
            column: sort.column,
            descending: sort.descending,
            prefix: self.q.clone(),
            after,
            limit: self.limit.unwrap_or(default_limit),
        })
    }

    /// The key before which the page of this listing ends. None if it begins after a key, or with the first row.
    ///
    /// # Errors
    /// When `before` does not fit the others.
    pub(super) fn before(&self, listing: &Listing) -> Result<Option<Key>, Problem> {
        let Some(before) = &self.before else { return Ok(None) };
        if self.after.is_some() {
            return Err(Problem::bad_parameter("before", "cannot be combined with after; remove one of them"));
        }
        let key = cursor::decode(before, listing.table, listing.column);
        let problem = || Problem::bad_parameter("before", "expected a cursor from a link of this listing");
        key.ok_or_else(problem).map(Some)
    }

    /// The query string of the page behind this key of a listing of these parameters, or of its first page.
    #[must_use]
    pub fn query(&self, listing: &Listing, after: Option<&Key>) -> String {
        self.sorted(self.sort, self.limit, after.map(|key| ("after", listing, key)))
    }

    /// These parameters with another order, limit and cursor.
    pub(super) fn sorted(
        &self,
        sort: Option<Sort>,
        limit: Option<u32>,
        cursor: Option<(&str, &Listing, &Key)>,
    ) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(q) = &self.q {
            query.append_pair("q", q);
        }
        if let Some(sort) = sort {
            let direction = if sort.descending { "-" } else { "" };
            query.append_pair("sort", &format!("{direction}{}", self.table.columns[sort.column].name));
        }
        if let Some(limit) = limit {
            query.append_pair("limit", &limit.to_string());
        }
        if let Some((name, listing, key)) = cursor {
            query.append_pair(name, &cursor::encode(listing.table, listing.column, key));
        }
        query.finish()
    }
}

/// Checks that a request has no parameters.
///
/// # Errors
/// The first one, named.
pub fn none(query: &str) -> Result<(), Problem> {
    read(query, &[], Unknown::Refuse, |_, _| Ok(()))
}

/// Reads an id in a path. A row has one URL, so only the canonical form of a number is accepted, such as `1` and not `01`.
///
/// # Errors
/// 400, if it is not a number.
pub fn id(id: &str) -> Result<i64, Problem> {
    id_of("id", id)
}

/// The same for another parameter of a path.
///
/// # Errors
/// As [`id`].
pub fn id_of(name: &'static str, id: &str) -> Result<i64, Problem> {
    let number = id.parse().ok().filter(|number: &i64| number.to_string() == id);
    number.ok_or_else(|| Problem::bad_parameter(name, format_args!("expected an integer from 1 to {ID_MAX}")))
}

/// Passes each parameter of a query string to `each`.
fn read(
    query: &str,
    allowed: &[&'static str],
    unknown: Unknown,
    mut each: impl FnMut(&'static str, &str) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut seen = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let Some(&name) = allowed.iter().find(|allowed| **allowed == name) else {
            if unknown == Unknown::Ignore {
                continue;
            }
            let supported = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
            return Err(Problem::unknown_parameter(&name, &supported));
        };
        if seen.contains(&name) {
            return Err(Problem::bad_parameter(name, "given twice"));
        }
        seen.push(name);
        // The decoder replaces what is not UTF-8 by U+FFFD, and not every database stores NUL.
        if value.contains(['\u{fffd}', '\0']) {
            return Err(Problem::bad_parameter(name, "expected text in UTF-8, without U+0000"));
        }
        each(name, &value)?;
    }
    Ok(())
}

impl Sort {
    fn parse(table: &'static Table, value: &str) -> Result<Self, Problem> {
        let (descending, name) = value.strip_prefix('-').map_or((false, value), |name| (true, name));
        let column = table.position(name).filter(|column| table.columns[*column].key.is_some());
        column.map(|column| Self { column, descending }).ok_or_else(|| {
            let orders = orders(table).collect::<Vec<_>>().join(", ");
            Problem::bad_value("sort", format_args!("one of {orders}"), value)
        })
    }
}

/// The values of `sort`: each column that a listing may be ordered by, in both directions.
fn orders(table: &Table) -> impl Iterator<Item = String> {
    let sortable = table.columns.iter().filter(|column| column.key.is_some());
    sortable.flat_map(|column| [column.name.to_owned(), format!("-{}", column.name)])
}

fn parse_limit(value: &str) -> Result<u32, Problem> {
    match value.parse() {
        Ok(limit @ 1..=LIMIT_MAX) if value.starts_with(|c: char| matches!(c, '1'..='9')) => Ok(limit),
        _ => Err(Problem::bad_value("limit", format_args!("an integer from 1 to {LIMIT_MAX}"), value)),
    }
}

/// The longest text of a table, in characters.
fn longest(table: &Table) -> usize {
    let lengths = table.columns.iter().map(|column| if let Kind::Text(longest, _) = column.kind { longest } else { 0 });
    lengths.max().unwrap_or(0)
}

fn parse_prefix(table: &Table, value: &str) -> Result<String, Problem> {
    let (longest, length) = (longest(table), value.chars().count());
    if length > longest {
        let reason = format_args!("expected at most {longest} characters, got {length}");
        return Err(Problem::bad_parameter("q", reason));
    }
    Ok(value.to_owned())
}

/// The parameters of a listing, for the documentation of the API.
pub struct Query<T>(PhantomData<T>);

impl<T: Resource> IntoParams for Query<T> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let table = T::TABLE;
        let parameter = |name, description: &str, schema: ObjectBuilder| {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query);
            let parameter = parameter.required(utoipa::openapi::Required::False);
            parameter.description(Some(description)).schema(Some(schema))
        };
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
            .minimum(Some(1))
            .maximum(Some(LIMIT_MAX));
        let first = table.columns[0].name;
        let mut sort =
            format!("The column that orders the listing, with `-` before it to descend; `{first}` by default.");
        let mut after = "A cursor from the `Link` of the page before, with the same `sort`".to_owned();
        if table.search.is_some() {
            after += " and `q`";
            let _ = write!(
                sort,
                " With `q`, the listing is ordered by the column that `q` matches, and `sort` may only reverse it."
            );
        }
        let mut parameters = vec![
            parameter(
                "limit",
                "The maximum number of rows: 100 by default for JSON, and all rows for a stream.",
                limit,
            )
            .example(Some(2.into())),
            parameter("after", &(after + "."), text().pattern(Some("^[A-Za-z0-9_-]+$"))),
            parameter("sort", &sort, text().enum_values(Some(orders(table)))),
        ];
        if let Some(search) = table.search {
            let schema = text().max_length(Some(longest(table))).pattern(Some("^[^\\u0000\\ufffd]*$"));
            parameters.push(parameter("q", search.description, schema));
        }
        parameters.into_iter().map(ParameterBuilder::build).collect()
    }
}
