//! Mail, against a real server: TLS, logins, and servers that refuse, wait or break.

use libtest_mimic::Trial;

use super::Deploy;
use crate::support::engine::{Database, Engine};
use crate::support::mail_server::{MailServer, Security};
use crate::support::process::Web;
use crate::support::tool::Tool;
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .with_tool(Tool::Aiosmtpd, &Engine::ALL, tests![a_new_user_is_welcomed_once])
        .with_tool(
            Tool::Aiosmtpd,
            &[Engine::any()],
            tests![
                a_temporary_refusal_is_repeated,
                a_permanent_refusal_is_dead_at_once,
                a_broken_connection_is_repeated_with_the_same_id,
                a_server_that_is_unreachable_is_waited_for,
                tls_is_required_and_verified,
                a_login_is_sent,
                a_refused_login_is_repeated
            ],
        )
        .trials()
}

/// An attempt that failed becomes due, without the wait.
fn retry(deploy: &Deploy<'_>) {
    deploy.database.sql().execute("UPDATE jobs SET due_at = 1 WHERE state = 'waiting'");
}

fn a_new_user_is_welcomed_once(database: &Database) {
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    let worker = deploy.worker(&[]);
    deploy.create_user("ada");
    let [mail] = &*server.received(1) else { panic!("one mail") };
    assert_eq!((&mail["from"], &mail["to"][0]), (&"roster@example.com".into(), &"ada@example.com".into()));
    let headers = &mail["headers"];
    assert_eq!(headers["from"], "Roster <roster@example.com>");
    assert_eq!(headers["to"], "ada@example.com");
    assert_eq!(headers["auto-submitted"], "auto-generated");
    let id = headers["message-id"].as_str().unwrap();
    assert!(id.starts_with("<welcome.") && id.ends_with("@example.com>"), "{id}");
    for format in ["text", "html"] {
        assert!(mail[format].as_str().unwrap().contains("Hello ada,"), "{mail}");
    }
    eventually("the job is done", || deploy.states() == ["done"]);
    // Its line has the ids of the request.
    let requests = deploy.web.requests(1);
    let lines = worker.events();
    let line = lines.iter().find(|event| event["message"] == "job").expect("the line of the job");
    for member in ["request_id", "trace_id"] {
        assert_eq!(line[member], requests[0][member], "{member}");
    }
    assert_eq!((&line["job_kind"], &line["outcome"], &line["attempt"]), (&"welcome".into(), &"done".into(), &1.into()));
    assert!(!worker.log().contains("ada@"), "an address is not logged: {}", worker.log());
    assert_eq!(worker.metric("jobs_attempts_total{job_kind=\"welcome\",outcome=\"done\"}"), 1);
}

fn a_temporary_refusal_is_repeated(database: &Database) {
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    let worker = deploy.worker(&[]);
    deploy.create_user("busy");
    eventually("the first attempt fails", || deploy.jobs()[0]["last_error"].is_string());
    let job = &deploy.jobs()[0];
    assert_eq!((&job["state"], &job["attempts"]), (&"waiting".into(), &1.into()));
    assert!(job["last_error"].as_str().unwrap().contains("try again later"), "{job}");
    assert!(worker.log().contains("refused it for now: 451") && !worker.log().contains("busy@"), "{}", worker.log());
    retry(&deploy);
    server.received(1);
}

fn a_permanent_refusal_is_dead_at_once(database: &Database) {
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    let worker = deploy.worker(&[]);
    deploy.create_user("refused");
    eventually("the job is dead", || deploy.states() == ["dead"]);
    let job = &deploy.jobs()[0];
    assert!(job["last_error"].as_str().unwrap().contains("no such mailbox"), "{job}");
    assert!(worker.log().contains("refused it permanently: 550"), "{}", worker.log());
    assert!(!worker.log().contains("refused@"), "an address is not logged: {}", worker.log());
    assert!(server.mails().is_empty());
}

fn a_broken_connection_is_repeated_with_the_same_id(database: &Database) {
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    let _worker = deploy.worker(&[]);
    deploy.create_user("broken");
    eventually("the first attempt fails", || deploy.jobs()[0]["last_error"].is_string());
    retry(&deploy);
    let mails = server.received(1);
    assert_eq!(mails[0]["headers"]["message-id"], server.broken());
}

fn a_server_that_is_unreachable_is_waited_for(database: &Database) {
    let port = MailServer::start().port;
    let deploy = Deploy::with_url(database, &format!("smtp://127.0.0.1:{port}?tls=none"));
    let worker = deploy.worker(&[]);
    deploy.create_user("ada");
    eventually("the first attempt fails", || deploy.jobs()[0]["last_error"].is_string());
    assert!(worker.log().contains("was not reached"), "{}", worker.log());
    assert_eq!(worker.get("/readyz").status, 200, "mail of others does not depend on it");
    let server = MailServer::at(port);
    retry(&deploy);
    server.received(1);
}

fn tls_is_required_and_verified(database: &Database) {
    for (security, scheme) in [(Security::StartTls, "smtp"), (Security::Tls, "smtps")] {
        let server = MailServer::with(security, "localhost", None);
        let wrong_name = MailServer::with(security, "mail.example.com", None);
        let plain = MailServer::start();
        let deploy =
            Deploy::with_url(database, &format!("{scheme}://localhost:{}?tls-ca={}", server.port, server.authority()));
        let name = if security == Security::Tls { "ada" } else { "bob" };
        deploy.create_user(name);
        let refused = [
            (format!("{scheme}://localhost:{}", server.port), "UnknownIssuer"),
            (
                format!("{scheme}://localhost:{}?tls-ca={}", wrong_name.port, wrong_name.authority()),
                "not valid for name",
            ),
            (
                format!("{scheme}://localhost:{}", plain.port),
                if scheme == "smtp" { "does not support STARTTLS" } else { "corrupt message" },
            ),
        ];
        for (url, reason) in refused {
            let worker = Deploy { database, smtp_url: url, web: Web::start(database, &[]) }.worker(&[]);
            retry(&deploy);
            eventually("the attempt fails", || worker.log().contains("\"retry\""));
            eventually("its outcome is recorded", || deploy.states().last().unwrap() == "waiting");
            assert!(worker.log().contains(reason), "{reason}: {}", worker.log());
        }
        let _worker = deploy.worker(&[]);
        retry(&deploy);
        assert_eq!(server.received(1)[0]["tls"], true);
        assert!(wrong_name.mails().is_empty() && plain.mails().is_empty());
    }
}

fn a_login_is_sent(database: &Database) {
    let server = MailServer::with(Security::StartTls, "localhost", Some("user:canary"));
    let url = format!("smtp://user:canary@localhost:{}?tls-ca={}", server.port, server.authority());
    let deploy = Deploy::with_url(database, &url);
    let worker = deploy.worker(&[]);
    deploy.create_user("ada");
    assert_eq!(server.received(1)[0]["login"], "user");
    assert!(!worker.log().contains("canary") && !deploy.web.log().contains("canary"));
}

fn a_refused_login_is_repeated(database: &Database) {
    let server = MailServer::with(Security::StartTls, "localhost", Some("user:canary"));
    let url = format!("smtp://user:old-canary@localhost:{}?tls-ca={}", server.port, server.authority());
    let deploy = Deploy::with_url(database, &url);
    let worker = deploy.worker(&[]);
    deploy.create_user("ada");
    eventually("the attempt fails", || worker.log().contains("refused the login: 535"));
    eventually("it waits for a change of the configuration", || deploy.states() == ["waiting"]);
    assert!(!worker.log().contains("canary"));
}
