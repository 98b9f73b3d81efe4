//! The transaction of a request.

use std::cell::RefCell;

use futures_util::future::LocalBoxFuture;
use sqlx::{Executor as _, QueryBuilder, SqlStr};
use tracing::Dispatch;
use tracing::instrument::{WithDispatch, WithSubscriber as _};

use super::batch::statement;
use super::dialect::{Connection, Dialect, Each, read};
use super::engine::on_engine;
use super::error::Error;
use super::select::Select;
use super::sql::Sql;
use super::value::Row;

/// A transaction that writes. After an error of the database, it can only be rolled back.
pub struct Transaction<'c> {
    connection: Connection<'c>,
    /// Whether its statements may stay prepared.
    persistent: bool,
    /// The first one.
    failure: Option<Error>,
}

impl<'c> Transaction<'c> {
    pub(super) const fn new(connection: Connection<'c>, persistent: bool) -> Self {
        Self { connection, persistent, failure: None }
    }

    /// The error of the database because of which it must be rolled back.
    pub(super) fn into_failure(self) -> Option<Error> {
        self.failure
    }

    /// Executes a statement, and returns the number of rows that it changed. MySQL counts the rows that it found.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn execute(&mut self, sql: &Sql) -> Result<u64, Error> {
        self.run(sql, None, None).await
    }

    /// Executes an `INSERT` of one row, and returns the value of its column `id`.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn insert(&mut self, sql: &Sql, id: &'static str) -> Result<i64, Error> {
        let persistent = self.persistent;
        let outcome = on_engine!(Connection, &mut self.connection, conn => {
            let mut query = query(*conn, sql);
            quiet(Dialect::insert(&mut **conn, &mut query, id, persistent)).await
        });
        self.record(outcome)
    }

    /// Executes an `INSERT` of rows that may exist already; `key` is a column of the table's primary key.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn insert_missing(&mut self, sql: &Sql, key: &'static str) -> Result<(), Error> {
        self.run(sql, Some(key), None).await.map(drop)
    }

    /// Executes an `UPDATE`, or an `INSERT` of rows that may exist already, if there is a `key` (see
    /// [`Transaction::insert_missing`]). When the transaction is committed, this wakes the processes that listen on the
    /// channel (see [`Db::listen`](super::Db::listen)). Returns the number of rows, as [`Transaction::execute`].
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn publish(&mut self, sql: &Sql, key: Option<&'static str>, channel: &'static str) -> Result<u64, Error> {
        self.run(sql, key, Some(channel)).await
    }

    async fn run(&mut self, sql: &Sql, key: Option<&'static str>, channel: Option<&'static str>) -> Result<u64, Error> {
        let persistent = self.persistent;
        let outcome = on_engine!(Connection, &mut self.connection, conn => {
            let mut query = query(*conn, sql);
            if let Some(key) = key {
                Dialect::on_conflict_do_nothing(&mut query, key);
            }
            if let Some(channel) = channel {
                Dialect::notify(&mut query, channel);
            }
            quiet(query.build().persistent(persistent).execute(&mut **conn)).await.map(|done| done.rows_affected())
        });
        self.record(outcome)
    }

    /// Calls `each` with `rows` and each row of the query, and returns `rows`. Another transaction cannot change these
    /// rows before this one ends.
    ///
    /// # Errors
    /// Those of the query, and of `each`.
    pub async fn fetch_locked<T>(
        &mut self,
        select: &Select,
        rows: T,
        each: impl FnMut(&mut T, Row<'_>) -> Result<(), sqlx::Error>,
    ) -> Result<T, Error> {
        self.fetch(select, Locked::Awaited, rows, each).await
    }

    /// As [`Transaction::fetch_locked`], without the rows that another transaction has locked.
    ///
    /// # Errors
    /// Those of the query, and of `each`.
    pub async fn fetch_skip_locked<T>(
        &mut self,
        select: &Select,
        rows: T,
        each: impl FnMut(&mut T, Row<'_>) -> Result<(), sqlx::Error>,
    ) -> Result<T, Error> {
        self.fetch(select, Locked::Skipped, rows, each).await
    }

    async fn fetch<T>(
        &mut self,
        select: &Select,
        locked: Locked,
        mut rows: T,
        mut each: impl FnMut(&mut T, Row<'_>) -> Result<(), sqlx::Error>,
    ) -> Result<T, Error> {
        let persistent = self.persistent;
        let each: &mut Each<'_> = &mut |_, row| row.map_or(Ok(()), |row| each(&mut rows, row));
        let outcome = on_engine!(Connection, &mut self.connection, conn => {
            let mut query = locking_query(*conn, select, locked);
            quiet(read(&mut **conn, persistent, &mut query, select.columns(), each)).await
        });
        self.record(outcome)?;
        Ok(rows)
    }

    /// Executes statements without parameters, unprepared.
    ///
    /// # Errors
    /// Those of the statements.
    pub(super) async fn execute_unprepared(&mut self, sql: SqlStr) -> Result<(), Error> {
        let outcome = on_engine!(Connection, &mut self.connection, conn => quiet(conn.execute(sql)).await.map(drop));
        self.record(outcome)
    }

    fn record<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, Error> {
        outcome.map_err(|cause| {
            let error = Error::from(cause);
            self.failure.get_or_insert_with(|| error.clone());
            error
        })
    }
}

/// What is done in a transaction. It has no type parameters, so that the pool is compiled once for all of them.
pub(super) trait Work {
    /// Does the work, and returns whether the transaction is to be committed.
    fn run<'a>(&'a self, transaction: &'a mut Transaction<'_>) -> LocalBoxFuture<'a, bool>;
}

/// An async closure, and its last outcome.
pub(super) struct Closure<F, T, E> {
    work: F,
    outcome: RefCell<Option<Result<T, E>>>,
}

impl<F, T, E> Closure<F, T, E> {
    pub(super) const fn new(work: F) -> Self {
        Self { work, outcome: RefCell::new(None) }
    }

    /// The outcome of a closure that ran to its end.
    pub(super) fn into_outcome(self) -> Result<T, E> {
        self.outcome.into_inner().expect("the closure ran to its end")
    }
}

impl<F: AsyncFn(&mut Transaction<'_>) -> Result<T, E>, T, E> Work for Closure<F, T, E> {
    fn run<'a>(&'a self, transaction: &'a mut Transaction<'_>) -> LocalBoxFuture<'a, bool> {
        Box::pin(async {
            let outcome = (self.work)(transaction).await;
            let is_done = outcome.is_ok();
            self.outcome.replace(Some(outcome));
            is_done
        })
    }
}

/// Calls the driver out of every span, because it would enter the span for each row (see `Pool::limit`).
fn quiet<F: Future>(call: F) -> WithDispatch<F> {
    call.with_subscriber(Dispatch::none())
}

/// A connection whose engine is known.
trait Typed: sqlx::Connection<Database: Dialect<Connection = Self>> {}
impl<C: sqlx::Connection<Database: Dialect<Connection = C>>> Typed for C {}

/// A statement for the engine of a connection.
fn query<C: Typed>(_: &C, sql: &Sql) -> QueryBuilder<C::Database> {
    let mut query = QueryBuilder::new("");
    sql.push_to(&mut query);
    query
}

/// What a query does with rows that another transaction has locked.
#[derive(Clone, Copy)]
enum Locked {
    Awaited,
    Skipped,
}

/// A query for the engine of a connection, which locks its rows.
fn locking_query<C: Typed>(_: &C, select: &Select, locked: Locked) -> QueryBuilder<C::Database> {
    let mut query = statement(&[select]);
    query.push(match locked {
        Locked::Awaited => C::Database::FOR_UPDATE,
        Locked::Skipped => C::Database::SKIP_LOCKED,
    });
    query
}
