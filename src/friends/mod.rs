//! Friends: the second example, a join of which a listing has the rows of one user.

pub mod api;
mod page;
pub mod sample;
pub mod writes;

use crate::db::Timestamp;
use crate::listing::{Column, Resource, Scope, Table, row};

row! {
    /// A friend of a user.
    pub struct Friend<'r> {
        /// The id of the friend.
        #[schema(example = 2)]
        pub id: i64,
        /// The name of the friend.
        #[schema(max_length = 80, example = "guest")]
        pub username: &'r str,
        /// The e-mail address of the friend.
        #[schema(max_length = 120, example = "guest@example.com")]
        pub email: &'r str,
        /// When the friendship began, in UTC.
        #[schema(value_type = String, format = DateTime, example = "2026-01-31T23:59:59Z")]
        pub since: Timestamp,
    }
}

/// The friends of users. A listing has those of one user.
pub struct Friends;

impl Resource for Friends {
    type Row<'r> = Friend<'r>;
    const TABLE: &'static Table = &Table {
        name: "friends",
        row: "friend",
        from: "friends JOIN users ON users.id = friends.friend_id",
        columns: &[
            Column::id("id").selected_as("users.id").ordered_by("friends.friend_id"),
            Column::text("username", 80).selected_as("users.username"),
            Column::text("email", 120).selected_as("users.email"),
            Column::time("since").selected_as("friends.since").ordered_by("friends.since"),
        ],
        search: None,
        constraints: &[],
    };
}

/// The part of [`Friends`] that belongs to this user.
#[must_use]
pub const fn of(user: i64) -> Scope {
    ("friends.user_id", user)
}

/// The table of friendships, for files and samples.
pub const FRIENDSHIPS: &Table = &Table {
    name: "friends",
    row: "friendship",
    from: "friends",
    columns: &[Column::reference("user_id"), Column::reference("friend_id"), Column::time("since").defaulted()],
    search: None,
    constraints: &[
        ("friends_pkey", "this friendship is in the table, or on an earlier line"),
        ("PRIMARY", "this friendship is in the table, or on an earlier line"),
        ("friend_id", "this friendship is in the table, or on an earlier line"),
        ("friends_user_id_fkey", "user_id is not the id of a user"),
        ("friends_friend_id_fkey", "friend_id is not the id of a user"),
        ("FOREIGN KEY", "user_id or friend_id is not the id of a user"),
    ],
};
