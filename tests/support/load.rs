//! Clients that ask without pause, never ask twice, and count whatever comes.

use super::resource::LISTING;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// So many clients, each with a new connection for each request.
    pub(crate) fn begin(port: u16, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let client = || {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match ask(port) {
                        Ok(()) => _ = answered.fetch_add(1, Ordering::Relaxed),
                        Err(failure) => failures.push(failure),
                    }
                }
                failures
            })
        };
        Self { clients: (0..clients).map(|_| client()).collect(), stop: stop.clone(), answered: answered.clone() }
    }

    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Stops, and tells how many requests were answered with 200, and what became of the others.
    pub(crate) fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

fn ask(port: u16) -> Result<(), String> {
    let told = |step: &'static str| move |error: std::io::Error| format!("{step}: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(told("connect"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(told("set"))?;
    let request = format!("GET {LISTING}?limit=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(told("write"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(told("read"))?;
    if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("}]") {
        Ok(())
    } else {
        Err(format!("answer: {answer}"))
    }
}
