//! A proxy before a server. It stops at a selected message of the client, so that a test can kill the client there.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

/// Where the proxy stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The server does not receive the message before [`StepProxy::release`].
    Before,
    /// The server receives the message, and its answer is dropped.
    After,
}

/// A proxy for one connection.
pub(crate) struct StepProxy {
    pub(crate) port: u16,
    messages: Arc<AtomicUsize>,
    is_reached: Arc<AtomicBool>,
    release: Sender<()>,
}

impl StepProxy {
    /// A proxy to the server with this Unix socket. `is_chosen` selects a message by its number, from 0, and its bytes.
    pub(crate) fn start(
        target: PathBuf,
        point: Point,
        is_chosen: impl Fn(usize, &[u8]) -> bool + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (messages, is_reached) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (release, released) = channel();
        let (count, reached) = (messages.clone(), is_reached.clone());
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut server = UnixStream::connect(&target).unwrap();
            let drops_answers = Arc::new(AtomicBool::new(false));
            let (mut answers, mut to_client, drops, answered) =
                (server.try_clone().unwrap(), client.try_clone().unwrap(), drops_answers.clone(), reached.clone());
            std::thread::spawn(move || {
                let mut bytes = [0; 16 * 1024];
                while let Ok(length @ 1..) = answers.read(&mut bytes) {
                    if drops.load(Ordering::SeqCst) {
                        answered.store(true, Ordering::SeqCst);
                    } else if to_client.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
                let _ = to_client.shutdown(std::net::Shutdown::Both);
            });
            let mut bytes = [0; 16 * 1024];
            while let Ok(length @ 1..) = client.read(&mut bytes) {
                let message = &bytes[..length];
                let is_stop = is_chosen(count.fetch_add(1, Ordering::SeqCst), message);
                match point {
                    Point::Before if is_stop => {
                        reached.store(true, Ordering::SeqCst);
                        // An error means that the test ended and dropped its sender.
                        if released.recv().is_err() {
                            break;
                        }
                    }
                    Point::After if is_stop => drops_answers.store(true, Ordering::SeqCst),
                    _ => {}
                }
                if server.write_all(message).is_err() {
                    break;
                }
            }
            let _ = server.shutdown(std::net::Shutdown::Both);
        });
        Self { port, messages, is_reached, release }
    }

    /// Whether the proxy stopped at the chosen message.
    pub(crate) fn is_reached(&self) -> bool {
        self.is_reached.load(Ordering::SeqCst)
    }

    /// The number of messages that the client has sent.
    pub(crate) fn messages(&self) -> usize {
        self.messages.load(Ordering::SeqCst)
    }

    /// Continues a connection that stopped at [`Point::Before`].
    pub(crate) fn release(&self) {
        self.release.send(()).unwrap();
    }
}
