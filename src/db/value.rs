//! The values of columns, which every engine stores alike.

use std::borrow::Cow;
use std::convert::identity;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Database, MySql, Postgres, QueryBuilder, Row as _, Sqlite};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// A value of a column, borrowed from a row or owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value<'r> {
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(Cow<'r, str>),
    /// A moment.
    Time(Timestamp),
}

impl Value<'_> {
    /// The key of this value in an index: text with its ASCII letters in lower case.
    #[must_use]
    pub fn into_key(self) -> Value<'static> {
        match self {
            Self::Integer(integer) => Value::Integer(integer),
            Self::Text(text) => Value::Text(text.to_ascii_lowercase().into()),
            Self::Time(time) => Value::Time(time),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => integer.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Integer(integer) => integer.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
            Self::Time(time) => time.serialize(serializer),
        }
    }
}

impl From<i64> for Value<'_> {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl<'r> From<&'r str> for Value<'r> {
    fn from(text: &'r str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

/// A moment in UTC, in whole seconds from 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// The moment this many seconds after the beginning of 1970. None if it is out of range.
    #[must_use]
    pub fn from_unix(seconds: i64) -> Option<Self> {
        OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|_| seconds >= 0).map(Self)
    }

    /// The current moment.
    #[must_use]
    pub fn now() -> Self {
        let now = OffsetDateTime::now_utc();
        Self(now.replace_nanosecond(0).unwrap_or(now))
    }

    /// The moment that is earlier by this time, in whole seconds.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0 - Duration::from_secs(time.as_secs()))
    }

    /// Seconds since the beginning of 1970.
    #[must_use]
    pub fn unix(self) -> i64 {
        self.0.unix_timestamp()
    }

    /// Reads a timestamp of RFC 3339, with any offset from UTC.
    ///
    /// # Errors
    /// The reason why it is not one that can be stored. The reason does not contain the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let time = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| "is not a timestamp of RFC 3339, such as 2026-01-31T23:59:59Z")?;
        if text.get(17..19) == Some("60") {
            return Err("is a leap second, which is not stored");
        }
        if time.nanosecond() != 0 {
            return Err("has a fraction of a second, which is not stored");
        }
        time.checked_to_offset(UtcOffset::UTC)
            .and_then(|time| Self::from_unix(time.unix_timestamp()))
            .ok_or("is not between the years 1970 and 9999")
    }
}

/// As RFC 3339 writes it, such as `2026-01-31T23:59:59Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Binds values and reads rows, for the types of one driver.
pub trait Values: Database + Sized {
    /// The time of the database in seconds since 1970, constant within a statement.
    const NOW: &'static str;
    /// What precedes the parameter of a `LIMIT`.
    const LIMIT: &'static str;
    /// Appends a value to a query as its next parameter.
    fn bind(query: &mut QueryBuilder<Self>, value: &Value<'_>);
    /// A row whose columns begin at this position of the driver's row.
    fn row(row: &Self::Row, first: usize) -> Row<'_>;
}

/// A row of any engine, borrowed until the next one is read.
#[derive(Clone, Copy)]
pub struct Row<'r> {
    cells: Cells<'r>,
    /// The position of the first column in the driver's row.
    first: usize,
}

