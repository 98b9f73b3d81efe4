//! The stream of a connection, which fails when its client takes too long.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::super::{State, request};
use super::{Connection, Phase};

/// The longest time that a client may send after the last response of its connection. A connection that is closed with
/// unread bytes is reset, and the response may be lost (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// The unsent bytes that the kernel accepts. Otherwise it accepts megabytes, and the progress of a slow client is visible
/// only after many seconds (tcp(7), `TCP_NOTSENT_LOWAT`).
const UNSENT_MAX: u32 = 128 * 1024;
/// The answer to a request whose head is not complete in time.
const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

pub(super) struct GuardedStream {
    io: TcpStream,
    connection: Rc<Connection>,
    state: Data<State>,
    /// Since when the kernel accepts no bytes, because the client does not read.
    blocked: Option<Instant>,
    /// Fires at the next deadline or before. It is set again only after it fired, so a request costs no timer.
    timer: Pin<Box<Sleep>>,
}

impl GuardedStream {
    pub(super) fn new(io: TcpStream, connection: Rc<Connection>, state: Data<State>) -> Self {
        // Without these options, a connection is slower.
        let _ = io.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&io).set_tcp_notsent_lowat(UNSENT_MAX);
        state.connections.fetch_add(1, Ordering::Relaxed);
        let timer = Box::pin(sleep(state.limits.shortest()));
        Self { io, connection, state, blocked: None, timer }
    }

    /// When the client must have done what is expected.
    fn deadline(&self) -> Option<Instant> {
        let limits = &self.state.limits;
        match (self.connection.phase.get(), self.blocked) {
            (Phase::Ending(since), _) => Some(since + LINGER),
            (_, Some(since)) | (Phase::Head(since), _) => Some(since + limits.request_timeout),
            (Phase::Idle(since), _) => Some(since + limits.keep_alive),
            (Phase::Serving, _) => None,
        }
    }

    /// Returns whether the deadline has passed. Otherwise, the task is woken at the deadline.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.deadline();
        let timer = self.timer.as_mut();
        if deadline.is_some_and(|deadline| deadline < timer.deadline()) || timer.poll(cx).is_ready() {
            let now = Instant::now();
            let next = now + self.state.limits.shortest();
            self.timer.as_mut().reset(deadline.map_or(next, |deadline| deadline.min(next)));
            return deadline.is_some_and(|deadline| deadline <= now) || self.timer.as_mut().poll(cx).is_ready();
        }
        false
    }

    /// Whether the process stops, and the client has not begun another request.
    fn should_close(&self) -> bool {
        let is_idle = matches!(self.connection.phase.get(), Phase::Idle(_));
        is_idle && self.blocked.is_none() && self.state.idle_ends.is_cancelled()
    }

    /// Records what the client sends. Empty lines before a request are ignored (RFC 9112, section 2.2).
    fn record_read(&mut self, bytes: &[u8]) {
        let tail = bytes.iter().rev().take(3).rev();
        self.connection.tail.set(tail.fold(self.connection.tail.get(), |[_, b, c], byte| [b, c, *byte]));
        if matches!(self.connection.phase.get(), Phase::Idle(_)) && bytes.iter().any(|byte| !b"\r\n".contains(byte)) {
            self.connection.phase.set(Phase::Head(Instant::now()));
        }
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(read) => {
                self.record_read(&buf.filled()[before..]);
                Poll::Ready(read)
            }
            // An end, as if of the client's side, ends an idle connection in order.
            Poll::Pending if self.should_close() => Poll::Ready(Ok(())),
            Poll::Pending if !self.is_late(cx) => Poll::Pending,
            Poll::Pending if !matches!(self.connection.phase.get(), Phase::Head(_)) => Poll::Ready(Ok(())),
            Poll::Pending => {
                request::log_refusal(&self.state, StatusCode::REQUEST_TIMEOUT);
                // It is short, and nothing waits before it.
                let _ = Pin::new(&mut self.io).poll_write(cx, TIMEOUT);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.blocked = written.is_pending().then(|| self.blocked.unwrap_or_else(Instant::now));
        if written.is_pending() && self.is_late(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }

    /// hyper flushes when it has written everything, and whenever a request is polled.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.connection.flush();
        if self.connection.phase.get() == Phase::Serving {
            // hyper does not read meanwhile, so it would not detect that the client has reset the connection.
            let mut byte = [0];
            if let Poll::Ready(Err(error)) = self.io.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends this side, and reads what the client still sends until it ends its own.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.connection.phase.get(), Phase::Ending(_)) {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.connection.phase.set(Phase::Ending(Instant::now()));
        }
        let mut bytes = [0; 4096];
        loop {
            let mut rest = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.io).poll_read(cx, &mut rest) {
                Poll::Pending if !self.is_late(cx) => return Poll::Pending,
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {}
                Poll::Pending | Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Drop for GuardedStream {
    fn drop(&mut self) {
        if self.connection.is_reset.get() {
            let _ = SockRef::from(&self.io).set_linger(Some(Duration::ZERO));
        }
        if self.state.connections.fetch_sub(1, Ordering::Release) == 1 {
            self.state.is_empty.notify_waiters();
        }
    }
}
