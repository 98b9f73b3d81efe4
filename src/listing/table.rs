//! The description of a table, and the statements that are made of it.

use std::collections::HashSet;

use futures_util::TryStreamExt as _;
use sqlx::{QueryBuilder, SqlStr};

use super::import::NewRow;
use super::{Column, Kind};
use crate::db::{Dialect, Error, Session, Value, Values, on_engine};

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

/// The effect of an `INSERT` on a row that exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The statement fails with [`Error::Constraint`].
    Refuse,
    /// The row is unchanged.
    Keep,
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

    fn push_select<DB: Values>(&self, query: &mut QueryBuilder<DB>) {
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
    fn unique(&self) -> impl Iterator<Item = (usize, &'static Column)> {
        (0..).zip(self.columns).filter(|(_, column)| column.is_unique)
    }
}

fn push_list<DB: Values>(query: &mut QueryBuilder<DB>, items: impl Iterator<Item = &'static str>) {
    for (position, item) in items.enumerate() {
        query.push(if position > 0 { ", " } else { "" }).push(item);
    }
}

/// Whether a table has no rows.
///
/// # Errors
/// Those of the database.
pub async fn is_empty(session: &mut Session, table: &Table) -> Result<bool, Error> {
    on_engine!(Session, session, conn => {
        let mut query = QueryBuilder::new("SELECT 1 FROM ");
        query.push(table.from).push(" LIMIT 1");
        Ok(query.build().fetch_optional(conn).await?.is_none())
    })
}

/// Inserts rows by one statement: all of them or none. Either each of them has an id or none has.
///
/// # Errors
/// [`Error::Constraint`] when one of them breaks a constraint.
pub async fn insert(session: &mut Session, table: &Table, rows: &[&NewRow], existing: Existing) -> Result<(), Error> {
    /// A function over the dialect, for the clause at the end.
    fn statement<DB: Dialect>(table: &Table, rows: &[&NewRow], existing: Existing) -> QueryBuilder<DB> {
        let mut query = QueryBuilder::new("INSERT INTO ");
        query.push(table.name).push(" (");
        let present =
            (0..).zip(table.names()).filter(|(at, _)| rows.first().is_some_and(|row| row.value(*at).is_some()));
        push_list(&mut query, present.map(|(_, name)| name));
        for (number, row) in rows.iter().enumerate() {
            query.push(if number > 0 { "), (" } else { ") VALUES (" });
            for (number, value) in row.values().enumerate() {
                query.push(if number > 0 { ", " } else { "" });
                DB::bind(&mut query, value);
            }
        }
        query.push(")");
        if existing == Existing::Keep {
            DB::on_conflict_do_nothing(&mut query, table.columns[0].name);
        }
        query
    }
    if rows.is_empty() {
        return Ok(());
    }
    on_engine!(Session, session, conn => statement(table, rows, existing).build().execute(conn).await.map(drop))
        .map_err(Error::from)
}

/// The keys of rows in a table, and of earlier rows of the same file.
#[derive(Debug)]
pub(super) struct Taken {
    table: &'static Table,
    /// Each with the position of its column.
    keys: HashSet<(usize, Value<'static>)>,
}

impl Taken {
    pub(super) fn none(table: &'static Table) -> Self {
        Self { table, keys: HashSet::new() }
    }

    /// The columns whose keys are taken. If there are none, the keys of this row are taken after the call.
    pub(super) fn claim(&mut self, row: &NewRow) -> Vec<&'static str> {
        let keys = self.table.unique().filter_map(|(at, column)| Some((column.name, (at, row.key(at)?))));
        let keys: Vec<_> = keys.collect();
        let taken: Vec<_> = keys.iter().filter(|(_, key)| self.keys.contains(key)).map(|(name, _)| *name).collect();
        if taken.is_empty() {
            self.keys.extend(keys.into_iter().map(|(_, key)| key));
        }
        taken
    }
}

/// The keys of these rows that the table has already. One query with a part for each unique column; each part is a lookup
/// in one index. Another session may insert rows at any time, so [`insert`] may still fail.
///
/// # Errors
/// Those of the database.
pub(super) async fn taken<L>(
    session: &mut Session,
    table: &'static Table,
    rows: &[(L, NewRow)],
) -> Result<Taken, Error> {
    /// None if the rows bring no keys.
    fn query<DB: Values, L>(table: &'static Table, rows: &[(L, NewRow)]) -> Option<QueryBuilder<DB>> {
        let mut query: Option<QueryBuilder<DB>> = None;
        for (at, column) in table.unique() {
            let keys: Vec<_> = rows.iter().filter_map(|(_, row)| row.key(at)).collect();
            if keys.is_empty() {
                continue;
            }
            if let Some(query) = &mut query {
                query.push(" UNION ALL ");
            }
            let query = query.get_or_insert_with(|| QueryBuilder::new(""));
            table.push_select(query);
            query.push(" WHERE ").push(column.key.unwrap_or(column.sql)).push(" IN (");
            for (number, key) in keys.iter().enumerate() {
                query.push(if number > 0 { ", " } else { "" });
                DB::bind(query, key);
            }
            query.push(")");
        }
        query
    }
    fn add<R>(taken: &mut Taken, row: &R) -> Result<(), sqlx::Error>
    where
        R: sqlx::Row<Database: Values<Row = R>>,
    {
        for (at, _) in taken.table.unique() {
            let value = taken.table.read::<R::Database>(row, at)?;
            taken.keys.insert((at, value.into_key()));
        }
        Ok(())
    }
    let mut taken = Taken::none(table);
    on_engine!(Session, session, conn => {
        let Some(mut query) = query(table, rows) else { return Ok(taken) };
        let mut rows = query.build().fetch(conn);
        while let Some(row) = rows.try_next().await? {
            add(&mut taken, &row)?;
        }
        Ok(taken)
    })
}

/// Lets the ids that the database chooses continue after those that were inserted with an id.
///
/// # Errors
/// Those of the database.
pub(super) async fn resync_ids(session: &mut Session, table: &Table) -> Result<(), Error> {
    fn statement<C: sqlx::Connection<Database: Dialect>>(_: &C, table: &Table) -> Option<SqlStr> {
        C::Database::resync_sequence(table.name)
    }
    let statement = on_engine!(Session, session, conn => statement(conn, table));
    match statement {
        Some(sql) => session.execute(sql).await,
        None => Ok(()),
    }
}
