//! Times at which work begins, as a cron expression in UTC.

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names::nearest;
use super::values::shown;

/// The expressions that have a name.
const NICKNAMES: [&str; 5] = ["@yearly", "@monthly", "@weekly", "@daily", "@hourly"];

/// A cron expression of 5 fields, or of 6 with seconds first
/// (<https://pubs.opengroup.org/onlinepubs/9799919799/utilities/crontab.html>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

impl Schedule {
    /// A schedule of the program, and not of its configuration.
    ///
    /// # Panics
    /// If the expression is not valid.
    #[must_use]
    pub fn of(text: &'static str) -> Self {
        Self::try_from(text).expect("the expression is valid")
    }

    /// The first time after this one, in seconds since 1970. None if there is none.
    #[must_use]
    pub fn next_after(&self, seconds: i64) -> Option<i64> {
        self.cron.find_next_occurrence(&time(seconds)?, false).ok().map(|next| next.timestamp())
    }

    /// The last time that is not after this one, in seconds since 1970. None if there is none.
    #[must_use]
    pub fn last_until(&self, seconds: i64) -> Option<i64> {
        self.cron.find_previous_occurrence(&time(seconds)?, true).ok().map(|last| last.timestamp())
    }
}

fn time(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}

impl TryFrom<&str> for Schedule {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let invalid = |advice: &str| {
            let expected =
                "expected a cron expression in UTC of minute, hour, day, month and weekday, such as 17 * * * *";
            format!("{expected}, got {}{advice}", shown(text))
        };
        let cron = parser.parse(text).map_err(|_| {
            let likely = nearest(text, NICKNAMES).map(|likely| format!("; did you mean {likely}?"));
            invalid(&likely.unwrap_or_default())
        })?;
        let schedule = Self { text: text.to_owned(), cron };
        // Such as 30 February.
        schedule.next_after(0).ok_or_else(|| invalid(", which has no times"))?;
        Ok(schedule)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(deserializer)?.as_str()).map_err(D::Error::custom)
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::Schedule;

    #[test]
    fn a_schedule_is_a_cron_expression_in_utc() {
        let hourly = Schedule::try_from("17 * * * *").unwrap();
        assert_eq!((hourly.last_until(17 * 60), hourly.next_after(17 * 60)), (Some(17 * 60), Some(77 * 60)));
        assert_eq!(hourly.last_until(77 * 60 - 1), Some(17 * 60));
        let each_second = Schedule::try_from("* * * * * *").unwrap();
        assert_eq!((each_second.last_until(5), each_second.next_after(5)), (Some(5), Some(6)));
        assert_eq!(Schedule::try_from("@daily").unwrap().next_after(1), Some(86_400));
        for text in ["", "* * * *", "60 * * * *", "hourly", "0 0 30 2 *", "* * * * * * 2030"] {
            assert!(Schedule::try_from(text).is_err(), "{text}");
        }
    }
}
