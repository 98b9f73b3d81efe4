//! The statements of files and samples, made from the description of a table.

use std::collections::HashSet;

use futures_util::TryStreamExt as _;
use sqlx::{QueryBuilder, SqlStr};

use super::new_row::NewRow;
use super::table::{Table, push_list};
use crate::db::{self, Dialect, Error, Session, Value, Values, on_engine};

/// The effect of an `INSERT` on a row that exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The statement fails with [`Error::Constraint`].
    Refuse,
    /// The row is unchanged.
    Keep,
}

/// What a run that inserts samples did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seeded {
    /// Samples that the run found or inserted, from the first one on.
    pub processed: u64,
    /// Those of them that the run inserted.
    pub inserted: u64,
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

/// The highest number of parameters of a statement that every engine supports (SQLite: 32,766).
const PARAMETERS_MAX: usize = 32_766;

/// Inserts rows, in the transaction of the caller. Consecutive rows with values for the same columns share a statement.
///
/// # Errors
/// [`Error::Constraint`] when one of them breaks a constraint.
pub async fn insert(session: &mut Session, table: &Table, rows: &[&NewRow], existing: Existing) -> Result<(), Error> {
    /// A function over the dialect, for the clause at the end.
    fn statement<DB: Dialect>(table: &Table, rows: &[&NewRow], existing: Existing) -> QueryBuilder<DB> {
        let mut query = QueryBuilder::new("INSERT INTO ");
        query.push(table.name).push(" (");
        let present = (0..).zip(table.names()).filter(|(at, _)| rows[0].value(*at).is_some());
        push_list(&mut query, present.map(|(_, name)| name));
        for (number, row) in rows.iter().enumerate() {
            query.push(if number > 0 { "), (" } else { ") VALUES (" });
            bind_list(&mut query, row.values());
        }
        query.push(")");
        if existing == Existing::Keep {
            DB::on_conflict_do_nothing(&mut query, table.columns[0].name);
        }
        query
    }
    for rows in rows.chunk_by(|row, next| row.present().eq(next.present())) {
        for rows in rows.chunks(PARAMETERS_MAX / table.columns.len()) {
            on_engine!(Session, session, conn => statement(table, rows, existing).build().execute(&mut *conn).await.map(drop))?;
        }
    }
    Ok(())
}

fn bind_list<'v, DB: Values>(query: &mut QueryBuilder<DB>, values: impl Iterator<Item = &'v Value<'static>>) {
    for (number, value) in values.enumerate() {
        query.push(if number > 0 { ", " } else { "" });
        DB::bind(query, value);
    }
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
    /// None if the rows have no keys.
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
            bind_list(query, keys.iter());
            query.push(")");
        }
        query
    }
    let mut taken = Taken::none(table);
    on_engine!(Session, session, conn => {
        let Some(mut query) = query(table, rows) else { return Ok(taken) };
        let mut rows = query.build().fetch(conn);
        while let Some(row) = rows.try_next().await? {
            for (at, _) in table.unique() {
                taken.keys.insert((at, table.read(db::Row::of(&row), at)?.into_key()));
            }
        }
        Ok(taken)
    })
}

/// Makes the ids that the database generates continue after the highest id that was inserted explicitly.
///
/// # Errors
/// Those of the database.
pub(super) async fn resync_ids(session: &mut Session, table: &Table) -> Result<(), Error> {
    fn statement<C: sqlx::Connection<Database: Dialect>>(_: &C, table: &Table) -> Option<SqlStr> {
        C::Database::resync_sequence(table.name, table.columns[0].name)
    }
    let statement = on_engine!(Session, session, conn => statement(conn, table));
    match statement {
        Some(sql) => session.execute(sql).await,
        None => Ok(()),
    }
}
