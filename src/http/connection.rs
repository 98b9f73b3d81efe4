//! A client's connection, beneath the requests on it: how long each step of the conversation may take,
//! and what is answered to bytes that make no request.
//!
//! actix bounds the head of a connection's first request, and no later one; what it cannot parse, it answers
//! with an empty body and no line in the log. So its stream is wrapped: every read and every write passes
//! through [`Guarded`], which knows from the shared [`Connection`] what the client is expected to do.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::State;
use super::problem::Problem;
use super::request;

/// How long a client may keep a connection that it does not use: longer than the 60 seconds for which common
/// balancers do, so that it is they who close it and no request crosses with our closing.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a client may go on sending after it was told that its connection ends. Closed at once, with
/// bytes unread, a connection is reset, and the answer may be lost on its way (RFC 9112, section 9.6).
pub const LINGER: Duration = Duration::from_secs(1);

/// What the stream of a connection and the requests on it know of each other.
pub(super) struct Connection {
    phase: Cell<Phase>,
    /// The last bytes that came in.
    tail: Cell<[u8; 4]>,
}

/// What ends a head.
const END: [u8; 4] = *b"\r\n\r\n";

#[derive(Clone, Copy)]
enum Phase {
    /// Nothing of a next request has come since then.
    Idle(Instant),
    /// The head of a request is coming in.
    Head {
        since: Instant,
        /// Whether its first line is complete.
        has_line: bool,
    },
    /// A request is at work, and has its own limit.
    Serving,
    /// The client was told, then, that this connection ends.
    Ending(Instant),
}

impl Connection {
    /// Of a client that has not sent anything.
    fn new() -> Self {
        Self { phase: Cell::new(Phase::Idle(Instant::now())), tail: Cell::new(END) }
    }

    /// The head of a request is complete.
    pub(super) fn begin(&self) {
        self.phase.set(Phase::Serving);
    }

    /// So is its body.
    pub(super) fn has_body(&self) {
        self.tail.set(END);
    }

    /// Its answer has been handed over.
    pub(super) fn end(&self) {
        let now = Instant::now();
        // A part of the next head may have come with this one.
        let is_between = self.tail.get() == END;
        self.phase.set(if is_between { Phase::Idle(now) } else { Phase::Head { since: now, has_line: true } });
    }

    /// An answer has been handed over that ends the connection.
    pub(super) fn close(&self) {
        self.phase.set(Phase::Ending(Instant::now()));
    }

    fn received(&self, bytes: &[u8]) {
        let mut tail = self.tail.get();
        for byte in &bytes[bytes.len().saturating_sub(tail.len())..] {
            tail.rotate_left(1);
            tail[3] = *byte;
        }
        self.tail.set(tail);
        let (since, had_line) = match self.phase.get() {
            Phase::Idle(_) => (Instant::now(), false),
            Phase::Head { since, has_line } => (since, has_line),
            Phase::Serving | Phase::Ending(_) => return,
        };
        self.phase.set(Phase::Head { since, has_line: had_line || bytes.contains(&b'\n') });
    }
}

/// The stream of a connection, which ends with an error when its client takes too long.
pub struct Guarded {
    io: TcpStream,
    connection: Rc<Connection>,
    state: Data<State>,
    /// Since when the client has not taken what is written.
    blocked: Option<Instant>,
    /// Fires at the next deadline or before: it is set again only when it has fired, which costs a
    /// connection one timer in a while and a request none.
    timer: Pin<Box<Sleep>>,
    /// What is left to write of an answer in the place of the parser's, once it has begun.
    refusal: Option<Vec<u8>>,
}

impl Guarded {
    /// Guards a connection that was just accepted.
    #[must_use]
    pub fn new(io: TcpStream, state: Data<State>) -> Self {
        let timer = Box::pin(sleep(state.limits.request_timeout));
        let connection = Rc::new(Connection::new());
        Self { io, connection, state, blocked: None, timer, refusal: None }
    }

    /// Hands the connection to the requests on it.
    pub fn share(&self, data: &mut actix_web::dev::Extensions) {
        data.insert(self.connection.clone());
    }

