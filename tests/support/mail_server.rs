//! A mail server, by aiosmtpd.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::engine::Certificate;
use super::eventually;
use super::process::signal;
use super::tool::folder;

/// How the server protects connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    None,
    StartTls,
    Tls,
}

/// A running mail server. Dropped, it is killed.
pub(crate) struct MailServer {
    child: Child,
    pub(crate) port: u16,
    lines: Arc<Mutex<Vec<Value>>>,
    folder: TempDir,
}

impl MailServer {
    /// A server without TLS on a free port.
    pub(crate) fn start() -> Self {
        Self::with(Security::None, "localhost", None)
    }

    /// A server with a certificate for this name, and with a login, if there is one.
    pub(crate) fn with(security: Security, host: &str, login: Option<&str>) -> Self {
        let folder = TempDir::new().unwrap();
        let mut arguments = Vec::new();
        if security != Security::None {
            let certificate = Certificate::for_host(host);
            let file = folder.path().join("certificate.pem");
            fs::write(&file, certificate.chain_and_key()).unwrap();
            fs::write(folder.path().join("authority.pem"), &certificate.authority).unwrap();
            arguments.extend(["--certificate".to_owned(), file.display().to_string()]);
        }
        if security == Security::Tls {
            arguments.push("--implicit".to_owned());
        }
        if let Some(login) = login {
            arguments.extend(["--login".to_owned(), login.to_owned()]);
        }
        Self::launch(folder, &arguments)
    }

    /// A server without TLS on this port.
    pub(crate) fn at(port: u16) -> Self {
        Self::launch(TempDir::new().unwrap(), &["--port".to_owned(), port.to_string()])
    }

    fn launch(own: TempDir, arguments: &[String]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/smtp_server.py");
        let mut command = Command::new(folder().join("bin/python"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        output.read_line(&mut port).unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collected = lines.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                collected.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, port: port.trim().parse().unwrap(), lines, folder: own }
    }

    /// The file of the authority that issued the certificate.
    pub(crate) fn authority(&self) -> String {
        self.folder.path().join("authority.pem").display().to_string()
    }

    /// The URL of a server without TLS.
    pub(crate) fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}?tls=none", self.port)
    }

    /// The mails that it accepted.
    pub(crate) fn mails(&self) -> Vec<Value> {
        self.lines.lock().unwrap().iter().filter(|line| !line["to"].is_null()).cloned().collect()
    }

    /// The mails, once there are this many.
    pub(crate) fn received(&self, count: usize) -> Vec<Value> {
        eventually("the mails arrive", || self.mails().len() >= count);
        let mails = self.mails();
        assert_eq!(mails.len(), count, "{mails:?}");
        mails
    }

    /// The number of mails whose response it holds back, or held back.
    pub(crate) fn held(&self) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| !line["held"].is_null()).count()
    }

    /// The Message-ID of the mail whose connection it closed.
    pub(crate) fn broken(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines.iter().find_map(|line| line["broken"].as_str()).unwrap().to_owned()
    }

    /// Responds to the mails that are held.
    pub(crate) fn release(&self) {
        signal(&self.child, "USR1");
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
