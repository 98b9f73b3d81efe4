//! Listing as a tool: pages, streams, files and imports of any table, from a description of its columns.
//!
//! An application implements [`Resource`] for each kind of row, which names the row's type and its [`Table`]. The rest is
//! here: keyset cursors, the parameters of a listing and their links, streams, CSV and NDJSON.

mod column;
mod csv;
pub mod cursor;
pub mod export;
pub mod import;
pub mod output;
pub mod pages;
pub mod parameters;
mod query;
pub mod reader;
mod row;
mod stream;
mod table;

pub use column::{Column, Kind};
pub use import::{InvalidRow, NewRow};
pub(crate) use pages::{Heading, headings, link};
pub use parameters::{Parameters, Query, Unknown};
pub use query::{Key, Listing, Scope, get, page};
pub(crate) use row::row;
pub use row::{Field, Row};
pub(crate) use stream::respond as stream;
pub use table::{Existing, Search, Table, insert, is_empty};

/// A kind of row that can be listed.
pub trait Resource: 'static {
    /// Its row, borrowed from the driver's row until the next one is read.
    type Row<'r>: Row<'r>;
    /// Where the rows are.
    const TABLE: &'static Table;
}
