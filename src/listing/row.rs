//! The type of a row, made from its fields.

use serde::Serialize;

use crate::db::{self, Timestamp, Value};
use crate::json;

/// The size to reserve for a row in any format, in bytes.
pub const ROW_SIZE: usize = 90;

/// Writes a row as JSON.
///
/// # Panics
/// Never: numbers and text are JSON, and memory can be written.
pub fn write_json(out: &mut Vec<u8>, row: &impl Serialize) {
    json::write(out, row).expect("numbers and text are JSON");
}

/// A row as the driver holds it, borrowed until the next one is read. The macro `row!` implements it.
pub trait Row<'r>: Copy + Serialize {
    /// The names of its fields.
    const FIELDS: &'static [&'static str];

    /// Reads the columns in the order of the table.
    ///
    /// # Errors
    /// When the row has other columns.
    fn read(row: db::Row<'r>) -> Result<Self, sqlx::Error>;

    /// The value of the column at this position of the table.
    fn value(&self, position: usize) -> Value<'r>;
}

/// The type of a field of a row.
pub trait Field<'r>: Sized {
    /// Reads the column at this position.
    ///
    /// # Errors
    /// When the row has no such column.
    fn read(row: db::Row<'r>, position: usize) -> Result<Self, sqlx::Error>;
}

impl<'r> Field<'r> for i64 {
    fn read(row: db::Row<'r>, position: usize) -> Result<Self, sqlx::Error> {
        row.integer(position)
    }
}

impl<'r> Field<'r> for &'r str {
    fn read(row: db::Row<'r>, position: usize) -> Result<Self, sqlx::Error> {
        row.text(position)
    }
}

impl<'r> Field<'r> for Timestamp {
    fn read(row: db::Row<'r>, position: usize) -> Result<Self, sqlx::Error> {
        row.time(position)
    }
}

/// Declares the struct of a row, with one field for each column of its table, in the same order. It is a macro because the
/// derive macros of sqlx find columns by name, which is slower than reading them, and would compile each driver twice.
#[macro_export]
macro_rules! row {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident<$r:lifetime> {
            $($(#[$field_attribute:meta])* pub $field:ident: $type:ty,)+
        }
    ) => {
        #[derive(Clone, Copy, Debug, serde::Serialize, utoipa::ToSchema)]
        $(#[$attribute])*
        pub struct $name<$r> {
            $($(#[$field_attribute])* pub $field: $type,)+
        }

        impl<$r> $crate::listing::row::Row<$r> for $name<$r> {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];

            fn read(row: $crate::db::Row<$r>) -> Result<Self, sqlx::Error> {
                let mut position = 0..;
                Ok(Self {
                    $($field: $crate::listing::row::Field::read(row, position.next().unwrap_or_default())?,)+
                })
            }

            fn value(&self, position: usize) -> $crate::db::Value<$r> {
                [$($crate::db::Value::from(self.$field)),+].into_iter().nth(position).expect("the table has this column")
            }
        }
    };
}
pub use row;
