//! VII. Port binding: the service is complete in itself and exports HTTP by binding a port.

use std::net::TcpListener;

use libtest_mimic::Trial;

use crate::support::Factor;
use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, code, migrated, stderr, web};

pub(crate) fn tests() -> Vec<Trial> {
    Factor::new("port_binding")
        .on(&[Engine::Sqlite], "the_port_is_the_environments", the_port_is_the_environments)
        .on(&[Engine::Sqlite], "a_port_in_use_is_told_with_its_remedy", a_port_in_use_is_told_with_its_remedy)
        .on(&[Engine::Sqlite], "a_foreign_address_is_told_with_its_remedy", a_foreign_address_is_told_with_its_remedy)
        .on(&[Engine::Sqlite], "healthcheck_asks_the_running_server", healthcheck_asks_the_running_server)
        .tests()
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn the_port_is_the_environments(database: &Database) {
    let port = free_port();
    let web = Web::start(database, &[("PORT", &port)]);
    assert_eq!(web.port.to_string(), port);
    assert_eq!(web.get("/livez").status, 200);
}

fn a_port_in_use_is_told_with_its_remedy(database: &Database) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let done = web(&[], &[("DATABASE_URL", &database.url), ("HOST", "127.0.0.1"), ("PORT", &port)]);
    assert_eq!(code(&done), 1);
    let told = stderr(&done);
    assert!(told.contains(&format!("cannot listen on 127.0.0.1:{port}")) && told.contains("set PORT"), "{told}");
}

fn a_foreign_address_is_told_with_its_remedy(database: &Database) {
    let done = web(&[], &[("DATABASE_URL", &database.url), ("HOST", "192.0.2.1"), ("PORT", "0")]);
    assert_eq!(code(&done), 1);
    assert!(stderr(&done).contains("HOST is no address of this machine"), "{}", stderr(&done));
}

fn healthcheck_asks_the_running_server(database: &Database) {
    let port = free_port();
    let environment = [("DATABASE_URL", database.url.as_str()), ("PORT", &port)];
    let nobody = web(&["healthcheck"], &environment);
    assert_eq!(code(&nobody), 1);
    assert!(stderr(&nobody).contains("no answer from 127.0.0.1"), "{}", stderr(&nobody));

    let _web = Web::start(database, &[("PORT", &port)]);
    let unready = web(&["healthcheck"], &environment);
    assert_eq!(code(&unready), 1);
    assert!(stderr(&unready).contains("not ready: HTTP/1.1 503"), "{}", stderr(&unready));

    migrated(database, &["up"]);
    assert_eq!(code(&web(&["healthcheck"], &environment)), 0);
    assert_eq!(code(&web(&["healthcheck"], &[("DATABASE_URL", &database.url), ("PORT", "0")])), 1);
}
