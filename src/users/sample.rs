//! Sample users, the same on every run and every engine.

use std::collections::HashMap;
use std::ops::Range;

use sqlx::QueryBuilder;

use super::Users;
use crate::db::{Error, Session, on_engine};
use crate::listing::{Existing, NewRow, Resource as _, insert};

const FIRST: [&str; 50] = [
    "ada",
    "alan",
    "alma",
    "amit",
    "anita",
    "barbara",
    "carol",
    "chen",
    "claude",
    "dana",
    "dennis",
    "donald",
    "edsger",
    "elena",
    "emil",
    "fatima",
    "frances",
    "grace",
    "hedy",
    "ingrid",
    "ivan",
    "jean",
    "joan",
    "john",
    "karen",
    "katherine",
    "ken",
    "lars",
    "leslie",
    "lin",
    "margaret",
    "marta",
    "mary",
    "mei",
    "nadia",
    "niklaus",
    "noor",
    "olga",
    "omar",
    "pavel",
    "radia",
    "ravi",
    "rosa",
    "shafi",
    "sofia",
    "tomas",
    "vera",
    "whitfield",
    "yuki",
    "zoe",
];

const LAST: [&str; 50] = [
    "abbott", "ahmed", "allen", "baker", "bartik", "becker", "bell", "berg", "borg", "carter", "chan", "clarke",
    "costa", "diaz", "dijkstra", "evans", "fischer", "floyd", "garcia", "goldberg", "hamilton", "hansen", "hopper",
    "ito", "jensen", "johnson", "kay", "keller", "khan", "kim", "knuth", "lamarr", "larsen", "liskov", "lopez",
    "lovelace", "meyer", "moreau", "naur", "nguyen", "novak", "okafor", "perlman", "rossi", "sato", "silva", "singh",
    "turing", "weber", "wirth",
];

/// The number of consecutive users with the same name. So a batch fills few pages of each index, and each page is written
/// once.
const NAMESAKES: usize = 400;

/// The nth sample user. The first two are `admin` and `guest`.
fn user(n: usize) -> NewRow {
    const NAMES: usize = FIRST.len() * LAST.len();
    let name = |n: usize| {
        let (first, last) = (n % FIRST.len(), (n / FIRST.len() + n) % LAST.len());
        format!("{}.{}", FIRST[first], LAST[last])
    };
    let username = match n {
        0 => "admin".to_owned(),
        1 => "guest".to_owned(),
        // Each first name is combined with each last name. Further users with the same name get a number.
        n if n - 2 < NAMES => name(n - 2),
        n => {
            let n = n - 2 - NAMES;
            let (round, n) = (n / (NAMES * NAMESAKES), n % (NAMES * NAMESAKES));
            format!("{}{}", name(n / NAMESAKES), 2 + round * NAMESAKES + n % NAMESAKES)
        }
    };
    let email = format!("{username}@example.com");
    NewRow::of(Users::TABLE, [None, Some((&*username).into()), Some((&*email).into())]).expect("it obeys the rules")
}

/// Inserts the sample users of this range that do not exist yet. Returns the ids of all of them, in order, and the number
/// of those that were inserted. If another user has the e-mail address of a sample, the sample is not inserted, and has no
/// id.
///
/// # Errors
/// Those of the database.
pub async fn insert_range(session: &mut Session, range: Range<usize>) -> Result<(Vec<Option<i64>>, usize), Error> {
    let batch: Vec<NewRow> = range.map(user).collect();
    let mut found = ids(session, batch.iter()).await?;
    let existing = found.len();
    let missing: Vec<&NewRow> = batch.iter().filter(|user| !found.contains_key(&username(user))).collect();
    if !missing.is_empty() {
        insert(session, Users::TABLE, &missing, Existing::Keep).await?;
        found.extend(ids(session, missing.into_iter()).await?);
    }
    let ids = batch.iter().map(|user| found.get(&username(user)).copied()).collect();
    Ok((ids, found.len() - existing))
}

fn username(user: &NewRow) -> String {
    user.value(1).map(ToString::to_string).unwrap_or_default()
}

/// The ids of these users by their usernames, as far as they exist.
async fn ids(session: &mut Session, users: impl Iterator<Item = &NewRow>) -> Result<HashMap<String, i64>, Error> {
    let found: Vec<(String, i64)> = on_engine!(Session, session, conn => {
        let mut query = QueryBuilder::new("SELECT username, id FROM users WHERE username_key IN (");
        let mut list = query.separated(", ");
        for user in users {
            list.push_bind(username(user).to_ascii_lowercase());
        }
        query.push(")").build_query_as().fetch_all(conn).await?
    });
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{user, username};

    #[test]
    fn sample_users_are_distinct_and_valid() {
        let users: Vec<_> = (0..10_000).chain(1_000_000..1_010_000).map(user).collect();
        let names: HashSet<_> = users.iter().map(username).collect();
        assert_eq!(names.len(), users.len());
    }
}
