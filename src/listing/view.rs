//! The HTML view of a page of a listing: its rows, their headings, their position, and the links to other pages.

use std::fmt;

use futures_util::future::try_join;

use super::parameters::{Parameters, Sort};
use super::query::{COUNTED_MAX, Key, Listing, Scope, key, page};
use super::resource::Resource;
use crate::db::Db;
use crate::http::Problem;

/// The rows of a page whose request has no limit.
const LIMIT: u32 = 50;

/// What a page of a listing with these columns shows.
pub struct View<R, const COLUMNS: usize> {
    /// Those of the columns.
    pub headings: [Heading; COLUMNS],
    /// What the page shows of each row.
    pub rows: Vec<R>,
    /// Which rows of the listing these are.
    pub position: Position,
    /// The other pages.
    pub links: Links,
    /// What a reference to all rows of the listing ends with: nothing, or a query string.
    pub all: String,
}

/// A heading of a column.
pub struct Heading {
    /// The text.
    pub name: &'static str,
    /// The listing by this column, as a relative reference. None if there is none.
    pub link: Option<String>,
    /// How the rows are ordered by it, as a value of `aria-sort`.
    pub order: &'static str,
}

/// Other pages of the listing, as relative references. None if there is no such page.
pub struct Links {
    /// The first page, from any other.
    pub first: Option<String>,
    /// The page before.
    pub previous: Option<String>,
    /// The page after.
    pub next: Option<String>,
}

/// Reads a page, whose columns have these names and texts. `read` makes what the page shows of a row.
///
/// # Errors
/// Those of the parameters and of the queries.
pub async fn view<T: Resource, R: Send + 'static, const COLUMNS: usize>(
    db: &Db,
    parameters: &Parameters,
    scope: Option<Scope>,
    columns: [(&'static str, &'static str); COLUMNS],
    read: fn(T::Row<'_>) -> R,
) -> Result<View<R, COLUMNS>, Problem> {
    let listing = parameters.listing(scope, LIMIT)?;
    let before = parameters.before(&listing)?;
    let is_first = before.is_none() && listing.after.is_none();
    let counts = listing.select_counts(before.as_ref());
    let counts = db.fetch_batched(counts, Counts::default, |counts, row| {
        *counts = Counts { all: row.integer(0)?, not_before: row.integer(1)? };
        Ok(())
    });
    let range = before.as_ref().map_or_else(|| listing.clone(), |key| listing.before(key.clone()));
    let (column, is_unique) = (listing.column, listing.column().is_unique);
    let new = move || Rows::<T, R> { read, column, is_unique, made: Vec::new(), nearest: None };
    let rows = page::<T, _>(db, &range, new, Rows::push);
    let (counts, (Rows { made: mut rows, nearest, .. }, farthest)) = try_join(counts, rows).await?;
    let (previous, next) = if before.is_some() {
        rows.reverse();
        (farthest, nearest)
    } else {
        (nearest.filter(|_| !is_first), farthest)
    };
    let link = |name, key: &Key| {
        format!("?{}", parameters.sorted(parameters.sort, parameters.limit, Some((name, &listing, key))))
    };
    // A page that begins where the listing does, but has fewer rows than the first page, needs a link to it.
    let is_first = is_first
        || previous.is_none() && u32::try_from(rows.len()).is_ok_and(|rows| rows == parameters.limit.unwrap_or(LIMIT));
    Ok(View {
        headings: headings(parameters, &listing, columns),
        position: counts.position(rows.len(), before.is_some()),
        links: Links {
            first: (!is_first).then(|| format!("?{}", parameters.query(&listing, None))),
            previous: previous.map(|key| link("before", &key)),
            next: next.map(|key| link("after", &key)),
        },
        all: Some(parameters.sorted(parameters.sort, None, None))
            .filter(|query| !query.is_empty())
            .map_or_else(String::new, |query| format!("?{query}")),
        rows,
    })
}

/// The rows of a page, in the order of the query.
struct Rows<T: Resource, R> {
    read: fn(T::Row<'_>) -> R,
    column: usize,
    is_unique: bool,
    made: Vec<R>,
    /// The key of the first row.
    nearest: Option<Key>,
}

impl<T: Resource, R> Rows<T, R> {
    fn push(&mut self, row: T::Row<'_>) {
        self.nearest.get_or_insert_with(|| key(row, self.column, self.is_unique));
        self.made.push((self.read)(row));
    }
}

fn headings<const COLUMNS: usize>(
    parameters: &Parameters,
    listing: &Listing,
    columns: [(&'static str, &'static str); COLUMNS],
) -> [Heading; COLUMNS] {
    columns.map(|(column, name)| {
        let table = listing.table;
        let position = table.position(column).expect("a heading is of a column");
        let is_current = listing.column == position;
        // A search has the order of the column that it matches.
        let is_sortable = table.columns[position].key.is_some() && (is_current || listing.prefix.is_none());
        let sort = Sort { column: position, descending: is_current && !listing.descending };
        let link = is_sortable.then(|| format!("?{}", parameters.sorted(Some(sort), parameters.limit, None)));
        let order = match (is_current, listing.descending) {
            (false, _) => "none",
            (true, false) => "ascending",
            (true, true) => "descending",
        };
        Heading { name, link, order }
    })
}

/// The result of [`Listing::select_counts`].
#[derive(Clone, Copy, Default)]
struct Counts {
    all: i64,
    not_before: i64,
}

impl Counts {
    /// The position of a page with this number of rows, which begins or ends where the rows were divided.
    fn position(self, rows: usize, ends_here: bool) -> Position {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let before = self.all - self.not_before;
        let is_known = self.all <= COUNTED_MAX || self.not_before > 0;
        // Rows may be inserted or deleted between the two queries.
        let first = if ends_here { (before - rows).max(0) } else { before };
        let first = is_known.then_some(first + 1);
        let all = first.map_or(self.all, |first| self.all.max(first + rows - 1));
        Position { first, rows, all }
    }
}

/// Which rows of a listing a page has, in words: `51–100 of 1,000+`.
pub struct Position {
    /// The number of the first row. None if it was not counted; then only the number of rows is shown: `50 shown of 1,000+`.
    first: Option<i64>,
    rows: i64,
    all: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first {
            Some(first) if self.rows > 1 => write!(f, "{}–{}", Grouped(first), Grouped(first + self.rows - 1))?,
            Some(first) => Grouped(first).fmt(f)?,
            None => write!(f, "{} shown", Grouped(self.rows))?,
        }
        write!(f, " of {}", Grouped(self.all.min(COUNTED_MAX)))?;
        if self.all > COUNTED_MAX { f.write_str("+") } else { Ok(()) }
    }
}

/// A number below a million, with a comma before its last three digits.
struct Grouped(i64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (0, ones) => ones.fmt(f),
            (thousands, ones) => write!(f, "{thousands},{ones:03}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn a_total_includes_the_rows_of_the_page() {
        for (all, not_before, rows, ends_here, expected) in [
            (49, 49, 50, false, "1–50 of 50"),
            (60, 11, 10, false, "50–59 of 60"),
            (1000, 50, 51, false, "951–1,001 of 1,000+"),
            (3, 3, 5, true, "1–5 of 5"),
            (0, 0, 1, false, "1 of 1"),
        ] {
            let position = Counts { all, not_before }.position(rows, ends_here);
            assert_eq!(position.to_string(), expected);
        }
    }
}
