//! The sizes of requests.

/// The longest URI, in bytes. RFC 9110, section 4.1, recommends 8000 at least.
pub(super) const URI_MAX: usize = 8 * 1024;
/// The longest body, in bytes. A longer one gets a 413.
pub(super) const BODY_MAX: usize = 64 * 1024;
