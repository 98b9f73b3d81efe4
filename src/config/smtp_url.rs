//! `SMTP_URL` and `MAIL_FROM`: the mail server and the sender.
//!
//! The URL contains a password, so an error message contains no part of it except the names of parameters.

use std::fmt;
use std::net::IpAddr;

use lettre::message::Mailbox;
use lettre::transport::smtp::client::Certificate;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::{ParseError, Url};

use super::names::suggestion;

const EXPECTED: &str = "expected smtp://user:password@host:587 or smtps://user:password@host:465";
const PORT: &str = "the port is not a number from 1 to 65535";
const ADVICE: &str =
    "a special character of the password must be percent-encoded, such as / as %2F, # as %23 and ? as %3F";
const PARAMETERS: [&str; 2] = ["tls", "tls-ca"];

/// Where mail is delivered to, and how to log in. Shown, it hides the password.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct SmtpUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) encryption: Encryption,
    /// The user and the password.
    pub(crate) credentials: Option<(String, String)>,
    /// Certificate authorities that are trusted besides the public ones.
    pub(crate) authorities: Vec<Certificate>,
}

/// How the connection to the mail server is encrypted. There is no fall-back to plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// TLS from the first byte (`smtps://`).
    Tls,
    /// TLS by STARTTLS, which the server must support (`smtp://`).
    StartTls,
    /// None (`smtp://…?tls=none`).
    None,
}

impl SmtpUrl {
    /// A warning when mail leaves this machine in plain text.
    pub(super) fn warning(&self) -> Option<String> {
        let is_open = self.encryption == Encryption::None && !is_local(&self.host);
        is_open.then(|| {
            format!("SMTP_URL: the connection to {}:{} is not encrypted; remove tls=none", self.host, self.port)
        })
    }
}

impl TryFrom<String> for SmtpUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.trim() != text {
            return Err("it begins or ends with a blank or a line break; remove it".to_owned());
        }
        let url = Url::parse(&text).map_err(|error| match error {
            ParseError::InvalidPort => format!("{PORT}, or {ADVICE}; {EXPECTED}"),
            ParseError::EmptyHost => format!("the host is missing; {EXPECTED}"),
            _ => format!("it is not a URL; {EXPECTED}"),
        })?;
        let (port, mut encryption) = match url.scheme() {
            "smtp" => (587, Encryption::StartTls),
            "smtps" => (465, Encryption::Tls),
            _ => return Err(format!("unknown scheme; {EXPECTED}")),
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("the host is missing; {EXPECTED}"))?;
        // The URL of an IPv6 address has it in brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        // A part of the password can be in any of these.
        let is_misplaced = !matches!(url.path(), "" | "/") || url.fragment().is_some();
        if is_misplaced || url.query().is_some_and(|query| query.contains('@')) {
            return Err(format!("it has a path, a fragment or an @ after the host; {ADVICE}"));
        }
        if url.port() == Some(0) {
            return Err(format!("{PORT}; {EXPECTED}"));
        }
        let mut authorities = Vec::new();
        for (name, value) in url.query_pairs() {
            match (&*name, &*value) {
                ("tls", "none") if encryption == Encryption::StartTls => encryption = Encryption::None,
                ("tls", "none") => return Err("tls=none contradicts smtps://; use smtp:// with it".to_owned()),
                ("tls", _) => return Err("tls: expected none; without it, TLS is required".to_owned()),
                ("tls-ca", file) => authorities.extend(read_authorities(file)?),
                (name, _) => return Err(format!("unknown parameter; {}", suggestion(name, PARAMETERS))),
            }
        }
        let credentials = credentials(&url)?;
        if credentials.is_some() && encryption == Encryption::None && !is_local(&host) {
            return Err(
                "tls=none would send the password in plain text to another machine; remove one of the two".to_owned()
            );
        }
        Ok(Self { host, port: url.port().unwrap_or(port), encryption, credentials, authorities })
    }
}

fn credentials(url: &Url) -> Result<Option<(String, String)>, String> {
    let decode = |part: &str| {
        let decoded = percent_encoding::percent_decode_str(part).decode_utf8();
        decoded.map(String::from).map_err(|_| "the user or the password is not UTF-8".to_owned())
    };
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        ("", Some(_)) => Err("it has a password and no user".to_owned()),
        (_, None) => Err("it has a user and no password".to_owned()),
        (user, Some(password)) => Ok(Some((decode(user)?, decode(password)?))),
    }
}

