//! Cursors: the position of a page, as clients keep it. A cursor is the first letter of the column's name, the id if the
//! column is not unique, and the key, in base64url. It is opaque, so that its form may change. It needs no signature,
//! because it can only express what `q` and `sort` could.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::column::{Column, Kind};
use super::query::Key;
use super::table::Table;
use crate::db::{Timestamp, Value};

/// The cursor of a key in a listing by this column.
#[must_use]
pub fn encode(table: &Table, position: usize, key: &Key) -> String {
    let mut bytes = vec![mark(table, position)];
    bytes.extend(key.id.into_iter().flat_map(i64::to_be_bytes));
    match &key.value {
        Value::Integer(integer) => bytes.extend(integer.to_be_bytes()),
        Value::Text(text) => bytes.extend(text.as_bytes()),
        Value::Time(time) => bytes.extend(time.unix().to_be_bytes()),
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key of a cursor in a listing by this column. None if [`encode`] returns no such cursor.
#[must_use]
pub fn decode(cursor: &str, table: &Table, position: usize) -> Option<Key> {
    let column = &table.columns[position];
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (&first, mut rest) = bytes.split_first()?;
    if first != mark(table, position) {
        return None;
    }
    let mut id = None;
    if !column.is_unique {
        let (bytes, after) = rest.split_first_chunk()?;
        (id, rest) = (Some(i64::from_be_bytes(*bytes)), after);
    }
    let integer = || Some(i64::from_be_bytes(rest.try_into().ok()?));
    let value = match column.kind {
        Kind::Id | Kind::Reference => integer()?.into(),
        Kind::Time => Timestamp::from_unix(integer()?)?.into(),
        Kind::Text(longest, _) => {
            let text = str::from_utf8(rest).ok()?;
            // The default of a text may be empty.
            let is_filled = !text.is_empty() || column.has_default;
            let is_key = is_filled && text.chars().count() <= longest && !text.contains('\0');
            is_key.then(|| Value::Text(text.to_owned().into()))?
        }
    };
    Some(Key { value, id })
}

/// The byte that marks the column: the first letter of its name, or its position if an earlier column has that letter.
fn mark(table: &Table, position: usize) -> u8 {
    let letter = |column: &Column| column.name.as_bytes()[0];
    let own = letter(&table.columns[position]);
    let is_marked = table.columns[..position].iter().any(|earlier| letter(earlier) == own);
    if is_marked { u8::try_from(position).unwrap_or(u8::MAX) } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &Table = &Table {
        name: "people",
        row: "person",
        from: "people",
        columns: &[
            Column::id("id"),
            Column::text("name", 80).ordered_by("name_key").unique(),
            Column::text("city", 80).ordered_by("city_key"),
            Column::time("since").ordered_by("since"),
            Column::time("seen").ordered_by("seen"),
        ],
        search: None,
        constraints: &[],
    };
    const ID: usize = 0;
    const NAME: usize = 1;
    const CITY: usize = 2;
    const SINCE: usize = 3;
    const SEEN: usize = 4;

    #[test]
    fn a_cursor_is_decoded_to_its_key() {
        let text = |text: &str| Value::Text(text.to_owned().into());
        let time = Value::Time(Timestamp::from_unix(1_700_000_000).expect("it is in range"));
        for (column, value, id) in [
            (ID, 1.into(), None),
            (ID, i64::MAX.into(), None),
            (NAME, text("ada"), None),
            (NAME, text("zo\u{eb}"), None),
            (CITY, text("ulm"), Some(7)),
            (SINCE, time.clone(), Some(i64::MAX)),
            (SEEN, time, Some(1)),
        ] {
            let key = Key { value, id };
            assert_eq!(decode(&encode(TABLE, column, &key), TABLE, column), Some(key));
        }
    }

    #[test]
    fn a_forged_cursor_is_none() {
        let name = encode(TABLE, NAME, &Key { value: "ada".into(), id: None });
        for forged in ["", "!", "aQ", "aQAAAAAAAAA", "dQ", "dQA", name.as_str()] {
            assert_eq!(decode(forged, TABLE, ID), None, "{forged}");
        }
        for forged in [&b"n\0"[..], b"n\xff", b"n", b"u"] {
            assert_eq!(decode(&URL_SAFE_NO_PAD.encode(forged), TABLE, NAME), None, "{forged:?}");
        }
        for forged in [&b"c1234567"[..], b"c12345678", b"c12345678\xff"] {
            assert_eq!(decode(&URL_SAFE_NO_PAD.encode(forged), TABLE, CITY), None, "{forged:?}");
        }
        for forged in [[0; 7].as_slice(), &[0; 15], &[0xff; 16], &[0x7f; 16]] {
            let forged = [b"s", forged].concat();
            assert_eq!(decode(&URL_SAFE_NO_PAD.encode(&forged), TABLE, SINCE), None, "{forged:?}");
        }
    }

    #[test]
    fn a_cursor_is_of_one_column() {
        let key = Key { value: Timestamp::from_unix(7).expect("it is in range").into(), id: Some(1) };
        for (of, other) in [(SINCE, SEEN), (SEEN, SINCE)] {
            assert_eq!(decode(&encode(TABLE, of, &key), TABLE, other), None);
        }
    }
}
