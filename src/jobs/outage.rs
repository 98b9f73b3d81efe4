//! An outage of the database, which is logged once.

use std::cell::Cell;

use crate::db::Error;

/// Whether the last statement failed.
#[derive(Default)]
pub(super) struct Outage(Cell<bool>);

impl Outage {
    /// Logs the error if the statement before did not fail.
    pub(super) fn observe<T>(&self, outcome: Result<T, Error>) -> Option<T> {
        let had_failed = self.0.replace(outcome.is_err());
        match outcome {
            Ok(value) => {
                if had_failed {
                    tracing::info!("the queue is available again");
                }
                Some(value)
            }
            Err(error) => {
                if !had_failed {
                    tracing::warn!(error = %error, "the queue is unavailable");
                }
                None
            }
        }
    }

    /// Whether the last statement failed.
    pub(super) fn is_present(&self) -> bool {
        self.0.get()
    }
}
