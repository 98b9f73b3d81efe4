//! The query of a listing: always one range of one index.

use std::fmt;

use super::column::Column;
use super::resource::Resource;
use super::row::Row;
use super::table::Table;
use crate::db::{self, Db, Error, Select, Value};

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

/// The most rows that are counted.
pub(super) const COUNTED_MAX: i64 = 1000;

impl Listing {
    /// The column that orders the listing.
    #[must_use]
    pub const fn column(&self) -> &'static Column {
        &self.table.columns[self.column]
    }

    /// The rows before this key, from there on backwards: a range of the same index, read in the other direction.
    #[must_use]
    pub fn before(&self, key: Key) -> Self {
        Self { descending: !self.descending, after: Some(key), ..self.clone() }
    }

    /// The query of this listing. `compares_pairs` is [`Db::compares_pairs`].
    ///
    /// # Panics
    /// When no index orders the rows by the column. `Parameters` accepts no such column.
    #[must_use]
    pub fn select(&self, compares_pairs: bool) -> Select {
        let mut select = self.table.select_listed();
        self.push_range(&mut select, self.after.as_ref(), compares_pairs);
        // The query returns one more row than the page has, if there is a next page.
        select.push_limit(i64::from(self.limit) + 1);
        select
    }

    /// The query of two numbers: how many of the first 1,001 rows there are, from any position, and how many of them are not
    /// before a page. The page begins after the key of this listing, or ends before the key `before`.
    ///
    /// # Panics
    /// As [`Self::select`].
    #[must_use]
    pub fn select_counts(&self, before: Option<&Key>) -> Select {
        let mut select = Select::of(["COUNT(*)", "COUNT(not_before)"].into_iter(), "(SELECT ");
        if self.table.name != self.table.from {
            // Without the columns of a join, MySQL may read a smaller index than that of the page, and sort.
            for column in self.table.columns {
                select.push(column.sql).push(" AS ").push(column.name).push(", ");
            }
        }
        match (before, &self.after) {
            (None, None) => _ = select.push("1"),
            (Some(key), _) | (None, Some(key)) => {
                let operator = match (self.descending, before.is_some()) {
                    (false, false) => " > ",
                    (false, true) => " >= ",
                    (true, false) => " < ",
                    (true, true) => " <= ",
                };
                select.push("CASE WHEN ");
                // It is no range of an index, so every engine may compare pairs.
                self.push_comparison(&mut select, operator, key, true);
                select.push(" THEN 1 END");
            }
        }
        select.push(" AS not_before FROM ").push(self.table.from);
        self.push_range(&mut select, None, true);
        select.push_limit(COUNTED_MAX + 1).push(") AS counted");
        select
    }

    /// Appends the conditions and the order of the rows that are after a key.
    fn push_range(&self, select: &mut Select, after: Option<&Key>, compares_pairs: bool) {
        let key = self.key();
        let mut and = " WHERE ";
        let mut condition = |select: &mut Select| {
            select.push(and);
            and = " AND ";
        };
        if let Some((column, value)) = self.scope {
            condition(select);
            select.push(column).push(" = ").bind(value);
        }
        if let Some(after) = after {
            condition(select);
            self.push_comparison(select, if self.descending { " < " } else { " > " }, after, compares_pairs);
        }
        if let Some(prefix) = &self.prefix {
            let prefix = prefix.to_ascii_lowercase();
            if let Some(end) = end_of_prefix(&prefix) {
                condition(select);
                select.push(key).push(" < ").bind(Value::Text(end.into()));
            }
            condition(select);
            select.push(key).push(" >= ").bind(Value::Text(prefix.into()));
        }
        let order = if self.descending { " DESC" } else { "" };
        select.push(" ORDER BY ").push(key).push(order);
        if !self.column().is_unique {
            select.push(", ").push(self.id()).push(order);
        }
    }

    /// Appends the comparison of a row with a key. Without `compares_pairs`, the operator must be `<` or `>`.
    fn push_comparison(&self, select: &mut Select, operator: &'static str, than: &Key, compares_pairs: bool) {
        let (key, id, value) = (self.key(), self.id(), || than.value.clone());
        match than.id {
            None => select.push(key).push(operator).bind(value()),
            Some(last) if compares_pairs => {
                select.push("(").push(key).push(", ").push(id).push(")").push(operator);
                select.push("(").bind(value()).push(", ").bind(last).push(")")
            }
            Some(last) => {
                select.push("(").push(key).push(operator).bind(value()).push(" OR ");
                select.push(key).push(" = ").bind(value()).push(" AND ").push(id).push(operator).bind(last).push(")")
            }
        };
    }

    fn key(&self) -> &'static str {
        self.column().key.expect("a listing is ordered by a key")
    }

    fn id(&self) -> &'static str {
        self.table.columns[0].key.expect("the first column has a key")
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

