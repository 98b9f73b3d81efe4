//! The description of a table.

use sqlx::QueryBuilder;

use super::column::{Column, Kind};
use crate::db::{self, Select, Sql, Value, Values};

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
    /// Other constraints than those of unique columns, by the names that the engines report, each with the reason why a
    /// row is refused.
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

    /// The beginning of a query for requests: all columns and rows, to which conditions can be appended.
    pub(super) fn select_listed(&self) -> Select {
        Select::of(self.columns.iter().map(|column| column.sql), self.from)
    }

    /// The same for files.
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

    /// The value of the column at this position, in a row of the table. For files; a listing uses `Row::read`.
    pub(super) fn read<'r>(&self, row: db::Row<'r>, position: usize) -> Result<Value<'r>, sqlx::Error> {
        match self.columns[position].kind {
            Kind::Id | Kind::Reference => row.integer(position).map(Value::from),
            Kind::Text(..) => row.text(position).map(Value::from),
            Kind::Time => row.time(position).map(Value::from),
        }
    }

    /// The order of an export: the id, or the references with which the primary key begins.
    pub(super) fn order(&self) -> String {
        if matches!(self.columns[0].kind, Kind::Id) {
            return self.columns[0].sql.to_owned();
        }
        let ids = self.columns.iter().take_while(|column| matches!(column.kind, Kind::Id | Kind::Reference));
        ids.map(|column| column.sql).collect::<Vec<_>>().join(", ")
    }

    /// The reason why the table refuses a row that breaks this constraint.
    pub(super) fn refusal(&self, constraint: &str) -> String {
        if let Some(reason) = self.constraint(constraint) {
            return reason.to_owned();
        }
        match self.taken_column(constraint) {
            Some(column) => is_taken(&[column.name]),
            None => format!("it breaks the constraint {constraint}"),
        }
    }

    /// The reason of a constraint that is not one of a unique column.
    pub(super) fn constraint(&self, constraint: &str) -> Option<&'static str> {
        self.constraints.iter().find(|(name, _)| *name == constraint).map(|(_, reason)| *reason)
    }

    /// The column whose value exists already, by the constraint that a row breaks.
    pub(super) fn taken_column(&self, constraint: &str) -> Option<&'static Column> {
        // PostgreSQL and MySQL report the name of the constraint, and SQLite that of the column.
        let is_broken = |column: &Column| {
            let key = column.key.unwrap_or(column.name);
            let (key_name, primary) = (format!("{}_{key}", self.name), format!("{}_pkey", self.name));
            constraint == key
                || constraint == key_name
                || matches!(column.kind, Kind::Id) && (constraint == primary || constraint == "PRIMARY")
        };
        self.unique().find(|(_, column)| is_broken(column)).map(|(_, column)| column)
    }

    /// The columns whose values differ between any two rows of the table.
    pub(super) fn unique(&self) -> impl Iterator<Item = (usize, &'static Column)> {
        (0..).zip(self.columns).filter(|(_, column)| column.is_unique)
    }
}

/// The reason why a row is refused whose values in these columns exist already.
pub(super) fn is_taken(columns: &[&str]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| format!("{column} is taken")).collect();
    format!("{}, in the table or by an earlier line", columns.join(" and "))
}

pub(super) fn push_list<DB: Values>(query: &mut QueryBuilder<DB>, items: impl Iterator<Item = &'static str>) {
    for (position, item) in items.enumerate() {
        query.push(if position > 0 { ", " } else { "" }).push(item);
    }
}

/// Appends items with commas between them.
pub(super) fn push_items<T>(sql: &mut Sql, items: impl Iterator<Item = T>, mut push: impl FnMut(&mut Sql, T)) {
    for (position, item) in items.enumerate() {
        sql.push(if position > 0 { ", " } else { "" });
        push(sql, item);
    }
}
