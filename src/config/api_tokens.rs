//! The tokens of API clients (`API_TOKENS`).

use std::fmt::{self, Write as _};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::values::one_of;

/// The length of a SHA-256 in hexadecimal digits.
const DIGITS: usize = 64;
const EXPECTED: &str = "expected name:sha256 pairs, separated by commas or white space; `web token NAME` makes one";

/// The hashes of tokens, each with the name of its client. A release may hold them, because a token of 256 random bits cannot
/// be found from its hash.
#[derive(Clone, Default)]
pub struct ApiTokens(Vec<(String, [u8; 32])>);

impl ApiTokens {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the client with this token. The time does not depend on how much of a hash is equal, nor on which one is.
    #[must_use]
    pub fn client(&self, token: &[u8]) -> Option<&str> {
        let hash = Sha256::digest(token);
        let mut found = None;
        for (name, known) in &self.0 {
            if bool::from(known.ct_eq(hash.as_slice())) {
                found = Some(name.as_str());
            }
        }
        found
    }

    /// The pair for a token, as `API_TOKENS` contains it.
    ///
    /// # Errors
    /// When the name is not valid.
    pub fn pair(name: &str, token: &str) -> Result<String, String> {
        let mut pair = format!("{}:", valid_name(name)?);
        for byte in Sha256::digest(token) {
            let _ = write!(pair, "{byte:02x}");
        }
        Ok(pair)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let pairs = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|pair| !pair.is_empty());
        let mut tokens = Self::default();
        for (number, pair) in (1..).zip(pairs) {
            // The error does not contain the pair, which may be a token.
            let of = |problem: &str| format!("pair {number}: {problem}");
            let (name, digits) = pair.split_once(':').ok_or_else(|| of(&format!("it has no colon; {EXPECTED}")))?;
            let hash =
                hash(digits).ok_or_else(|| of(&format!("the hash is not {DIGITS} hexadecimal digits; {EXPECTED}")))?;
            if tokens.0.iter().any(|(_, known)| *known == hash) {
                return Err(of("its token is that of an earlier pair; make another one with `web token NAME`"));
            }
            tokens.0.push((valid_name(name).map_err(|problem| of(&problem))?.to_owned(), hash));
        }
        if tokens.is_empty() { Err(EXPECTED.to_owned()) } else { Ok(tokens) }
    }
}

/// A name that can be written to a log unchanged.
fn valid_name(name: &str) -> Result<&str, String> {
    const LONGEST: usize = 64;
    let is_valid = (1..=LONGEST).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    is_valid.then_some(name).ok_or_else(|| {
        format!("expected a name of 1 to {LONGEST} ASCII letters, digits, dots, hyphens and underscores")
    })
}

fn hash(digits: &str) -> Option<[u8; 32]> {
    let is_valid = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut hash = [0; 32];
    for (position, byte) in hash.iter_mut().enumerate().take_while(|_| is_valid) {
        *byte = u8::from_str_radix(&digits[2 * position..2 * position + 2], 16).ok()?;
    }
    is_valid.then_some(hash)
}

impl<'de> Deserialize<'de> for ApiTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The names alone.
impl fmt::Debug for ApiTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The names, each with `***` in the place of its hash.
impl Serialize for ApiTokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs: Vec<_> = self.0.iter().map(|(name, _)| format!("{name}:***")).collect();
        serializer.serialize_str(&pairs.join(","))
    }
}

/// Which requests need a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TokensRequired {
    /// Those that write.
    #[default]
    Writes,
    /// All except `OPTIONS`, health checks, styles and the icon.
    All,
}

pub(super) fn tokens_required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TokensRequired, D::Error> {
    let values = [("writes", TokensRequired::Writes), ("all", TokensRequired::All)];
    one_of(&String::deserialize(deserializer)?, &values).map_err(D::Error::custom)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::ApiTokens;

    #[test]
    fn a_token_is_that_of_its_client() {
        let pairs =
            [("one", "a"), ("two", "b"), ("one", "c")].map(|(name, token)| ApiTokens::pair(name, token).unwrap());
        for separator in [",", "\n", " , "] {
            let tokens = ApiTokens::parse(&pairs.join(separator)).unwrap();
            let found = ["a", "b", "c", "", "d", "one"].map(|token| tokens.client(token.as_bytes()));
            assert_eq!(found, [Some("one"), Some("two"), Some("one"), None, None, None]);
            assert_eq!(format!("{tokens:?}"), r#"["one", "two", "one"]"#);
            assert_eq!(serde_json::to_value(&tokens).unwrap(), "one:***,two:***,one:***");
        }
    }

    #[test]
    fn a_wrong_pair_is_named_by_its_number_and_not_shown() {
        let valid = ApiTokens::pair("one", "a").unwrap();
        for (pair, problem) in [
            ("secret".to_owned(), "it has no colon"),
            (format!("{}x", &valid[..valid.len() - 1]), "the hash is not 64 hexadecimal digits"),
            (format!("{valid}0"), "the hash is not 64 hexadecimal digits"),
            (valid.replace("one", "n/me"), "expected a name"),
            (valid.replace("one", "n\u{e9}"), "expected a name"),
            (valid.replace("one", ""), "expected a name"),
        ] {
            let other = ApiTokens::pair("two", "b").unwrap();
            let error = ApiTokens::parse(&format!("{other},{pair}")).unwrap_err();
            assert!(error.starts_with(&format!("pair 2: {problem}")), "{error}");
            assert!(!error.contains("secret") && !error.contains(&valid[4..20]), "{error}");
        }
        assert!(
            ApiTokens::parse(&format!("{valid},{}", valid.replace("one", "two"))).unwrap_err().contains("earlier pair")
        );
    }
}
