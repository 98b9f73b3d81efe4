//! SQL for any engine, with its values.

use std::fmt::Write as _;

use sqlx::QueryBuilder;

use super::value::{Value, Values};

/// A statement and its values. Its SQL consists of constants only.
pub struct Sql {
    /// With `?` in the place of each parameter.
    text: String,
    parameters: Vec<Parameter>,
}

enum Parameter {
    Value(Value<'static>),
    /// The time of the database.
    Now,
    /// The number of rows in a `LIMIT`.
    Limit(i64),
}

impl Sql {
    /// A statement that begins with this SQL.
    ///
    /// # Panics
    /// If it contains `?`.
    #[must_use]
    pub fn new(sql: &'static str) -> Self {
        let mut new = Self { text: String::with_capacity(160), parameters: Vec::with_capacity(4) };
        new.push(sql);
        new
    }

    /// Appends SQL.
    ///
    /// # Panics
    /// If it contains `?`.
    pub fn push(&mut self, sql: &'static str) -> &mut Self {
        assert!(!sql.contains('?'), "SQL must not contain ?: bind the value instead");
        self.text.push_str(sql);
        self
    }

    /// Appends a number, such as that of a column.
    pub(super) fn push_number(&mut self, number: usize) -> &mut Self {
        // Text can be written.
        let _ = write!(self.text, "{number}");
        self
    }

    /// Appends a value.
    pub fn bind(&mut self, value: impl Into<Value<'static>>) -> &mut Self {
        self.text.push('?');
        self.parameters.push(Parameter::Value(value.into()));
        self
    }

    /// Appends several values in parentheses, such as those of `IN`.
    pub fn bind_list(&mut self, values: impl IntoIterator<Item: Into<Value<'static>>>) -> &mut Self {
        self.push("(");
        for (number, value) in values.into_iter().enumerate() {
            self.push(if number > 0 { ", " } else { "" }).bind(value);
        }
        self.push(")")
    }

    /// Appends the time of the database in seconds since 1970. The clocks of several processes may differ.
    pub fn push_now(&mut self) -> &mut Self {
        self.text.push('?');
        self.parameters.push(Parameter::Now);
        self
    }

    /// Appends `LIMIT` and this number of rows.
    pub fn push_limit(&mut self, rows: i64) -> &mut Self {
        self.text.push_str(" LIMIT ?");
        self.parameters.push(Parameter::Limit(rows));
        self
    }

    /// Whether the two have the same SQL.
    pub(super) fn differs_in_values_only(&self, other: &Self) -> bool {
        self.text == other.text
    }

    /// Appends this statement to a query of an engine, with the engine's placeholders.
    pub(super) fn push_to<DB: Values>(&self, query: &mut QueryBuilder<DB>) {
        let mut parts = self.text.split('?');
        query.push(parts.next().unwrap_or_default());
        for (part, parameter) in parts.zip(&self.parameters) {
            match parameter {
                Parameter::Value(value) => DB::bind(query, value),
                Parameter::Now => _ = query.push(DB::NOW),
                Parameter::Limit(rows) => DB::bind(query.push(DB::LIMIT), &Value::Integer(*rows)),
            }
            query.push(part);
        }
    }
}
