//! The table of friendships: who names whom as a friend.

use sqlx::{Database, Encode, Executor as _, QueryBuilder, Type};

use super::users::{User, page};
use super::{Db, Dialect, Error, Session, on_engine};

/// Hands over one page of a user's friends in ascending id, from behind the id `after`, and tells
/// the id that the next page starts behind, if there is one. Whoever is no user has no friends.
///
/// # Errors
/// Those of the database; then what was handed over is not a page.
pub async fn list(
    db: &Db,
    user: i64,
    after: Option<i64>,
    limit: u32,
    each: &mut dyn FnMut(User<'_>),
) -> Result<Option<i64>, Error> {
    on_engine!(Db, db, pool => pool.run(async |conn, persistent| {
        let mut query = select(user, after, limit);
        let rows = conn.fetch_many(query.build().persistent(persistent));
        page(rows, limit, |friend| friend.id, each).await
    }).await)
}

/// The query of one page of friends, which its tests explain.
#[must_use]
pub fn select<DB: Database>(user: i64, after: Option<i64>, limit: u32) -> QueryBuilder<DB>
where
    i64: for<'t> Encode<'t, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new(
        "SELECT users.id, users.username, users.email FROM friends \
         JOIN users ON users.id = friends.friend_id WHERE friends.user_id = ",
    );
    query.push_bind(user);
    if let Some(after) = after {
        query.push(" AND friends.friend_id > ").push_bind(after);
    }
    // One row more than the page holds tells whether there is a next one.
    query.push(" ORDER BY friends.friend_id LIMIT ").push_bind(i64::from(limit) + 1);
    query
}

/// Inserts friendships, in both directions; those that are there already stay.
///
/// # Errors
/// Those of the database.
pub async fn insert(session: &mut Session, pairs: &[(i64, i64)]) -> Result<(), Error> {
    /// Written over the dialect, for its clause at the end.
    fn statement<DB: Dialect>(pairs: &[(i64, i64)]) -> QueryBuilder<DB>
    where
        i64: for<'t> Encode<'t, DB> + Type<DB>,
    {
        let mut query = QueryBuilder::new("INSERT INTO friends (user_id, friend_id) ");
        let both = pairs.iter().flat_map(|&(one, other)| [(one, other), (other, one)]);
        query.push_values(both, |mut row, (user, friend)| {
            row.push_bind(user).push_bind(friend);
        });
        DB::on_conflict_do_nothing(&mut query, "user_id");
        query
    }
    if pairs.is_empty() {
        return Ok(());
    }
    on_engine!(Session, session, conn => statement(pairs).build().execute(conn).await.map(drop)).map_err(Error::from)
}