fn read_authorities(file: &str) -> Result<Vec<Certificate>, String> {
    let pem = std::fs::read(file).map_err(|error| format!("tls-ca: cannot read {file:?}: {error}"))?;
    let authorities = Certificate::from_pem(&pem).map(|certificate| vec![certificate]);
    authorities.map_err(|_| format!("tls-ca: {file:?} is not a certificate in PEM"))
}

/// Whether a host is this machine.
fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encryption == Encryption::Tls { "smtps" } else { "smtp" };
        let login = if self.credentials.is_some() { "***@" } else { "" };
        let parameter = if self.encryption == Encryption::None { "?tls=none" } else { "" };
        let (host, port) = (&self.host, self.port);
        if host.contains(':') {
            write!(f, "{scheme}://{login}[{host}]:{port}{parameter}")
        } else {
            write!(f, "{scheme}://{login}{host}:{port}{parameter}")
        }
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SmtpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The sender of mail: an address, or a name and an address.
#[derive(Clone, Debug)]
pub struct MailFrom(pub(crate) Mailbox);

impl<'de> Deserialize<'de> for MailFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            let shown = super::values::shown(&text);
            D::Error::custom(format!(
                "expected an address such as roster@example.com or Roster <roster@example.com>, got {shown}"
            ))
        })
    }
}

impl Serialize for MailFrom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::{Encryption, SmtpUrl};

    fn parse(text: &str) -> Result<SmtpUrl, String> {
        SmtpUrl::try_from(text.to_owned())
    }

    #[test]
    fn a_url_is_the_server_and_the_login() {
        for (text, shown, encryption) in [
            ("smtp://mail.example.com", "smtp://mail.example.com:587", Encryption::StartTls),
            ("smtp://a%40b:p%2Fw@mail.example.com:25/", "smtp://***@mail.example.com:25", Encryption::StartTls),
            ("smtps://u:canary@mail.example.com", "smtps://***@mail.example.com:465", Encryption::Tls),
            ("smtp://localhost:1025?tls=none", "smtp://localhost:1025?tls=none", Encryption::None),
            ("smtp://u:canary@[::1]:25?tls=none", "smtp://***@[::1]:25?tls=none", Encryption::None),
            ("smtp://u:canary@127.0.0.1?tls=none", "smtp://***@127.0.0.1:587?tls=none", Encryption::None),
        ] {
            let url = parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.encryption), (shown, encryption));
            assert_eq!(format!("{url:?}"), shown);
        }
        let url = parse("smtp://a%40b:p%2Fw@mail.example.com").unwrap();
        assert_eq!(url.credentials, Some(("a@b".to_owned(), "p/w".to_owned())));
        assert!(parse("smtp://mailpit:1025?tls=none").unwrap().warning().is_some());
        assert!(parse("smtp://localhost:1025?tls=none").unwrap().warning().is_none());
    }

    #[test]
    fn an_error_has_the_fix_and_no_password() {
        for (text, problem) in [
            ("mail.example.com", "it is not a URL"),
            ("http://u:canary@h", "unknown scheme"),
            ("smtp://u:canary@", "the host is missing"),
            ("smtp://u:can/ary@h", "the port is not a number from 1 to 65535, or a special character"),
            ("smtp://u:1/canary@h", "it has a path, a fragment or an @"),
            ("smtp://u:1?canary@h", "it has a path, a fragment or an @"),
            ("smtp://u:canary@h#x", "it has a path, a fragment or an @"),
            ("smtp://canary@h", "it has a user and no password"),
            ("smtp://:canary@h", "it has a password and no user"),
            ("smtp://u:canary@h?tsl=none", "unknown parameter; did you mean tls?"),
            ("smtp://h:0", "the port is not a number from 1 to 65535"),
            ("smtp://h:65536", "the port is not a number from 1 to 65535"),
            ("smtp://h?tls=off", "tls: expected none"),
            ("smtps://h?tls=none", "tls=none contradicts smtps://"),
            ("smtp://u:canary@h?tls=none", "tls=none would send the password in plain text"),
            ("smtp://h?tls-ca=/nowhere", "tls-ca: cannot read \"/nowhere\""),
            (" smtp://h", "it begins or ends with a blank"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(problem), "{text}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
