//! What a connection, its requests and their responses share.

use std::cell::{Cell, RefCell};

use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use crate::http::middleware::{RequestContext, Transport};

/// The cause of requests that are aborted by a shutdown, in the log.
pub(super) const ABORTED: &str = "SHUTDOWN_TIMEOUT_MS: aborted";

/// The state of a connection.
pub(super) struct Connection {
    pub(super) phase: Cell<Phase>,
    /// The request whose response hyper has not read to its end.
    current: RefCell<Option<RequestContext>>,
    /// Requests whose responses hyper has read to their end, but the kernel has not accepted.
    unflushed: RefCell<Vec<RequestContext>>,
    /// Whether the last request has a body.
    has_body: Cell<bool>,
    /// The last three bytes received.
    pub(super) last_received: Cell<[u8; 3]>,
    /// Whether dropping the stream resets the connection, so that a client detects an incomplete response without a length.
    pub(super) reset_on_drop: Cell<bool>,
    /// Why the connection was aborted.
    aborted: Cell<Option<&'static str>>,
}

/// What the client is expected to do, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing: it has not begun another request.
    Idle(Instant),
    /// To complete the head of a request.
    Head(Instant),
    /// A request is being served, and has its own limit.
    Serving,
    /// To close its side.
    Ending(Instant),
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            phase: Cell::new(Phase::Idle(Instant::now())),
            current: RefCell::default(),
            unflushed: RefCell::default(),
            has_body: Cell::default(),
            last_received: Cell::default(),
            reset_on_drop: Cell::default(),
            aborted: Cell::default(),
        }
    }

    /// Records that the head of a request is complete.
    pub(super) fn begin(&self, request: &hyper::Request<Incoming>) {
        self.has_body.set(!request.body().is_end_stream());
        self.phase.set(Phase::Serving);
    }

    /// Records a part of the body of the current response, which hyper has read.
    pub(super) fn record_body(&self, length: usize) {
        if let Some(context) = &mut *self.current.borrow_mut() {
            context.record_body(length);
        }
    }

    /// Records that hyper has read the whole current response, or dropped it.
    pub(super) fn response_buffered(&self) {
        if let Some(mut context) = self.current.take() {
            context.response_read();
            self.unflushed.borrow_mut().push(context);
            // hyper may have received a part of the next head. Behind a body this is not known, so the connection counts as
            // idle until the next byte.
            let is_complete = matches!(self.last_received.get(), [_, b'\n', b'\n'] | [b'\n', b'\r', b'\n']);
            let phase = if is_complete || self.has_body.get() { Phase::Idle } else { Phase::Head };
            self.phase.set(phase(Instant::now()));
        }
    }

    /// Records that the kernel has accepted everything.
    pub(super) fn mark_flushed(&self) {
        self.unflushed.borrow_mut().clear();
    }

    /// Records that the connection ended before the end of its responses, if there are any.
    pub(super) fn abort(&self, reason: &'static str) {
        self.aborted.set(Some(reason));
        self.response_buffered();
        for context in self.unflushed.borrow_mut().drain(..) {
            let needs_reset = context.abort(reason);
            self.reset_on_drop.set(self.reset_on_drop.get() || needs_reset);
        }
    }
}

impl Transport for Connection {
    fn keep(&self, context: RequestContext) {
        self.current.replace(Some(context));
    }

    fn abort_reason(&self) -> &'static str {
        self.aborted.get().unwrap_or(ABORTED)
    }
}
