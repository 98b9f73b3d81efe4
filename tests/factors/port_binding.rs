//! VII. Port binding: the service is complete in itself and exports HTTP by binding a port.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, code, migrated, stderr, web};
use crate::support::{Port, Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .any(tests![
            the_port_is_the_environments,
            every_address_of_both_families_is_bound,
            a_port_in_use_is_told_with_its_remedy,
            a_foreign_address_is_told_with_its_remedy,
            healthcheck_asks_the_running_server
        ])
        .once(tests![a_descriptor_that_is_no_listener_is_told])
        .trials()
}

fn the_port_is_the_environments(database: &Database) {
    let reserved = Port::reserve();
    let port = reserved.number.to_string();
    let web = Web::start(database, &[("PORT", &port)]);
    assert_eq!(web.port.to_string(), port);
    assert_eq!(web.get("/livez").status, 200);
}

/// A pod may have addresses of IPv6 alone.
fn every_address_of_both_families_is_bound(database: &Database) {
    migrated(database, &["up"]);
    let reserved = Port::reserve();
    let port = reserved.number.to_string();
    let status = |host: &str| {
        let mut stream = TcpStream::connect(format!("{host}:{port}")).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).map(str::to_owned)
    };
    let answers = |host: Option<&str>| {
        let mut environment = vec![("DATABASE_URL", database.url.as_str()), ("PORT", &port)];
        environment.extend(host.map(|host| ("HOST", host)));
        let mut command = Command::new(env!("CARGO_BIN_EXE_web"));
        command.env_clear().envs(environment.clone());
        let _web = Web::launch(command);
        assert_eq!(code(&web(&["healthcheck"], &environment)), 0, "{host:?}");
        [status("127.0.0.1"), status("[::1]")].map(|status| status.is_some_and(|status| status == "200"))
    };
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    assert_eq!(answers(None), [true, has_ipv6]);
    assert_eq!(answers(Some("0.0.0.0")), [true, false]);
    if has_ipv6 {
        assert_eq!(answers(Some("::")), [true, true]);
        assert_eq!(answers(Some("[::1]")), [false, true]);
    }
}

fn a_port_in_use_is_told_with_its_remedy(database: &Database) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let done = web(&[], &[("DATABASE_URL", &database.url), ("HOST", "127.0.0.1"), ("PORT", &port)]);
    assert_eq!(code(&done), 1);
    let told = stderr(&done);
    assert!(told.contains(&format!("cannot listen on 127.0.0.1:{port}")) && told.contains("set PORT"), "{told}");
}

fn a_descriptor_that_is_no_listener_is_told() {
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().envs([("DATABASE_URL", Engine::any().unused_url()), ("LISTEN_FDS", "1")]);
    let done = shell.args(["-c", "exec 3</dev/null; exec \"$0\"", env!("CARGO_BIN_EXE_web")]).output().unwrap();
    assert_eq!(code(&done), 1);
    assert!(stderr(&done).contains("LISTEN_FDS announces a TCP listener as descriptor 3"), "{}", stderr(&done));
    shell.env("LISTEN_FDS", "2");
    let done = shell.output().unwrap();
    assert_eq!(code(&done), 1);
    assert!(stderr(&done).contains("2 listeners were passed, and one is used"), "{}", stderr(&done));
}

fn a_foreign_address_is_told_with_its_remedy(database: &Database) {
    let done = web(&[], &[("DATABASE_URL", &database.url), ("HOST", "192.0.2.1"), ("PORT", "0")]);
    assert_eq!(code(&done), 1);
    assert!(stderr(&done).contains("HOST is not an address of this machine"), "{}", stderr(&done));
}

fn healthcheck_asks_the_running_server(database: &Database) {
    let reserved = Port::reserve();
    let port = reserved.number.to_string();
    let environment = [("DATABASE_URL", database.url.as_str()), ("PORT", &port)];
    let nobody = web(&["healthcheck"], &environment);
    assert_eq!(code(&nobody), 1);
    assert!(stderr(&nobody).contains("no response from 127.0.0.1"), "{}", stderr(&nobody));

    let _web = Web::start(database, &[("PORT", &port)]);
    let unready = web(&["healthcheck"], &environment);
    assert_eq!(code(&unready), 1);
    assert!(stderr(&unready).contains("not ready: HTTP/1.1 503"), "{}", stderr(&unready));

    assert_eq!(code(&web(&["healthcheck", "--live"], &environment)), 0);

    migrated(database, &["up"]);
    assert_eq!(code(&web(&["healthcheck"], &environment)), 0);
    assert_eq!(code(&web(&["healthcheck"], &[("DATABASE_URL", &database.url), ("PORT", "0")])), 1);
}
