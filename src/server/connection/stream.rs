//! The stream of a connection, which fails when its client takes too long.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::state::{Connection, Phase};
use crate::http::State;
use crate::http::middleware::RequestContext;

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
    write_blocked_since: Option<Instant>,
    /// Fires at the next deadline or before. It is set again only after it fired, so a request costs no timer.
    timer: Pin<Box<Sleep>>,
}

impl GuardedStream {
    pub(super) fn new(io: TcpStream, connection: Rc<Connection>, state: Data<State>) -> Self {
        // Errors are ignored: a connection without the first option is slower, and one without the second detects a
        // client that does not read later.
        let _ = io.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&io).set_tcp_notsent_lowat(UNSENT_MAX);
        let timer = Box::pin(sleep(state.limits.shortest()));
        Self { io, connection, state, write_blocked_since: None, timer }
    }

    /// When the client must have done what is expected.
    fn deadline(&self) -> Option<Instant> {
        let limits = &self.state.limits;
        match (self.connection.phase.get(), self.write_blocked_since) {
            (Phase::Ending(since), _) => Some(since + LINGER),
            (_, Some(since)) | (Phase::Head(since), _) => Some(since + limits.request_timeout),
            (Phase::Idle(since), _) => Some(since + limits.keep_alive),
            (Phase::Serving, _) => None,
        }
    }

    /// Returns whether the deadline has passed. Otherwise, the task is woken at the deadline.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.deadline();
        if let Some(deadline) = deadline.filter(|deadline| *deadline < self.timer.deadline()) {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return true;
            }
            self.timer.as_mut().reset(deadline.unwrap_or_else(|| now + self.state.limits.shortest()));
        }
        false
    }

    /// Whether the connection is idle and the process is stopping.
    fn is_idle_at_shutdown(&self) -> bool {
        let is_idle = matches!(self.connection.phase.get(), Phase::Idle(_));
        is_idle && self.write_blocked_since.is_none() && self.state.lifecycle.idle_connections_end().is_cancelled()
    }

    /// Records what the client sends. Empty lines before a request are ignored (RFC 9112, section 2.2).
    fn record_read(&mut self, bytes: &[u8]) {
        let tail = bytes.iter().rev().take(3).rev();
        self.connection
            .last_received
            .set(tail.fold(self.connection.last_received.get(), |[_, b, c], byte| [b, c, *byte]));
        if matches!(self.connection.phase.get(), Phase::Idle(_)) && bytes.iter().any(|byte| !b"\r\n".contains(byte)) {
            self.connection.phase.set(Phase::Head(Instant::now()));
        }
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Phase::Ending(_) = self.connection.phase.get() {
            return self.poll_shutdown(cx).map(|_| Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(read) => {
                self.record_read(&buf.filled()[before..]);
                Poll::Ready(read)
            }
            // An end of the client's side, reported to hyper, closes an idle connection gracefully.
            Poll::Pending if self.is_idle_at_shutdown() => Poll::Ready(Ok(())),
            Poll::Pending if !self.is_late(cx) => Poll::Pending,
            Poll::Pending if self.write_blocked_since.is_some() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending if !matches!(self.connection.phase.get(), Phase::Head(_)) => Poll::Ready(Ok(())),
            Poll::Pending => {
                let cause = "REQUEST_TIMEOUT_MS: the head of the request is incomplete";
                let peer = self.io.peer_addr().ok();
                RequestContext::log_rejected(&self.state, peer, StatusCode::REQUEST_TIMEOUT, &cause);
                // It is short, and no other bytes wait to be written.
                let _ = Pin::new(&mut self.io).poll_write(cx, TIMEOUT);
                self.poll_shutdown(cx).map(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.write_blocked_since = written.is_pending().then(|| self.write_blocked_since.unwrap_or_else(Instant::now));
        if written.is_pending() && self.is_late(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }

    /// hyper calls this when its buffer is empty, and on each poll of the connection.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.connection.mark_flushed();
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
        let since = if let Phase::Ending(since) = self.connection.phase.get() {
            since
        } else {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            Instant::now()
        };
        self.connection.phase.set(Phase::Ending(since));
        let mut bytes = [0; 4096];
        loop {
            let mut rest = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.io).poll_read(cx, &mut rest) {
                Poll::Pending if !self.is_late(cx) => return Poll::Pending,
                // A client that sends all the time must not keep its task running.
                Poll::Ready(Ok(())) if !rest.filled().is_empty() && since.elapsed() < LINGER => {}
                Poll::Pending | Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Drop for GuardedStream {
    fn drop(&mut self) {
        if self.connection.reset_on_drop.get() {
            let _ = SockRef::from(&self.io).set_linger(Some(Duration::ZERO));
        }
    }
}