/// The most rows of a page that shares a statement with others.
const BATCHED_MAX: u32 = 100;

/// Calls `push` with the rows that `new` creates and each row of a page of a listing. Returns these rows, and the key of the
/// last one if another page follows.
///
/// # Errors
/// Those of the database.
///
/// # Panics
/// Outside of a `LocalSet`, as [`Db::fetch_batched`].
pub async fn page<T: Resource, C: Send + 'static>(
    db: &Db,
    listing: &Listing,
    new: impl Fn() -> C + Send + 'static,
    push: fn(&mut C, T::Row<'_>),
) -> Result<(C, Option<Key>), Error> {
    let () = T::IS_CONSISTENT;
    let (limit, column, is_unique) = (listing.limit, listing.column, listing.column().is_unique);
    let new = move || Page { rows: new(), count: 0, last: None };
    let each = move |page: &mut Page<C>, row: db::Row<'_>| {
        let row = T::Row::read(row)?;
        page.count += 1;
        if page.count == limit {
            page.last = Some(key(row, column, is_unique));
        }
        if page.count <= limit {
            push(&mut page.rows, row);
        }
        Ok(())
    };
    let select = listing.select(db.compares_pairs());
    let page = if limit > BATCHED_MAX {
        db.fetch(&select, new(), each).await?
    } else {
        db.fetch_batched(select, new, each).await?
    };
    Ok((page.rows, page.last.filter(|_| page.count > limit)))
}

/// A page whose rows arrive.
struct Page<C> {
    rows: C,
    count: u32,
    /// The key of the last row, if the page is full.
    last: Option<Key>,
}

/// The key of a row in a listing by this column.
pub(super) fn key<'r>(row: impl Row<'r>, column: usize, is_unique: bool) -> Key {
    let id = || match row.value(0) {
        Value::Integer(id) => Some(id),
        Value::Text(_) | Value::Time(_) => None,
    };
    Key { value: row.value(column).into_key(), id: if is_unique { None } else { id() } }
}

/// The row with this id, as `found` reads it. None if there is no such row.
///
/// # Errors
/// Those of the database.
///
/// # Panics
/// Outside of a `LocalSet`, as [`Db::fetch_batched`].
pub async fn get<T: Resource, F: Send + 'static>(
    db: &Db,
    id: i64,
    found: fn(T::Row<'_>) -> F,
) -> Result<Option<F>, Error> {
    let () = T::IS_CONSISTENT;
    let select = by_id(T::TABLE, id);
    let each = move |row: &mut Option<F>, found_row: db::Row<'_>| {
        *row = Some(found(T::Row::read(found_row)?));
        Ok(())
    };
    db.fetch_batched(select, || None, each).await
}

/// The query of the row with this id.
pub(super) fn by_id(table: &Table, id: i64) -> Select {
    let mut select = table.select_listed();
    select.push(" WHERE ").push(table.columns[0].sql).push(" = ").bind(id);
    select
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
