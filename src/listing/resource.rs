//! What an application implements for each kind of row.

use super::row::Row;
use super::table::Table;

/// A kind of row that can be listed.
pub trait Resource: 'static {
    /// Its row, borrowed from the driver's row until the next one is read.
    type Row<'r>: Row<'r>;
    /// Where the rows are.
    const TABLE: &'static Table;
}
