//! Logs as a stream of events, one a line (factor XI): never a file, never a buffer.

use std::fmt;
use std::io::{self, IsTerminal as _};

use serde::Serializer as _;
use serde::ser::SerializeMap;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Config, LogFormat};

/// Sends this process's events to its standard output; for a server, whose output they are.
pub fn to_stdout(config: &Config) {
    start(config, io::stdout, io::stdout().is_terminal());
}

/// Sends this process's events to its standard error; for an admin task, whose output is its result.
pub fn to_stderr(config: &Config) {
    start(config, io::stderr, io::stderr().is_terminal());
}

fn start<W>(config: &Config, writer: W, terminal: bool)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.rust_log))
        .with_ansi(terminal && config.log_format == LogFormat::Text)
        .with_writer(writer);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => {
            let line = JsonLine { release_id: config.release_id.clone() };
            builder.fmt_fields(JsonFields::new()).event_format(line).init();
        }
    }
    // The default hook writes over several lines, to the error stream.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked: {}", panic.payload_as_str().unwrap_or("no message"));
    }));
}

/// One flat JSON object a line: time, level, target, release, the event's fields, then those of the
/// request that it belongs to. The library's own format puts the latter into an object of their own
/// and has no place for the release.
struct JsonLine {
    release_id: Option<String>,
}

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    JsonFields: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Vec::with_capacity(512);
        self.write(&mut line, event).map_err(|_| fmt::Error)?;
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>().map_or("", |fields| fields.as_str());
            // The fields are a JSON object as well: its members go before our closing brace.
            if let Some(members) = fields.strip_prefix('{').filter(|members| *members != "}") {
                line.pop();
                line.push(b',');
                line.extend_from_slice(members.as_bytes());
            }
        }
        line.push(b'\n');
        out.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

impl JsonLine {
    fn write(&self, line: &mut Vec<u8>, event: &Event<'_>) -> Result<(), serde_json::Error> {
        let mut time = String::with_capacity(32);
        // A clock that cannot be told leaves the time empty.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let mut serializer = serde_json::Serializer::new(line);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &time)?;
        map.serialize_entry("level", event.metadata().level().as_str())?;
        map.serialize_entry("target", event.metadata().target())?;
        if let Some(release_id) = &self.release_id {
            map.serialize_entry("release_id", release_id)?;
        }
        let mut members = Members { map, outcome: Ok(()) };
        event.record(&mut members);
        members.outcome?;
        members.map.end()
    }
}

/// Writes each field of an event as a member of the object.
struct Members<M: SerializeMap> {
    map: M,
    outcome: Result<(), M::Error>,
}

impl<M: SerializeMap> Members<M> {
    fn member(&mut self, field: &Field, value: impl serde::Serialize) {
        if self.outcome.is_ok() {
            self.outcome = self.map.serialize_entry(field.name(), &value);
        }
    }
}

impl<M: SerializeMap> Visit for Members<M> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, value);
    }
}