    /// Until when the client must have done what it is expected to do.
    fn deadline(&self) -> Option<Instant> {
        let limit = self.state.limits.request_timeout;
        if let Some(since) = self.blocked {
            return Some(since + limit);
        }
        match self.connection.phase.get() {
            Phase::Idle(since) => Some(since + KEEP_ALIVE),
            Phase::Head { since, .. } => Some(since + limit),
            Phase::Serving => None,
            Phase::Ending(since) => Some(since + LINGER),
        }
    }

    /// Wakes the task at the deadline, and is an error behind it.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Phase::Ending(since) = self.connection.phase.get()
            && self.timer.deadline() > since + LINGER
        {
            self.timer.as_mut().reset(since + LINGER);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.give_up(cx);
                return Err(io::ErrorKind::TimedOut.into());
            }
            // What begins from now on has the whole limit, so it can be overdue no earlier than this.
            let latest = now + self.state.limits.request_timeout;
            self.timer.as_mut().reset(deadline.map_or(latest, |deadline| deadline.min(latest)));
        }
        Ok(())
    }

    /// Tells a client whose request never became complete why its connection ends.
    fn give_up(&mut self, cx: &mut Context<'_>) {
        if let (None, Phase::Head { .. }) = (self.blocked, self.connection.phase.get()) {
            let answer = request::refuse(&self.state, &Problem::request_timeout());
            // It is short, and nothing waits before it; a client that does not take it misses nothing else.
            let _ = Pin::new(&mut self.io).poll_write(cx, &answer);
        }
    }

    /// Our answer in the place of one by which actix refuses what it cannot parse.
    fn refuse(&self, status: StatusCode) -> Vec<u8> {
        let problem = match (status, self.connection.phase.get()) {
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Phase::Head { has_line: false, .. }) => {
                Problem::uri_too_long()
            }
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, _) => Problem::head_too_large(),
            _ => Problem::malformed(),
        };
        self.connection.close();
        request::refuse(&self.state, &problem)
    }

    fn poll_raw_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        match written {
            Poll::Ready(_) => self.blocked = None,
            Poll::Pending => _ = self.blocked.get_or_insert_with(Instant::now),
        }
        if written.is_pending() || matches!(self.connection.phase.get(), Phase::Ending(_)) {
            self.check(cx)?;
        }
        written
    }

    /// Ends our side, and reads what the client still sends until it ends its own.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        loop {
            let mut rest = [0; 4096];
            let mut rest = ReadBuf::new(&mut rest);
            ready!(Pin::new(&mut *self).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        match read {
            Poll::Ready(_) => {
                let bytes = &buf.filled()[before..];
                if !bytes.is_empty() {
                    self.connection.received(bytes);
                }
            }
            Poll::Pending => self.check(cx)?,
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some((status, length)) = bare_refusal(buf) else { return self.poll_raw_write(cx, buf) };
        // What comes before it are answers to earlier requests.
        if buf.len() > length {
            return self.poll_raw_write(cx, &buf[..buf.len() - length]);
        }
        let mut refusal = self.refusal.take().unwrap_or_else(|| self.refuse(status));
        while !refusal.is_empty() {
            match self.poll_raw_write(cx, &refusal) {
                Poll::Ready(written) => _ = refusal.drain(..written?),
                Poll::Pending => break,
            }
        }
        let is_written = refusal.is_empty();
        self.refusal = Some(refusal);
        if !is_written {
            return Poll::Pending;
        }
        ready!(self.linger(cx))?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What actix-http refuses bytes with, up to the date that ends it; on a connection's first request, and later.
/// Every answer of ours has more headers than these.
const BARE: [(StatusCode, &[u8]); 4] = [
    (StatusCode::BAD_REQUEST, b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: "),
    (StatusCode::BAD_REQUEST, b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: "),
    (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\ndate: ",
    ),
    (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: ",
    ),
];

/// The status and the length of a bare refusal at the end of these bytes.
fn bare_refusal(bytes: &[u8]) -> Option<(StatusCode, usize)> {
    /// The only format that HTTP may send (RFC 9110, section 5.6.7).
    const DATE: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();
    let head = bytes.strip_suffix(&END)?;
    let head = &head[..head.len().checked_sub(DATE)?];
    let (status, bare) = BARE.into_iter().find(|(_, bare)| head.ends_with(bare))?;
    Some((status, bare.len() + DATE + END.len()))
}
