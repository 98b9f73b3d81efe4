//! SQLite.

use super::Kind;

/// The kind of an error, by its extended code (<https://sqlite.org/rescode.html>), whose low byte is the primary one.
pub(super) fn kind(code: i32, message: &str) -> Kind {
    match (code & 0xff, code) {
        (1, _) if message.starts_with("no such ") || message.contains(" has no column named ") => Kind::Schema,
        // READONLY_RECOVERY, READONLY_CANTLOCK, READONLY_ROLLBACK: another process has to repair the file first.
        (_, 264 | 520 | 776)
        // BUSY and LOCKED of every origin, NOMEM, INTERRUPT, PROTOCOL (a race for the write-ahead log), SCHEMA.
        | (5 | 6 | 7 | 9 | 15 | 17, _) => Kind::Transient,
        // READONLY_DBMOVED: the file was replaced. IOERR, FULL, CANTOPEN.
        (_, 1032) | (10 | 13 | 14, _) => Kind::Lost,
        (8, _) => Kind::ReadOnly,
        // TOOBIG, MISMATCH.
        (18 | 20, _) => Kind::Value,
        // CONSTRAINT of the origins that the driver has no kind for.
        (19, _) => Kind::Constraint,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_code_has_the_kind_that_a_caller_can_act_on() {
        for (kind_of_code, codes) in [
            // BUSY, BUSY_RECOVERY, BUSY_SNAPSHOT, BUSY_TIMEOUT, LOCKED, LOCKED_SHAREDCACHE, NOMEM, INTERRUPT.
            (Kind::Transient, &[5, 261, 517, 773, 6, 262, 7, 9][..]),
            // READONLY_RECOVERY, READONLY_CANTLOCK, READONLY_ROLLBACK, PROTOCOL, SCHEMA.
            (Kind::Transient, &[264, 520, 776, 15, 17]),
            // IOERR, IOERR_READ, FULL, CANTOPEN, READONLY_DBMOVED.
            (Kind::Lost, &[10, 266, 13, 14, 1032]),
            (Kind::ReadOnly, &[8, 1288, 1544]),
            (Kind::Value, &[18, 20]),
            (Kind::Constraint, &[19, 1811, 2579]),
            (Kind::Other, &[1, 11, 25, 26]),
        ] {
            for &code in codes {
                assert_eq!(kind(code, ""), kind_of_code, "{code}");
            }
        }
        for message in ["no such table: users", "table users has no column named email"] {
            assert_eq!(kind(1, message), Kind::Schema, "{message}");
        }
    }
}
