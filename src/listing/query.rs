//! The query of a listing: always one range of one index.

use std::fmt;

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::{Either, Executor as _, QueryBuilder};

use super::column::Column;
use super::resource::Resource;
use super::row::Row;
use super::table::Table;
use crate::db::{Db, Dialect, Error, Value, Values, on_engine};

/// A position in a listing: the key of the row that a page ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key of the column that orders the listing.
    pub value: Value<'static>,
    /// The value of the first column, which orders rows with the same key. None if the column is unique.
    pub id: Option<i64>,
}

/// The part of a table that a listing shows: the rows whose column, named first, has this value.
pub type Scope = (&'static str, i64);

/// The query of one page: its rows, their order, and the position where it begins.
#[derive(Clone)]
pub struct Listing {
    /// Where the rows are.
    pub table: &'static Table,
    /// Only the rows of this part.
    pub scope: Option<Scope>,
    /// The position of the column that orders the listing, and that the prefix and the key refer to.
    pub column: usize,
    /// From the highest to the lowest.
    pub descending: bool,
    /// Only rows whose column begins with this text, ignoring ASCII case.
    pub prefix: Option<String>,
    /// Only rows after this key (keyset paging: <https://use-the-index-luke.com/no-offset>).
    pub after: Option<Key>,
    /// The maximum number of rows.
    pub limit: u32,
}

impl Listing {
    /// The column that orders the listing.
    #[must_use]
    pub const fn column(&self) -> &'static Column {
        &self.table.columns[self.column]
    }

    fn key<'r>(&self, row: impl Row<'r>) -> Key {
        let column = self.column();
        let id = || match row.value(0) {
            Value::Integer(id) => Some(id),
            Value::Text(_) | Value::Time(_) => None,
        };
        Key { value: row.value(self.column).into_key(), id: if column.is_unique { None } else { id() } }
    }

    /// The query of this listing, which its tests explain.
    ///
    /// # Panics
    /// When no index orders the rows by the column. `Parameters` accepts no such column.
    #[must_use]
    pub fn select<DB: Dialect>(&self) -> QueryBuilder<DB> {
        let column = self.column();
        let key = column.key.expect("a listing is ordered by a key");
        let id = self.table.columns[0].key.expect("the first column has a key");
        let mut query = self.table.select();
        let mut and = " WHERE ";
        let mut condition = |query: &mut QueryBuilder<DB>, sql: &str, operator: &str, value: &Value<'_>| {
            query.push(and).push(sql).push(operator);
            DB::bind(query, value);
            and = " AND ";
        };
        if let Some((column, value)) = self.scope {
            condition(&mut query, column, " = ", &value.into());
        }
        if let Some(after) = &self.after {
            let beyond = if self.descending { " < " } else { " > " };
            match after.id {
                None => condition(&mut query, key, beyond, &after.value),
                Some(last) if DB::COMPARES_PAIRS => {
                    condition(&mut query, &format!("({key}, {id})"), &format!("{beyond}("), &after.value);
                    query.push(", ");
                    DB::bind(&mut query, &last.into());
                    query.push(")");
                }
                Some(last) => {
                    condition(&mut query, &format!("({key}"), beyond, &after.value);
                    query.push(" OR ").push(key).push(" = ");
                    DB::bind(&mut query, &after.value);
                    query.push(" AND ").push(id).push(beyond);
                    DB::bind(&mut query, &last.into());
                    query.push(")");
                }
            }
        }
        if let Some(prefix) = &self.prefix {
            let prefix = prefix.to_ascii_lowercase();
            if let Some(end) = end_of_prefix(&prefix) {
                condition(&mut query, key, " < ", &Value::Text(end.into()));
            }
            condition(&mut query, key, " >= ", &Value::Text(prefix.into()));
        }
        let order = if self.descending { " DESC" } else { "" };
        query.push(" ORDER BY ").push(key).push(order);
        if !column.is_unique {
            query.push(", ").push(id).push(order);
        }
        // The query returns one more row than the page has, if there is a next page.
        query.push(" LIMIT ");
        DB::bind(&mut query, &(i64::from(self.limit) + 1).into());
        query
    }
}

/// The values of a listing come from clients, so they are not shown.
impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.descending { "descending" } else { "ascending" };
        write!(f, "{} by {}, {order}", self.table.name, self.column().name)
    }
}

/// The least text above every text that begins with this prefix, by code points. None if there is no such text.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut end: Vec<char> = prefix.chars().collect();
    while let Some(last) = end.pop() {
        // The range skips the surrogates, which are not characters.
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end.into_iter().collect());
        }
    }
    None
}

/// Passes one page of a listing to `each`, row by row. Returns the key of its last row if another page follows. `each` is
/// called by reference, so that this is compiled once for each engine, and not once more for each caller.
///
/// # Errors
/// Those of the database. The rows that were passed are not a page then.
pub async fn page<T: Resource>(
    db: &Db,
    listing: &Listing,
    each: &mut dyn FnMut(T::Row<'_>),
) -> Result<Option<Key>, Error> {
    let () = T::IS_CONSISTENT;
    on_engine!(Db, db, pool => pool.run(async |conn, persistent| {
        let mut query = listing.select();
        let rows = conn.fetch_many(query.build().persistent(persistent));
        read::<_, _, T>(rows, listing, each).await
    }).await)
}

/// Reads all rows, so that the connection is ready for the next query. The stream is that of the driver, because the stream
/// of `fetch` adds another layer.
async fn read<R, Q, T: Resource>(
    mut rows: BoxStream<'_, Result<Either<Q, R>, sqlx::Error>>,
    listing: &Listing,
    each: &mut dyn FnMut(T::Row<'_>),
) -> Result<Option<Key>, sqlx::Error>
where
    R: sqlx::Row<Database: Values<Row = R>>,
{
    let (mut count, mut last, mut next) = (0, None, None);
    while let Some(row_or_result) = rows.try_next().await? {
        let Either::Right(row) = row_or_result else { continue };
        let row = read_row::<_, T>(&row)?;
        count += 1;
        if count == listing.limit {
            last = Some(listing.key(row));
        }
        if count > listing.limit {
            next = last.take();
        } else {
            each(row);
        }
    }
    Ok(next)
}

fn read_row<R, T: Resource>(row: &R) -> Result<T::Row<'_>, sqlx::Error>
where
    R: sqlx::Row<Database: Values<Row = R>>,
{
    T::Row::read::<R::Database>(row)
}

/// Passes the row with this id to `found`. None if there is no such row.
///
/// # Errors
/// Those of the database.
pub async fn get<T: Resource, F>(db: &Db, id: i64, found: impl FnOnce(T::Row<'_>) -> F) -> Result<Option<F>, Error> {
    let () = T::IS_CONSISTENT;
    on_engine!(Db, db, pool => pool.run(async |conn, persistent| {
        let mut query = T::TABLE.select();
        query.push(" WHERE ").push(T::TABLE.columns[0].sql).push(" = ").push_bind(id);
        let row = query.build().persistent(persistent).fetch_optional(conn).await?;
        row.as_ref().map(read_row::<_, T>).transpose().map(|row| row.map(found))
    }).await)
}

#[cfg(test)]
mod tests {
    use super::end_of_prefix;

    #[test]
    fn a_prefix_ends_before_the_next_text() {
        assert_eq!(end_of_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(end_of_prefix("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(end_of_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(end_of_prefix("\u{10ffff}"), None);
        assert_eq!(end_of_prefix(""), None);
    }
}
