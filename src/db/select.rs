//! A `SELECT` for any engine.

use std::fmt::Write as _;

use sqlx::QueryBuilder;

use super::value::{Value, Values};

/// A query and its values. Its SQL consists of constants only.
pub struct Select {
    columns: usize,
    /// What follows `SELECT`, with `?` in the place of each value.
    sql: String,
    values: Vec<Value<'static>>,
}

impl Select {
    /// A query of these columns.
    #[must_use]
    pub fn of(columns: impl Iterator<Item = &'static str>, from: &'static str) -> Self {
        let mut select = Self { columns: 0, sql: String::with_capacity(160), values: Vec::with_capacity(4) };
        for column in columns {
            select.push(if select.columns > 0 { ", " } else { "" }).push(column);
            // A derived table refuses two columns of one name, such as those of a join.
            let _ = write!(select.sql, " AS c{}", select.columns);
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
        assert!(!sql.contains('?'), "SQL must not contain ?: bind the value instead");
        self.sql.push_str(sql);
        self
    }

    /// Appends a value.
    pub fn bind(&mut self, value: impl Into<Value<'static>>) -> &mut Self {
        self.sql.push('?');
        self.values.push(value.into());
        self
    }

    /// The number of columns.
    pub(super) const fn columns(&self) -> usize {
        self.columns
    }

    /// Whether the two have the same SQL.
    pub(super) fn differs_in_values_only(&self, other: &Self) -> bool {
        self.sql == other.sql
    }

    /// Appends this query without the word `SELECT`.
    pub(super) fn push_to<DB: Values>(&self, query: &mut QueryBuilder<DB>) {
        let mut sql = self.sql.split('?');
        query.push(sql.next().unwrap_or_default());
        for (sql, value) in sql.zip(&self.values) {
            DB::bind(query, value);
            query.push(sql);
        }
    }
}
