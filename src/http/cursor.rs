//! Cursors: where a listing goes on, as clients keep it for us. A cursor is the column's letter and the key, in base64url
//! so that nobody takes it apart. It needs no signature, because it can only say what `q` and `sort` could.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::db::users::{Column, EMAIL_MAX, Key};

/// The cursor of a key.
#[must_use]
pub fn encode(column: Column, key: &Key) -> String {
    let letter = letter(column);
    let bytes = match key {
        Key::Id(id) => [&[letter], id.to_be_bytes().as_slice()].concat(),
        Key::Text(text) => [&[letter], text.as_bytes()].concat(),
    };
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key that a cursor of a listing by this column stands for; none if no such cursor was ever given out.
#[must_use]
pub fn decode(cursor: &str, column: Column) -> Option<Key> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (&first, key) = bytes.split_first()?;
    if first != letter(column) {
        return None;
    }
    match column {
        Column::Id => Some(Key::Id(i64::from_be_bytes(key.try_into().ok()?))),
        Column::Username | Column::Email => {
            let text = str::from_utf8(key).ok()?;
            let whole = !text.is_empty() && text.chars().count() <= EMAIL_MAX && !text.contains('\0');
            whole.then(|| Key::Text(text.to_owned()))
        }
    }
}

const fn letter(column: Column) -> u8 {
    match column {
        Column::Id => b'i',
        Column::Username => b'u',
        Column::Email => b'e',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_its_key() {
        for (column, key) in [
            (Column::Id, Key::Id(1)),
            (Column::Id, Key::Id(i64::MAX)),
            (Column::Username, Key::Text("ada".into())),
            (Column::Email, Key::Text("zoë@example.com".into())),
        ] {
            assert_eq!(decode(&encode(column, &key), column), Some(key));
        }
    }

    #[test]
    fn a_forged_cursor_is_none() {
        let username = encode(Column::Username, &Key::Text("ada".into()));
        for forged in ["", "!", "aQ", "aQAAAAAAAAA", "dQ", "dQA", username.as_str()] {
            assert_eq!(decode(forged, Column::Id), None, "{forged}");
        }
        assert_eq!(decode(&URL_SAFE_NO_PAD.encode(b"u\0"), Column::Username), None);
        assert_eq!(decode(&URL_SAFE_NO_PAD.encode(b"u\xff"), Column::Username), None);
    }
}
