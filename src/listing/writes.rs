//! Rows that requests create, change and remove.

use serde_json::Value as Json;

use super::column::Kind;
use super::new_row::NewRow;
use super::query::by_id;
use super::resource::Resource;
use super::row::{ROW_SIZE, Row as _, write_json};
use super::table::{Table, push_items};
use crate::db::{self, Sql, Transaction, Value};
use crate::http::{Fault, Members, Problem};

/// The row that an object describes. Its id is chosen by the database.
///
/// # Errors
/// 422 with every member that is wrong.
pub fn new_row(table: &'static Table, members: &Members) -> Result<NewRow, Problem> {
    let member = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let mut faults = unexpected(table, members);
    let row = NewRow::new(table, |_, column| match column.kind {
        Kind::Id => Ok(None),
        _ => column.parse_json(member(column.name)),
    });
    match row {
        Ok(row) if faults.is_empty() => Ok(row),
        row => {
            let invalid = row.err().into_iter().flat_map(|invalid| invalid.0);
            faults.extend(invalid.map(|(name, reason)| Fault::of_member(name, reason)));
            Err(invalid_row(table, faults))
        }
    }
}

/// The new values of columns, each with the position of its column.
pub type Changes = Vec<(usize, Value<'static>)>;

/// The changes that an object describes as a merge patch (RFC 7396).
///
/// # Errors
/// 422 with every member that is wrong.
pub fn changes(table: &'static Table, members: &Members) -> Result<Changes, Problem> {
    let mut faults = unexpected(table, members);
    let mut changes = Changes::new();
    for (name, value) in members {
        let Some(position) = changeable(table, name) else { continue };
        let column = &table.columns[position];
        let parsed = match value {
            Json::Null => Err("cannot be removed".to_owned()),
            value => column.parse_json(Some(value)),
        };
        match parsed {
            Ok(Some(value)) => changes.push((position, value)),
            Ok(None) => faults.push(Fault::of_member(column.name, "is empty")),
            Err(reason) => faults.push(Fault::of_member(column.name, reason)),
        }
    }
    if faults.is_empty() { Ok(changes) } else { Err(invalid_row(table, faults)) }
}

/// The position of a column that a client chooses.
fn changeable(table: &Table, name: &str) -> Option<usize> {
    table.position(name).filter(|position| !matches!(table.columns[*position].kind, Kind::Id))
}

/// The most unexpected members that a response names.
const FAULTS_MAX: usize = 20;

/// The members that are not those of a row, or that a client does not choose.
fn unexpected(table: &Table, members: &Members) -> Vec<Fault> {
    let unexpected = members.iter().filter(|(name, _)| changeable(table, name).is_none()).take(FAULTS_MAX);
    let faults = unexpected.map(|(name, _)| match table.position(name) {
        Some(position) => Fault::of_member(table.columns[position].name, "is chosen by the server"),
        None => Fault::of_unknown(name, "is not a member of this object"),
    });
    faults.collect()
}

fn invalid_row(table: &Table, faults: Vec<Fault>) -> Problem {
    Problem::unprocessable(format!("the {} is not valid", table.row), faults)
}

/// Inserts a row, and returns its id and its JSON.
///
/// # Errors
/// Those of the database. 409, naming the member, if a value is taken.
pub async fn create<T: Resource>(transaction: &mut Transaction<'_>, row: &NewRow) -> Result<(i64, Vec<u8>), Problem> {
    let () = T::IS_WRITABLE;
    let table = T::TABLE;
    let mut sql = Sql::new("INSERT INTO ");
    sql.push(table.name).push(" (");
    let present = (0..).zip(table.names()).filter(|(position, _)| row.value(*position).is_some());
    push_items(&mut sql, present, |sql, (_, name)| _ = sql.push(name));
    sql.push(") VALUES (");
    push_items(&mut sql, row.values(), |sql, value| _ = sql.bind(value.clone()));
    sql.push(")");
    let inserted = transaction.insert(&sql, table.columns[0].name).await;
    let id = inserted.map_err(|error| refused(table, error))?;
    let json = read::<T>(transaction, id).await?.ok_or_else(|| Problem::internal(&"the new row is missing"))?;
    Ok((id, json))
}

/// The JSON of a row, which no other transaction can change before this one ends.
///
/// # Errors
/// Those of the database.
pub async fn read<T: Resource>(transaction: &mut Transaction<'_>, id: i64) -> Result<Option<Vec<u8>>, db::Error> {
    let select = by_id(T::TABLE, id);
    let found = transaction.fetch_locked(&select, None, |found, row| {
        let mut json = Vec::with_capacity(ROW_SIZE);
        write_json(&mut json, &T::Row::read(row)?);
        *found = Some(json);
        Ok(())
    });
    found.await
}

/// Changes a row.
///
/// # Errors
/// Those of the database. 409, naming the member, if a value is taken.
pub async fn change<T: Resource>(transaction: &mut Transaction<'_>, id: i64, changes: &Changes) -> Result<(), Problem> {
    let () = T::IS_WRITABLE;
    let table = T::TABLE;
    let mut sql = Sql::new("UPDATE ");
    sql.push(table.name).push(" SET ");
    push_items(&mut sql, changes.iter(), |sql, (position, value)| {
        sql.push(table.columns[*position].name).push(" = ").bind(value.clone());
    });
    sql.push(" WHERE ").push(table.columns[0].name).push(" = ").bind(id);
    transaction.execute(&sql).await.map(drop).map_err(|error| refused(table, error))
}

/// Removes a row.
///
/// # Errors
/// Those of the database.
pub async fn remove<T: Resource>(transaction: &mut Transaction<'_>, id: i64) -> Result<(), db::Error> {
    let () = T::IS_WRITABLE;
    let mut sql = Sql::new("DELETE FROM ");
    sql.push(T::TABLE.name).push(" WHERE ").push(T::TABLE.columns[0].name).push(" = ").bind(id);
    transaction.execute(&sql).await.map(drop)
}

/// The problem of a row that breaks a constraint. The constraint is the only check, because a value can be taken at any time.
fn refused(table: &'static Table, error: db::Error) -> Problem {
    let db::Error::Constraint(constraint) = &error else { return error.into() };
    match table.taken_column(constraint) {
        Some(column) => {
            Problem::conflict(format!("{} is taken", column.name), vec![Fault::of_member(column.name, "is taken")])
        }
        None => match table.constraint(constraint) {
            Some(reason) => Problem::conflict(reason, Vec::new()),
            None => Problem::internal(&error),
        },
    }
}
