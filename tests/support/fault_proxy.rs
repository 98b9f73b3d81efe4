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
    silent: Arc<Silent>,
    opened: Arc<AtomicUsize>,
}

/// Which connections are silent: those before the first number, and those from the second one on.
struct Silent {
    before: AtomicUsize,
    from: AtomicUsize,
}

impl Silent {
    fn is(&self, number: usize) -> bool {
        number < self.before.load(Ordering::SeqCst) || number >= self.from.load(Ordering::SeqCst)
    }
}

impl Proxy {
    /// A way to the server behind this Unix socket.
    pub(crate) fn start(target: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = Arc::new(Silent { before: AtomicUsize::new(0), from: AtomicUsize::new(usize::MAX) });
        let opened = Arc::new(AtomicUsize::new(0));
        let (all, count) = (silent.clone(), opened.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = UnixStream::connect(&target) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let silent = all.clone();
                std::thread::spawn(move || forward(from, to, number, &silent));
                let silent = all.clone();
                std::thread::spawn(move || forward(server, client, number, &silent));
            }
        });
        Self { port, silent, opened }
    }

    /// Silences every connection that there is. New ones come through.
    pub(crate) fn silence(&self) {
        self.silent.before.store(self.opened(), Ordering::SeqCst);
    }

    /// Silences new connections as well, until [`Proxy::heal`].
    pub(crate) fn silence_all(&self) {
        self.silent.before.store(usize::MAX, Ordering::SeqCst);
    }

    /// Silences new connections. Those that there are stay as they are.
    pub(crate) fn silence_new(&self) {
        self.silent.from.store(self.opened(), Ordering::SeqCst);
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
fn forward(mut from: impl Read, mut to: impl Write + Shut, number: usize, silent: &Silent) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !silent.is(number) && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    if !silent.is(number) {
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
