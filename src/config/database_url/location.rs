//! Where a database is: what may be shown of its URL.

// [only servers]
use super::tls::Transport;
// [end]

/// The parts of a URL that give no access to the database.
#[derive(Clone)]
pub(super) struct Location {
    // [only servers]
    /// None for a file.
    pub(super) transport: Option<Transport>,
    // [end]
    /// The host and port, the socket, or the file.
    pub(super) address: String,
    /// The URL without the password and the parameters.
    pub(super) redacted: String,
}
