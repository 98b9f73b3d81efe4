//! Sample users and friendships, the same on every run and every engine.

use std::collections::HashMap;

use tokio_util::sync::CancellationToken;

use crate::db::users::{self, Existing, NewUser};
use crate::db::{Error, Session, friends};

/// Users a transaction: large enough that its cost is that of its rows, small enough for every
/// engine's limit of parameters (32,766 in SQLite).
const BATCH: usize = 5_000;

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

/// How many namesakes follow one another: a batch fills few places of each index, whose pages are
/// then written once and not a thousand times.
const NAMESAKES: usize = 400;

/// The nth sample user. The first two are those of the tutorial that this service comes from.
fn user(n: usize) -> NewUser {
    const NAMES: usize = FIRST.len() * LAST.len();
    let name = |n: usize| {
        let (first, last) = (n % FIRST.len(), (n / FIRST.len() + n) % LAST.len());
        format!("{}.{}", FIRST[first], LAST[last])
    };
    let username = match n {
        0 => "admin".to_owned(),
        1 => "guest".to_owned(),
        // Each first name meets each last name before a number tells namesakes apart.
        n if n - 2 < NAMES => name(n - 2),
        n => {
            let n = n - 2 - NAMES;
            let (round, n) = (n / (NAMES * NAMESAKES), n % (NAMES * NAMESAKES));
            format!("{}{}", name(n / NAMESAKES), 2 + round * NAMESAKES + n % NAMESAKES)
        }
    };
    NewUser::new(None, &username, &format!("{username}@example.com")).expect("a sample user obeys the rules")
}

/// The user that the nth befriends: one of the thousand before, so that the first have the most friends.
fn friend(n: usize) -> usize {
    // One step of SplitMix64: the same numbers on every machine.
    let mut z = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    n - 1 - usize::try_from(z % n.clamp(1, 1000) as u64).unwrap_or(0)
}

/// Sees to it that the first `count` sample users are there, and their friendships. A second run
/// changes nothing, and one that was cut off is continued. Tells how many users are in place, which
/// are fewer than asked for when `stop` was cancelled.
///
/// # Errors
/// Those of the database; every batch that was finished before stays.
pub async fn seed(
    session: &mut Session,
    count: usize,
    stop: &CancellationToken,
    mut progress: impl FnMut(usize),
) -> Result<usize, Error> {
    let mut ids: Vec<i64> = Vec::new();
    while ids.len() < count && !stop.is_cancelled() {
        let start = ids.len();
        let batch: Vec<NewUser> = (start..count.min(start + BATCH)).map(user).collect();
        let names: Vec<&str> = batch.iter().map(NewUser::username).collect();

        let insert = async {
            session.begin().await?;
            let mut found: HashMap<String, i64> = users::ids(session, &names).await?.into_iter().collect();
            let missing: Vec<&NewUser> = batch.iter().filter(|user| !found.contains_key(user.username())).collect();
            if !missing.is_empty() {
                // An e-mail address may be another user's, whose name is not the sample's: no row, no id.
                users::insert(session, &missing, Existing::Keep).await?;
                let missing: Vec<&str> = missing.iter().map(|user| user.username()).collect();
                found.extend(users::ids(session, &missing).await?);
            }
            ids.extend(names.iter().map(|name| found.get(*name).copied().unwrap_or(0)));
            let pairs: Vec<(i64, i64)> = (start.max(1)..ids.len())
                .map(|n| (ids[n], ids[friend(n)]))
                .filter(|&(one, other)| one != 0 && other != 0)
                .collect();
            friends::insert(session, &pairs).await
        };
        // The stopped statement may wait for a lock of another session. Its batch is not committed.
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(start),
            inserted = insert => inserted?,
        }
        session.execute("COMMIT").await?;
        progress(ids.len());
    }
    Ok(ids.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{NewUser, friend, user};

    #[test]
    fn sample_users_are_distinct_and_valid() {
        let users: Vec<_> = (0..10_000).chain(1_000_000..1_010_000).map(user).collect();
        let names: HashSet<_> = users.iter().map(NewUser::username).collect();
        assert_eq!(names.len(), users.len());
    }

    #[test]
    fn a_friend_comes_earlier() {
        assert!((1..10_000).all(|n| friend(n) < n && n - friend(n) <= 1000));
    }
}
