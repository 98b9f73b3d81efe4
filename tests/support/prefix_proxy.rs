//! A reverse proxy that publishes a server under a path prefix and strips it, as an ingress does.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use url::Url;

/// Starts the proxy, and returns the published URL of the server. A path outside of the prefix gets 502.
pub(crate) fn start(prefix: &'static str, server: u16) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let published = format!("http://{}{prefix}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || forward(client, prefix, server));
        }
    });
    Url::parse(&published).unwrap()
}

/// Forwards the only request of a connection, which has no body.
fn forward(client: TcpStream, prefix: &str, server: u16) -> Option<()> {
    let mut client = BufReader::new(client);
    let mut first = String::new();
    client.read_line(&mut first).ok()?;
    let mut rest = String::new();
    while !rest.ends_with("\r\n\r\n") {
        client.read_line(&mut rest).ok().filter(|read| *read > 0)?;
    }
    let outside = "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let Some((method, target)) = first.split_once(' ').filter(|(_, target)| target.starts_with(&format!("{prefix}/")))
    else {
        return client.get_mut().write_all(outside.as_bytes()).ok();
    };
    let mut server = TcpStream::connect(("127.0.0.1", server)).ok()?;
    write!(server, "{method} {}Connection: close\r\n{rest}", &target[prefix.len()..]).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    client.get_mut().write_all(&answer).ok()
}
