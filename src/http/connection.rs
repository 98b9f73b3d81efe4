//! A client's connection, beneath the requests on it: how long each step of the conversation may take,
//! what is answered to bytes that make no request, and that one request is at work at a time.
//!
//! actix bounds the head of a connection's first request, and no later one. What it cannot parse, it answers
//! with an empty body and no line in the log. And it parses every head that it is given, but keeps whether a
//! request was HEAD, and whether its connection is to end, of the last one alone: the answer to a GET with a HEAD
//! behind it may lack its body. So its stream is wrapped: every read and every write passes through [`Guarded`],
//! which knows from the `Connection` that both share what the client is expected to do.

mod head;

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use actix_web::web::{BytesMut, Data};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::State;
use super::problem::Problem;
use super::request::{self, URI_MAX};
use head::Head;

/// How long a client may go on sending after it was told that its connection ends. Closed at once, with
/// bytes unread, a connection is reset, and the answer may be lost on its way (RFC 9112, section 9.6).
pub const LINGER: Duration = Duration::from_secs(1);

/// The most bytes that are kept of what came before its time.
const EARLY_MAX: usize = 64 * 1024;

/// What the stream of a connection and the requests on it know of each other.
pub(super) struct Connection {
    phase: Cell<Phase>,
    /// To be woken when what came before its time may be read.
    reader: Cell<Option<Waker>>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Nothing of a next request has come since then.
    Idle(Instant),
    /// The head of a request has been coming in since then.
    Head(Instant),
    /// It has come in whole since then, and is about to be parsed.
    Whole(Instant),
    /// A request is at work, and has its own limit.
    Serving {
        /// How much of its body is still to come.
        body: Body,
    },
    /// The client was told, then, that this connection ends.
    Ending(Instant),
}

/// The rest of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Sized(u64),
    /// What its own chunks say.
    Chunked,
}

impl Connection {
    /// The head of a request is complete.
    pub(super) fn begin(&self, body: Body) {
        self.enter(Phase::Serving { body });
    }

    /// So is its body.
    pub(super) fn has_body(&self) {
        self.enter(Phase::Serving { body: Body::Sized(0) });
    }

    /// Its answer has been handed over.
    pub(super) fn end(&self) {
        self.enter(Phase::Idle(Instant::now()));
    }

    /// An answer has been handed over that ends the connection.
    pub(super) fn close(&self) {
        self.enter(Phase::Ending(Instant::now()));
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The stream of a connection, which ends with an error when its client takes too long.
pub struct Guarded {
    io: TcpStream,
    connection: Rc<Connection>,
    state: Data<State>,
    /// How much has been read of the head that is coming in.
    head: Head,
    /// What came before its time: behind the head or the body of the request that is at work.
    early: BytesMut,
    /// Whether nothing comes behind that.
    has_ended: bool,
    /// Since when the client has not taken what is written.
    blocked: Option<Instant>,
    /// Fires at the next deadline or before: it is set again only when it has fired, which costs a
    /// connection one timer in a while and a request none.
    timer: Pin<Box<Sleep>>,
    /// Fires when connections that are not used are to end, and then when all others are.
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    /// What is left to write of an answer in the place of the parser's, once it has begun.
    refusal: Option<Vec<u8>>,
}

impl Guarded {
    /// Guards a connection that was just accepted.
    #[must_use]
    pub fn new(io: TcpStream, state: Data<State>) -> Self {
        let phase = Cell::new(Phase::Idle(Instant::now()));
        // Nagle's algorithm would hold the end of a stream back until the client has acknowledged what is before it. A
        // connection that cannot do without is slower, and no worse.
        let _ = io.set_nodelay(true);
        state.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            io,
            connection: Rc::new(Connection { phase, reader: Cell::new(None) }),
            head: Head::default(),
            early: BytesMut::new(),
            has_ended: false,
            blocked: None,
            timer: Box::pin(sleep(state.limits.shortest())),
            end: Box::pin(state.idle_ends.clone().cancelled_owned()),
            refusal: None,
            state,
        }
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
            Phase::Idle(since) => Some(since + self.state.limits.keep_alive),
            Phase::Head(since) | Phase::Whole(since) => Some(since + limit),
            Phase::Serving { .. } => None,
            Phase::Ending(since) => Some(since + LINGER),
        }
    }

