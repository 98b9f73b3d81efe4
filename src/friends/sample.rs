//! Sample friendships, the same on every run and every engine.

use super::FRIENDSHIPS;
use crate::db::{Error, Session, Timestamp};
use crate::listing::{Existing, NewRow, insert};

/// The user that the nth befriends: one of the thousand before, so that the first have the most friends.
fn friend(n: usize) -> usize {
    // One step of SplitMix64: the same numbers on every machine.
    let mut z = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    n - 1 - usize::try_from(z % n.clamp(1, 1000) as u64).unwrap_or(0)
}

/// When that friendship began: some minutes after the one before, within ten years from July 2015 on.
fn since(n: usize) -> Timestamp {
    const BEGIN: i64 = 1_435_708_800;
    const MINUTES: usize = 5_000_000;
    let minutes = i64::try_from(n * 7 % MINUTES).unwrap_or_default();
    Timestamp::from_unix(BEGIN + minutes * 60).expect("it is in range")
}

/// Inserts the friendships of sample users from this number on, in both directions. The ids are those of all sample users
/// so far. A sample without an id has no friends.
///
/// # Errors
/// Those of the database.
///
/// # Panics
/// Never: the rows obey the rules of the table.
pub async fn insert_from(session: &mut Session, start: usize, ids: &[Option<i64>]) -> Result<(), Error> {
    let pairs = (start.max(1)..ids.len()).filter_map(|n| Some((ids[n]?, ids[friend(n)]?, n)));
    let both = pairs.flat_map(|(one, other, n)| [(one, other, n), (other, one, n)]);
    let rows = both.map(|(user, friend, n)| {
        NewRow::of(FRIENDSHIPS, [Some(user.into()), Some(friend.into()), Some(since(n).into())])
            .expect("it obeys the rules")
    });
    let rows: Vec<NewRow> = rows.collect();
    insert(session, FRIENDSHIPS, &rows.iter().collect::<Vec<_>>(), Existing::Keep).await
}

#[cfg(test)]
mod tests {
    use super::friend;

    #[test]
    fn a_friend_comes_earlier() {
        assert!((1..10_000).all(|n| friend(n) < n && n - friend(n) <= 1000));
    }
}