#[derive(Clone, Copy)]
enum Cells<'r> {
    Sqlite(&'r SqliteRow),
    MySql(&'r MySqlRow),
    Postgres(&'r PgRow),
    /// The text of each value, as SQLite packs rows.
    Packed(&'r [&'r str]),
}

/// Reads a cell by its position, without a check of its type, which the migrations have set. Looking up a name or checking a
/// type costs more than reading the value.
macro_rules! cell {
    ($row:expr, $position:expr, $of_text:expr) => {
        match $row.cells {
            Cells::Sqlite(row) => row.try_get_unchecked($row.first + $position),
            Cells::MySql(row) => row.try_get_unchecked($row.first + $position),
            Cells::Postgres(row) => row.try_get_unchecked($row.first + $position),
            Cells::Packed(cells) => match cells.get($position) {
                Some(text) => $of_text(text),
                None => Err(sqlx::Error::ColumnIndexOutOfBounds { index: $position, len: cells.len() }),
            },
        }
    };
}

impl<'r> Row<'r> {
    /// A row of a driver.
    pub fn of<R: sqlx::Row<Database: Values<Row = R>>>(row: &'r R) -> Self {
        R::Database::row(row, 0)
    }

    /// A row whose values are these texts.
    pub(super) const fn packed(cells: &'r [&'r str]) -> Self {
        Self { cells: Cells::Packed(cells), first: 0 }
    }

    /// Reads a whole number.
    ///
    /// # Errors
    /// When the row has no such column, or its text is not a whole number.
    pub fn integer(&self, position: usize) -> Result<i64, sqlx::Error> {
        cell!(self, position, |text: &str| text.parse::<i64>().map_err(|cause| sqlx::Error::Decode(cause.into())))
    }

    /// Reads text.
    ///
    /// # Errors
    /// When the row has no such column.
    pub fn text(&self, position: usize) -> Result<&'r str, sqlx::Error> {
        cell!(self, position, |text: &&'r str| Ok(*text))
    }

    /// Reads a moment.
    ///
    /// # Errors
    /// When the row has no such column, or its text is not a timestamp of RFC 3339.
    pub fn time(&self, position: usize) -> Result<Timestamp, sqlx::Error> {
        let time = cell!(self, position, |text| Timestamp::parse(text)
            .map(|time| time.0)
            .map_err(|cause| sqlx::Error::Decode(cause.into())));
        time.map(Timestamp)
    }
}

/// The same code for the types of each driver.
macro_rules! values {
    ($($engine:ident: ($time:expr, $now:literal, $limit:literal),)+) => {
        $(impl Values for $engine {
            const NOW: &'static str = $now;
            const LIMIT: &'static str = $limit;

            fn bind(query: &mut QueryBuilder<Self>, value: &Value<'_>) {
                match value {
                    Value::Integer(integer) => query.push_bind(*integer),
                    Value::Text(text) => query.push_bind(&**text),
                    Value::Time(Timestamp(time)) => query.push_bind($time(*time)),
                };
            }

            fn row(row: &Self::Row, first: usize) -> Row<'_> {
                Row { cells: Cells::$engine(row), first }
            }
        })+
    };
}
values! {
    // SQLite plans a statement again for each value of a parameter that is a LIMIT by itself. That costs more than a page.
    Sqlite: (identity, "unixepoch()", "0 + "),
    // MariaDB limits parameters of the type TIMESTAMP to 2038.
    MySql: (|time: OffsetDateTime| PrimitiveDateTime::new(time.date(), time.time()), "unix_timestamp()", ""),
    Postgres: (identity, "floor(extract(epoch FROM statement_timestamp()))::bigint", ""),
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn a_timestamp_is_in_utc_and_in_whole_seconds() {
        for (text, written) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("2026-01-31T23:59:59+02:00", "2026-01-31T21:59:59Z"),
            ("2026-01-31T23:59:59.000Z", "2026-01-31T23:59:59Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::parse(text).map(|time| time.to_string()).as_deref(), Ok(written), "{text}");
        }
        for (text, reason) in [
            ("", "is not a timestamp of RFC 3339, such as 2026-01-31T23:59:59Z"),
            ("2026-01-31", "is not a timestamp of RFC 3339, such as 2026-01-31T23:59:59Z"),
            ("2026-02-30T00:00:00Z", "is not a timestamp of RFC 3339, such as 2026-01-31T23:59:59Z"),
            ("2016-12-31T23:59:60Z", "is a leap second, which is not stored"),
            ("2026-01-31T23:59:59.5Z", "has a fraction of a second, which is not stored"),
            ("1969-12-31T23:59:59Z", "is not between the years 1970 and 9999"),
            ("9999-12-31T23:59:59-00:01", "is not between the years 1970 and 9999"),
        ] {
            assert_eq!(Timestamp::parse(text), Err(reason), "{text}");
        }
        let time = Timestamp::from_unix(1_769_903_999);
        assert_eq!(
            time.map(|time| (time.unix(), time.to_string())),
            Some((1_769_903_999, "2026-01-31T23:59:59Z".into()))
        );
    }
}