    /// Notes what comes in, and tells how much of it is due: the rest is behind the request that it belongs to.
    fn take(&mut self, bytes: &[u8]) -> usize {
        match self.connection.phase.get() {
            _ if bytes.is_empty() => 0,
            phase @ (Phase::Idle(_) | Phase::Head(_)) => {
                let since = if let Phase::Head(since) = phase { since } else { Instant::now() };
                let end = self.head.take(bytes);
                self.connection.phase.set(if end.is_some() { Phase::Whole(since) } else { Phase::Head(since) });
                end.unwrap_or(bytes.len())
            }
            Phase::Whole(_) => 0,
            Phase::Serving { body: Body::Sized(rest) } => {
                let due = usize::try_from(rest).unwrap_or(usize::MAX).min(bytes.len());
                self.connection.phase.set(Phase::Serving { body: Body::Sized(rest - due as u64) });
                due
            }
            Phase::Serving { body: Body::Chunked } | Phase::Ending(_) => bytes.len(),
        }
    }

    /// Reads what is due, from what came before its time or else from the client.
    fn poll_due(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() && !self.has_ended {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            let due = before + self.take(&buf.filled()[before..]);
            self.early.extend_from_slice(&buf.filled()[due..]);
            buf.set_filled(due);
        } else {
            let mut early = std::mem::take(&mut self.early);
            let due = self.take(&early[..early.len().min(buf.remaining())]);
            buf.put_slice(&early.split_to(due));
            self.early = early;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads while nothing is due: what comes is kept, and an end is told at once when nothing is kept before
    /// it, because it says that the client has gone.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.has_ended && self.early.len() < EARLY_MAX {
            let mut bytes = [0; 1024];
            let mut bytes = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.io).poll_read(cx, &mut bytes) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if bytes.filled().is_empty() => self.has_ended = true,
                Poll::Ready(Ok(())) => self.early.extend_from_slice(bytes.filled()),
            }
        }
        if self.has_ended && self.early.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if !self.early.is_empty() {
            self.connection.reader.set(Some(cx.waker().clone()));
        }
        Poll::Pending
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
            // Later phases have a full limit each, so none of their deadlines is earlier than this.
            let latest = now + self.state.limits.shortest();
            self.timer.as_mut().reset(deadline.map_or(latest, |deadline| deadline.min(latest)));
        }
        Ok(())
    }

    /// Whether the server is about to end and the client has not begun another request; an error when whatever it
    /// has begun is to be cut off.
    fn is_over(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while self.end.as_mut().poll(cx).is_ready() {
            if self.state.work_ends.is_cancelled() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            self.end = Box::pin(self.state.work_ends.clone().cancelled_owned());
        }
        Ok(self.state.idle_ends.is_cancelled() && matches!(self.connection.phase.get(), Phase::Idle(_)))
    }

    /// Tells a client whose request never became complete why its connection ends.
    fn give_up(&mut self, cx: &mut Context<'_>) {
        if let (None, Phase::Head(_)) = (self.blocked, self.connection.phase.get()) {
            let answer = request::refuse(&self.state, &Problem::request_timeout());
            // It is short, and nothing waits before it; a client that does not take it misses nothing else.
            let _ = Pin::new(&mut self.io).poll_write(cx, &answer);
        }
    }

    /// Our answer in the place of one by which actix refuses what it cannot parse.
    fn refuse(&self, status: StatusCode) -> Vec<u8> {
        let problem = match status {
            // For actix, such a line is too large like any other, or malformed.
            _ if self.head.first_line > URI_MAX => Problem::uri_too_long(),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Problem::head_too_large(),
            _ => Problem::malformed(),
        };
        self.connection.close();
        request::refuse(&self.state, &problem)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
        let read = match self.connection.phase.get() {
            Phase::Whole(_) | Phase::Serving { body: Body::Sized(0) } => self.poll_early(cx),
            _ => self.poll_due(cx, buf),
        };
        if read.is_pending() {
            self.check(cx)?;
            if self.is_over(cx)? {
                return Poll::Ready(Ok(()));
            }
        }
        read
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.state.connections.fetch_sub(1, Ordering::Release) == 1 {
            self.state.is_empty.notify_waiters();
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some((status, length)) = bare_refusal(buf) else { return self.poll_send(cx, buf) };
        // What comes before it are answers to earlier requests.
        if buf.len() > length {
            return self.poll_send(cx, &buf[..buf.len() - length]);
        }
        let mut refusal = self.refusal.take().unwrap_or_else(|| self.refuse(status));
        while !refusal.is_empty() {
            match self.poll_send(cx, &refusal) {
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
    const END: &[u8] = b"\r\n\r\n";
    /// The only format that HTTP may send (RFC 9110, section 5.6.7).
    const DATE: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();
    let head = bytes.strip_suffix(END)?;
    let head = &head[..head.len().checked_sub(DATE)?];
    let (status, bare) = BARE.into_iter().find(|(_, bare)| head.ends_with(bare))?;
    Some((status, bare.len() + DATE + END.len()))
}
