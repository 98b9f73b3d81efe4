//! A `SELECT` for any engine.

use sqlx::QueryBuilder;

use super::sql::Sql;
use super::value::{Value, Values};

/// A query and its values. Its SQL consists of constants only.
pub struct Select {
    columns: usize,
    /// What follows `SELECT`.
    sql: Sql,
}

impl Select {
    /// A query of these columns.
    #[must_use]
    pub fn of(columns: impl Iterator<Item = &'static str>, from: &'static str) -> Self {
        let mut select = Self { columns: 0, sql: Sql::new("") };
        for column in columns {
            select.push(if select.columns > 0 { ", " } else { "" }).push(column);
            // A derived table refuses two columns of one name, such as those of a join.
            select.sql.push(" AS c").push_number(select.columns);
            select.columns += 1;
        }
        select.push(" FROM ").push(from);
        select
    }

    /// Appends SQL.
    ///
    /// # Panics
    /// If it contains `?`.
    pub fn push(&mut self, sql: &'static str) -> &mut Self {
        self.sql.push(sql);
        self
    }

    /// Appends a value.
    pub fn bind(&mut self, value: impl Into<Value<'static>>) -> &mut Self {
        self.sql.bind(value);
        self
    }

    /// Appends several values in parentheses, such as those of `IN`.
    pub fn bind_list(&mut self, values: impl IntoIterator<Item: Into<Value<'static>>>) -> &mut Self {
        self.sql.bind_list(values);
        self
    }

    /// Appends the time of the database in seconds since 1970.
    pub fn push_now(&mut self) -> &mut Self {
        self.sql.push_now();
        self
    }

    /// Appends `LIMIT` and this number of rows.
    pub fn push_limit(&mut self, rows: i64) -> &mut Self {
        self.sql.push_limit(rows);
        self
    }

    /// The number of columns.
    pub(super) const fn columns(&self) -> usize {
        self.columns
    }

    /// Whether the two have the same SQL.
    pub(super) fn differs_in_values_only(&self, other: &Self) -> bool {
        self.sql.differs_in_values_only(&other.sql)
    }

    /// Appends this query without the word `SELECT`.
    pub(super) fn push_to<DB: Values>(&self, query: &mut QueryBuilder<DB>) {
        self.sql.push_to(query);
    }
}
