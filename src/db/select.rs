//! A query of rows, whatever the engine.

use sqlx::QueryBuilder;

use super::value::{Value, Values};

/// A query of rows and its values. Its SQL consists of constants only.
#[derive(Clone)]
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
            select.columns += 1;
        }
        select.push(" FROM ").push(from);
        select
    }

    /// Appends SQL.
    pub fn push(&mut self, sql: &'static str) -> &mut Self {
        debug_assert!(!sql.contains('?'), "a value is bound");
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

    /// Whether the other query differs in its values at most.
    pub(super) fn has_shape_of(&self, other: &Self) -> bool {
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
