//! Users: the first example of a resource. The service uses them only by `src/resources.rs`.

pub mod api;
pub mod pages;
pub mod sample;
pub mod welcome;
pub mod writes;

use crate::listing::{Column, Resource, Search, Table, row};

row! {
    /// A user.
    pub struct User<'r> {
        /// The primary key.
        #[schema(example = 1)]
        pub id: i64,
        /// Unique, ignoring ASCII case.
        #[schema(max_length = 80, example = "admin")]
        pub username: &'r str,
        /// Unique, ignoring ASCII case.
        #[schema(max_length = 120, example = "admin@example.com")]
        pub email: &'r str,
    }
}

/// The table of users. The database generates the keys `username_key` and `email_key`.
pub struct Users;

impl Resource for Users {
    type Row<'r> = User<'r>;
    const TABLE: &'static Table = &Table {
        name: "users",
        row: "user",
        from: "users",
        columns: &[
            Column::id("id"),
            Column::text("username", 80).ordered_by("username_key").unique(),
            Column::text("email", 120).ordered_by("email_key").unique().checked(address),
        ],
        search: Some(Search {
            column: |q| if q.contains('@') { "email" } else { "username" },
            description: "A prefix of the username, or of the e-mail address if it contains `@`. ASCII case is ignored.",
        }),
        constraints: &[],
    };
}

/// Checks the syntax of an e-mail address as browsers do
/// (<https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address>), with letters of any script besides. Quoted
/// names and IP addresses are refused.
fn address(email: &str) -> Result<(), String> {
    syntax(email).map_err(|reason| format!("is not of the form name@domain: {reason}"))
}

fn syntax(email: &str) -> Result<(), &'static str> {
    let (name, domain) = email.rsplit_once('@').ok_or("it has no @")?;
    // Full-width forms, which some programs treat as @ and as a dot.
    let is_foreign = |c: char| !c.is_ascii() && !matches!(c, '\u{ff20}' | '\u{3002}' | '\u{ff0e}' | '\u{ff61}');
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-./=?^_`{|}~".contains(c) || is_foreign(c);
    let is_of_domain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c) || is_foreign(c);
    if email.contains(' ') {
        Err("it has a blank")
    } else if name.is_empty() {
        Err("there is nothing before the @")
    } else if name.contains('@') {
        Err("it has more than one @")
    } else if !name.chars().all(is_of_name) {
        Err("the part before the @ has a character that is not accepted there")
    } else if !domain.chars().all(is_of_domain) {
        Err("the domain has a character that is not accepted there")
    } else if domain.split('.').any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-')) {
        Err("a label of the domain is empty, or begins or ends with a hyphen")
    } else if domain.split('.').any(|label| label.chars().count() > 63) {
        Err("a label of the domain has more than 63 characters")
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::{Resource as _, Users};
    use crate::listing::{InvalidRow, NewRow};

    fn new(username: &str, email: &str) -> Result<NewRow, InvalidRow> {
        NewRow::of(Users::TABLE, [None, Some(username.into()), Some(email.into())])
    }

    #[test]
    fn an_address_is_one_that_a_mail_server_may_have() {
        let long = format!("a@{}.org", "l".repeat(63));
        for email in [
            "a@x",
            "a.b+tag@x.org",
            "A..b.@x-y.org",
            "o'neil@x.org",
            "!#$%&'*+/=?^_`{|}~-@x",
            "jörg@müller.example",
            "日本@例え.jp",
            &long,
        ] {
            assert!(new("a", email).is_ok(), "{email}");
        }
        let long = format!("a@{}.org", "l".repeat(64));
        for (email, reason) in [
            ("x", "it has no @"),
            ("@x", "there is nothing before the @"),
            ("a@b@x", "it has more than one @"),
            ("c @x .org", "it has a blank"),
            ("Alice <a@x>", "it has a blank"),
            ("<a@x>", "the part before the @ has a character that is not accepted there"),
            ("\"a\"@x", "the part before the @ has a character that is not accepted there"),
            ("mailto:a@x", "the part before the @ has a character that is not accepted there"),
            ("a,b@x", "the part before the @ has a character that is not accepted there"),
            ("a\u{ff20}b@x", "the part before the @ has a character that is not accepted there"),
            ("a@x,y", "the domain has a character that is not accepted there"),
            ("a@x_y", "the domain has a character that is not accepted there"),
            ("a@[127.0.0.1]", "the domain has a character that is not accepted there"),
            ("a@x\u{3002}org", "the domain has a character that is not accepted there"),
            ("a@", "a label of the domain is empty, or begins or ends with a hyphen"),
            ("a@x.", "a label of the domain is empty, or begins or ends with a hyphen"),
            ("a@x..org", "a label of the domain is empty, or begins or ends with a hyphen"),
            ("a@-x.org", "a label of the domain is empty, or begins or ends with a hyphen"),
            (&long, "a label of the domain has more than 63 characters"),
        ] {
            let refused = new("a", email).unwrap_err();
            assert_eq!(refused.0, [("email", format!("is not of the form name@domain: {reason}"))], "{email}");
        }
        let refused = new("a", "a\u{a0}@x").unwrap_err();
        assert_eq!(refused.to_string(), "email has white space other than a blank (U+00A0)");
    }

    #[test]
    fn every_column_that_is_wrong_is_named() {
        let refused = NewRow::of(Users::TABLE, [Some(0.into()), Some(" ".into()), Some("y".into())]).unwrap_err();
        let expected = "id is below 1; username is empty; email is not of the form name@domain: it has no @";
        assert_eq!(refused.to_string(), expected);
    }
}
