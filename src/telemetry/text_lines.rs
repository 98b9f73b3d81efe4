//! Log lines for terminals: the time of day, the level, the message, and `key=value` for each field but
//! the ids of traces.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

const DIM: &str = "\u{1b}[2m";
const RESET: &str = "\u{1b}[0m";

/// Fields as ` key=value`, so that a line takes those of a span over as they are.
pub(super) struct Pairs {
    /// Whether the lines go to a terminal.
    pub(super) has_colours: bool,
}

impl<'writer> FormatFields<'writer> for Pairs {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { message: String::new(), pairs: String::new(), has_colours: self.has_colours };
        fields.record(&mut visitor);
        writer.write_str(&visitor.message)?;
        writer.write_str(&visitor.pairs)
    }
}

pub(super) struct TextLine;

impl<S> FormatEvent<S, Pairs> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(&self, context: &FmtContext<'_, S, Pairs>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::with_capacity(32);
        // The time is empty if the clock is before 1970.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let metadata = event.metadata();
        let (dim, reset) = if context.field_format().has_colours { (DIM, RESET) } else { ("", "") };
        // Of 2026-11-27T06:43:57.123456Z.
        write!(out, "{dim}{}Z{reset} ", time.get(11..23).unwrap_or_default())?;
        let colour = match *metadata.level() {
            _ if dim.is_empty() => "",
            Level::ERROR => "\u{1b}[31m",
            Level::WARN => "\u{1b}[33m",
            Level::INFO => "\u{1b}[32m",
            Level::DEBUG => "\u{1b}[34m",
            Level::TRACE => "\u{1b}[35m",
        };
        write!(out, "{colour}{:5}{reset} ", metadata.level().as_str())?;
        context.format_fields(out.by_ref(), event)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(pairs) = span.extensions().get::<FormattedFields<Pairs>>() {
                out.write_str(pairs.as_str())?;
            }
        }
        // The target is shown for other crates only.
        if !metadata.target().starts_with(env!("CARGO_PKG_NAME")) {
            write!(out, " {dim}target={reset}{}", metadata.target())?;
        }
        writeln!(out)
    }
}

/// Writes each field as ` key=value`. Neither a message nor a value contains a control character.
struct Visitor {
    message: String,
    pairs: String,
    has_colours: bool,
}

impl Visit for Visitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let (dim, reset) = if self.has_colours { (DIM, RESET) } else { ("", "") };
        let is_bare = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
        // A String accepts all text.
        let _ = match field.name() {
            "message" => write!(self.message, "{}", Visible(value)),
            // Those are for the exporter, and for the search in a collector.
            "trace_id" | "span_id" => Ok(()),
            name if name.starts_with("otel.") => Ok(()),
            name if !value.is_empty() && value.chars().all(is_bare) => {
                write!(self.pairs, " {dim}{name}={reset}{value}")
            }
            name => write!(self.pairs, " {dim}{name}={reset}{value:?}"),
        };
    }
}

/// Text whose control characters are escaped.
struct Visible<'a>(&'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
    }
}
