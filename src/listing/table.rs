//! The description of a table.

use sqlx::QueryBuilder;

use super::column::{Column, Kind};
use crate::db::{Value, Values};

/// A table, or a join whose rows are listed like those of a table.
#[derive(Debug)]
pub struct Table {
    /// Its name, also on the command line.
    pub name: &'static str,
    /// One of its rows, for messages.
    pub row: &'static str,
    /// What follows FROM in a query.
    pub from: &'static str,
    /// Its columns, in the order of the fields of the row. The first identifies a row within a listing.
    pub columns: &'static [Column],
    /// The meaning of the parameter `q`. None if the table has no search.
    pub search: Option<Search>,
    /// The constraints by the names that the engines report, each with the reason why a row is refused.
    pub constraints: &'static [(&'static str, &'static str)],
}

/// The meaning of the parameter `q` of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The name of the column whose values begin with `q`.
    pub column: fn(q: &str) -> &'static str,
    /// The same for the documentation of the API.
    pub description: &'static str,
}

/// There is one description of each table.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Table {}

impl Table {
    /// The position of a column.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The names of its columns, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().map(|column| column.name)
    }

    /// A query of all columns and rows, to which conditions can be appended.
    pub(super) fn select<DB: Values>(&self) -> QueryBuilder<DB> {
        let mut query = QueryBuilder::new("");
        self.push_select(&mut query);
        query
    }

    pub(super) fn push_select<DB: Values>(&self, query: &mut QueryBuilder<DB>) {
        query.push("SELECT ");
        push_list(query, self.columns.iter().map(|column| column.sql));
        query.push(" FROM ").push(self.from);
    }

    /// The value of the column at this position, in a row that [`Table::select`] returned.
    pub(super) fn read<'r, DB: Values>(&self, row: &'r DB::Row, position: usize) -> Result<Value<'r>, sqlx::Error> {
        match self.columns[position].kind {
            Kind::Id | Kind::Reference => DB::read_integer(row, position).map(Value::from),
            Kind::Text(..) => DB::read_text(row, position).map(Value::from),
            Kind::Time => DB::read_time(row, position).map(Value::from),
        }
    }

    /// The order of an export: its first columns identify a row.
    pub(super) fn order(&self) -> String {
        let ids = self.columns.iter().take_while(|column| matches!(column.kind, Kind::Id | Kind::Reference));
        ids.map(|column| column.sql).collect::<Vec<_>>().join(", ")
    }

    /// The reason why the table refuses a row that breaks this constraint.
    pub(super) fn refusal(&self, constraint: &str) -> String {
        let reason = self.constraints.iter().find(|(name, _)| *name == constraint);
        reason.map_or_else(|| format!("it breaks the constraint {constraint}"), |(_, reason)| (*reason).to_owned())
    }

    /// The columns whose values differ between any two rows of the table.
    pub(super) fn unique(&self) -> impl Iterator<Item = (usize, &'static Column)> {
        (0..).zip(self.columns).filter(|(_, column)| column.is_unique)
    }
}

pub(super) fn push_list<DB: Values>(query: &mut QueryBuilder<DB>, items: impl Iterator<Item = &'static str>) {
    for (position, item) in items.enumerate() {
        query.push(if position > 0 { ", " } else { "" }).push(item);
    }
}
