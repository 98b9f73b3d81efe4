//! What an application implements for each kind of row.

use super::column::{Column, Kind};
use super::row::Row;
use super::table::Table;

/// A kind of row that can be listed.
pub trait Resource: 'static {
    /// Its row, borrowed from the driver's row until the next one is read.
    type Row<'r>: Row<'r>;
    /// Where the rows are.
    const TABLE: &'static Table;
    /// Evaluated when a listing is compiled, so that a forgotten column is an error of the build.
    const IS_CONSISTENT: () = {
        assert!(
            are_named(<Self::Row<'static> as Row<'static>>::FIELDS, Self::TABLE.columns),
            "the columns of the table must have the names of the fields of the row, in the same order"
        );
        // It identifies a row, and orders a listing.
        assert!(
            matches!(Self::TABLE.columns[0].kind, Kind::Id) && Self::TABLE.columns[0].key.is_some(),
            "the first column of a table that is listed must be an id with a key"
        );
    };
    /// Evaluated when a write is compiled: the rows of a join cannot be written.
    const IS_WRITABLE: () = {
        let () = Self::IS_CONSISTENT;
        assert!(
            is_same(Self::TABLE.name, Self::TABLE.from),
            "a table that is written must be selected from by its name"
        );
    };
}

impl Table {
    /// The table of a resource.
    #[must_use]
    pub const fn of<T: Resource>() -> &'static Self {
        T::TABLE
    }
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut byte = 0;
    while byte < one.len() && byte < other.len() && one[byte] == other[byte] {
        byte += 1;
    }
    byte == one.len() && byte == other.len()
}

/// Whether the columns have these names, in the same order.
const fn are_named(fields: &[&str], columns: &[Column]) -> bool {
    let mut position = 0;
    while position < fields.len() && position < columns.len() {
        if !is_same(fields[position], columns[position].name) {
            return false;
        }
        position += 1;
    }
    fields.len() == columns.len()
}

#[cfg(test)]
mod tests {
    use super::{Column, are_named};

    #[test]
    fn columns_are_compared_with_fields_by_name_and_order() {
        let columns = [Column::id("id"), Column::text("title", 80)];
        assert!(are_named(&["id", "title"], &columns));
        for fields in [&["id"][..], &["title", "id"], &["id", "titles"], &["id", "tit"], &["id", "title", "year"]] {
            assert!(!are_named(fields, &columns), "{fields:?}");
        }
    }
}
