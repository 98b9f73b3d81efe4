//! A network between the product and a server of its own, which may fall silent: connections stay open, and nothing
//! comes through them any more.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// Connections before this one are silent.
    silent_before: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
}

impl Proxy {
    /// A way to the server behind this Unix socket.
    pub(crate) fn start(target: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (silent_before, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (silent, count) = (silent_before.clone(), opened.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = UnixStream::connect(&target) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let heard = silent.clone();
                std::thread::spawn(move || forward(from, to, number, &heard));
                let heard = silent.clone();
                std::thread::spawn(move || forward(server, client, number, &heard));
            }
        });
        Self { port, silent_before, opened }
    }

    /// Silences every connection that there is. New ones come through.
    pub(crate) fn silence(&self) {
        self.silent_before.store(self.opened(), Ordering::SeqCst);
    }

    /// Silences new connections as well, until [`Proxy::heal`].
    pub(crate) fn silence_all(&self) {
        self.silent_before.store(usize::MAX, Ordering::SeqCst);
    }

    /// Lets new connections through; those that fell silent stay so.
    pub(crate) fn heal(&self) {
        self.silence();
    }

    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

/// Copies until one side ends; what a silent connection is sent is lost, its end included.
fn forward(mut from: impl Read, mut to: impl Write + Shut, number: usize, silent_before: &AtomicUsize) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if number >= silent_before.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    if number >= silent_before.load(Ordering::SeqCst) {
        to.shut();
    }
}

/// What ends, of either kind.
trait Shut {
    fn shut(&self);
}

impl Shut for TcpStream {
    fn shut(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Shut for UnixStream {
    fn shut(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}
