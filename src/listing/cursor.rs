//! Cursors: the position of a page, as clients keep it. A cursor is the first letter of the column's name, the id if the
//! column is not unique, and the key, in base64url. It is opaque, so that its form may change. It needs no signature,
//! because it can only express what `q` and `sort` could.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::column::{Column, Kind};
use super::query::Key;
use crate::db::{Timestamp, Value};

/// The cursor of a key in a listing by this column.
#[must_use]
pub fn encode(column: &Column, key: &Key) -> String {
    let mut bytes = vec![letter(column)];
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
pub fn decode(cursor: &str, column: &Column) -> Option<Key> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (&first, mut rest) = bytes.split_first()?;
    if first != letter(column) {
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
            let is_key = !text.is_empty() && text.chars().count() <= longest && !text.contains('\0');
            is_key.then(|| Value::Text(text.to_owned().into()))?
        }
    };
    Some(Key { value, id })
}

const fn letter(column: &Column) -> u8 {
    column.name.as_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Column = Column::id("id");
    const NAME: Column = Column::text("name", 80).ordered_by("name_key").unique();
    const CITY: Column = Column::text("city", 80).ordered_by("city_key");
    const SINCE: Column = Column::time("since").ordered_by("since");

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
            (SINCE, time, Some(i64::MAX)),
        ] {
            let key = Key { value, id };
            assert_eq!(decode(&encode(&column, &key), &column), Some(key));
        }
    }

    #[test]
    fn a_forged_cursor_is_none() {
        let name = encode(&NAME, &Key { value: "ada".into(), id: None });
        for forged in ["", "!", "aQ", "aQAAAAAAAAA", "dQ", "dQA", name.as_str()] {
            assert_eq!(decode(forged, &ID), None, "{forged}");
        }
        for forged in [&b"n\0"[..], b"n\xff", b"n", b"u"] {
            assert_eq!(decode(&URL_SAFE_NO_PAD.encode(forged), &NAME), None, "{forged:?}");
        }
        for forged in [&b"c1234567"[..], b"c12345678", b"c12345678\xff"] {
            assert_eq!(decode(&URL_SAFE_NO_PAD.encode(forged), &CITY), None, "{forged:?}");
        }
        for forged in [[0; 7].as_slice(), &[0; 15], &[0xff; 16], &[0x7f; 16]] {
            let forged = [b"s", forged].concat();
            assert_eq!(decode(&URL_SAFE_NO_PAD.encode(&forged), &SINCE), None, "{forged:?}");
        }
    }
}
