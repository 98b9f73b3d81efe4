//! A row to be inserted.

use super::column::{Column, Kind};
use super::table::Table;
use crate::db::Value;

/// A row to be inserted. Its values obey the rules of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow(Vec<Option<Value<'static>>>);

impl NewRow {
    /// A row of the values that `value` returns for each column, or the reason why a column has none. None is a value that
    /// the database chooses.
    ///
    /// # Errors
    /// Every column whose value breaks a rule.
    pub fn new(
        table: &Table,
        mut value: impl FnMut(usize, &Column) -> Result<Option<Value<'static>>, String>,
    ) -> Result<Self, InvalidRow> {
        let mut values = Vec::with_capacity(table.columns.len());
        let mut invalid = Vec::new();
        for (position, column) in table.columns.iter().enumerate() {
            match value(position, column) {
                Ok(value) => values.push(value),
                Err(reason) => invalid.push((column.name, reason)),
            }
        }
        if invalid.is_empty() { Ok(Self(values)) } else { Err(InvalidRow(invalid)) }
    }

    /// A row of these values, one for each column. None is a value that the database chooses.
    ///
    /// # Errors
    /// Every column whose value breaks a rule.
    ///
    /// # Panics
    /// If the table has another number of columns.
    pub fn of<const N: usize>(table: &Table, values: [Option<Value<'_>>; N]) -> Result<Self, InvalidRow> {
        assert_eq!(N, table.columns.len(), "one value for each column of {}", table.name);
        let mut values = values.into_iter();
        Self::new(table, |_, column| match values.next().flatten() {
            Some(value) => column.check(value).map(Some),
            None if column.has_default => Ok(None),
            None => Err("is missing".to_owned()),
        })
    }

    /// The value of the column at this position. None if the database chooses it.
    #[must_use]
    pub fn value(&self, position: usize) -> Option<&Value<'static>> {
        self.0.get(position)?.as_ref()
    }

    /// The values of the row, without those that the database chooses.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value<'static>> {
        self.0.iter().flatten()
    }

    /// The key of the column at this position, as the database orders it.
    pub(super) fn key(&self, position: usize) -> Option<Value<'static>> {
        self.value(position).map(|value| value.clone().into_key())
    }

    /// Whether the row brings a value, for each column.
    pub(super) fn present(&self) -> impl Iterator<Item = bool> {
        self.0.iter().map(Option::is_some)
    }

    /// Whether the row brings the id that the database would choose.
    pub(super) fn has_id(&self, table: &Table) -> bool {
        matches!(table.columns[0].kind, Kind::Id) && self.value(0).is_some()
    }
}

/// The columns of a row whose values break a rule, each with the reason. A reason does not contain the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|(column, reason)| format!("{column} {reason}")).collect::<Vec<_>>().join("; "))]
pub struct InvalidRow(pub Vec<(&'static str, String)>);
