//! Mail: the second backing service (factor IV), attached by `SMTP_URL`.

use std::time::Duration;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{CertificateStore, Tls, TlsParameters, TlsParametersBuilder};
use lettre::transport::smtp::{self, AsyncSmtpTransport};
use lettre::{AsyncTransport as _, Message, Tokio1Executor};
use tokio::time::timeout;
use url::Host;

use crate::config::{Config, Encryption};

/// The longest time to deliver a mail. lettre limits only the connection attempt.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Responses that are about the login and not about the mail (RFC 4954, section 6).
const ABOUT_LOGIN: [&str; 4] = ["530", "534", "535", "538"];

/// Sends mail, each on a connection of its own. After a time-out, lettre's pool would use a connection again that is out of step
/// with its server.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// A mail in two formats.
pub struct Mail<'a> {
    /// Makes the `Message-ID`. A repetition has the same id, so that the recipient's server can recognise it.
    pub id: &'a str,
    /// The address of the recipient.
    pub to: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// As text.
    pub text: String,
    /// As HTML.
    pub html: String,
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `SMTP_URL` cannot be used.
    #[error("SMTP_URL: {0}")]
    Configuration(String),
    /// The mail cannot be sent to this address, or in this form.
    #[error("the mail is not valid: {0}")]
    Invalid(String),
    /// The server refused it permanently (5xx). The text may contain the address.
    #[error("the mail server refused it permanently: {code}")]
    Refused {
        /// The response code.
        code: String,
        /// The text of the response.
        text: String,
    },
    /// It may be sent later. The text may contain the address.
    #[error("the mail server {reason}")]
    Unavailable {
        /// Without personal data.
        reason: String,
        /// The text of the response, or the cause.
        text: String,
    },
}

impl Mailer {
    /// The mailer of this configuration. None without `SMTP_URL`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: &Config) -> Result<Option<Self>, Error> {
        let (Some(url), Some(from)) = (&config.smtp_url, &config.mail_from) else { return Ok(None) };
        let tls = || {
            let parameters = TlsParameters::builder(url.host.clone()).certificate_store(CertificateStore::Default);
            let parameters =
                url.authorities.iter().cloned().fold(parameters, TlsParametersBuilder::add_root_certificate).build();
            parameters.map_err(|error| Error::Configuration(error.to_string()))
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(url.host.clone())
            .port(url.port)
            .timeout(Some(TIMEOUT))
            .tls(match url.encryption {
                Encryption::Tls => Tls::Wrapper(tls()?),
                Encryption::StartTls => Tls::Required(tls()?),
                Encryption::None => Tls::None,
            });
        if let Some((name, password)) = url.credentials.clone() {
            transport = transport.credentials(Credentials::new(name, password));
        }
        Ok(Some(Self { transport: transport.build(), from: from.0.clone() }))
    }

    /// Sends a mail.
    ///
    /// # Errors
    /// Why the server did not accept it.
    pub async fn send(&self, mail: Mail<'_>) -> Result<(), Error> {
        let message = self.message(mail)?;
        match timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => {
                let reason = format!("did not accept it within {} s", TIMEOUT.as_secs());
                Err(Error::Unavailable { text: reason.clone(), reason })
            }
        }
    }

    fn message(&self, mail: Mail<'_>) -> Result<Message, Error> {
        // Its text may contain the address.
        let to =
            mail.to.parse().map_err(|_| Error::Invalid("the address has no form that SMTP supports".to_owned()))?;
        // In ASCII, as in an address that a server without SMTPUTF8 accepts.
        let domain = Host::parse(self.from.email.domain()).map_err(|error| Error::Invalid(error.to_string()))?;
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(mail.subject)
            .message_id(Some(format!("<{}@{domain}>", mail.id)))
            .multipart(MultiPart::alternative_plain_html(mail.text, mail.html))
            .map_err(|error| Error::Invalid(error.to_string()))?;
        // Vacation responders do not respond to it (RFC 3834).
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(message)
    }
}

fn describe(error: &smtp::Error) -> Error {
    // It contains the causes.
    let text = error.to_string();
    match error.status().map(|code| code.to_string()) {
        Some(code) if ABOUT_LOGIN.contains(&&*code) => {
            Error::Unavailable { reason: format!("refused the login: {code}"), text }
        }
        Some(code) if error.is_permanent() => Error::Refused { code, text },
        Some(code) => Error::Unavailable { reason: format!("refused it for now: {code}"), text },
        None if error.is_client() && text.contains("SMTPUTF8") => Error::Invalid(text),
        None if text.contains("STARTTLS is not supported") => {
            let advice = "use smtps://, or ?tls=none for a server on this machine";
            Error::Unavailable { reason: format!("does not support STARTTLS: {advice}"), text }
        }
        // It may quote the server, which may quote the address.
        None if error.is_response() => {
            Error::Unavailable { reason: "sent a response that is not SMTP".to_owned(), text }
        }
        None => Error::Unavailable { reason: format!("was not reached: {text}"), text },
    }
}
