//! Pages, streams, exports and imports of any table, from a description of its columns.
//!
//! An application implements [`Resource`] for each kind of row, which names the row's type and its [`Table`]. The rest is
//! here: keyset cursors, the parameters of a listing and their links, what its pages show, streams, CSV and NDJSON.

mod column;
mod csv;
pub mod cursor;
pub mod export;
pub mod file;
pub mod import;
mod new_row;
pub mod output;
pub mod pages;
pub mod parameters;
mod query;
pub mod reader;
mod resource;
pub mod row;
mod statements;
mod stream;
mod table;
mod view;
pub mod writes;

pub use column::{Column, Kind};
pub use new_row::{InvalidRow, NewRow};
pub use parameters::{Parameters, Query, Unknown};
pub use query::{Key, Listing, Scope, get, page};
pub use resource::Resource;
pub use row::{Field, Row, row};
pub use statements::{Existing, Seeded, insert, is_empty};
pub use stream::respond as stream;
pub use table::{Search, Table};
pub use view::{View, view};
