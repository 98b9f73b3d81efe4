//! Friends: the second example, a part of a join that belongs to a user.

pub mod api;
mod page;
pub mod sample;

use crate::listing::{Column, Resource, Table, row};

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
        ],
        search: None,
        constraints: &[],
    };
}

/// The table of friendships, for files and samples.
pub const FRIENDSHIPS: &Table = &Table {
    name: "friends",
    row: "friendship",
    from: "friends",
    columns: &[Column::reference("user_id"), Column::reference("friend_id")],
    search: None,
    constraints: &[],
};
