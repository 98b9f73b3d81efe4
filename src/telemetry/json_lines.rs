//! Log lines of JSON, for a log collector.

use std::fmt;

use serde::Serializer as _;
use serde::ser::SerializeMap;
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::json;

/// The fields of a span as members of a JSON object, each behind a comma, so that a line takes them over as they are.
pub(super) struct JsonMembers;

impl<'writer> FormatFields<'writer> for JsonMembers {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut object = Vec::with_capacity(128);
        let mut serializer = json::serializer(&mut object);
        let mut members = Members { map: serializer.serialize_map(None).map_err(|_| fmt::Error)?, outcome: Ok(()) };
        fields.record(&mut members);
        members.outcome.and_then(|()| members.map.end()).map_err(|_| fmt::Error)?;
        match object.as_slice() {
            [b'{', members @ .., b'}'] if !members.is_empty() => {
                writer.write_char(',')?;
                writer.write_str(str::from_utf8(members).map_err(|_| fmt::Error)?)
            }
            _ => Ok(()),
        }
    }

    fn add_fields(&self, current: &'writer mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

/// One flat JSON object a line: time, level, target, release, the event's fields, then those of the
/// request that it belongs to. The library's own format puts the latter into an object of their own
/// and has no place for the release.
pub(super) struct JsonLine {
    pub(super) release_id: Option<String>,
}

impl<S> FormatEvent<S, JsonMembers> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonMembers>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Vec::with_capacity(512);
        self.write(&mut line, event).map_err(|_| fmt::Error)?;
        line.pop();
        out.write_str(str::from_utf8(&line).map_err(|_| fmt::Error)?)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(members) = span.extensions().get::<FormattedFields<JsonMembers>>() {
                out.write_str(members.as_str())?;
            }
        }
        out.write_str("}\n")
    }
}

impl JsonLine {
    fn write(&self, line: &mut Vec<u8>, event: &Event<'_>) -> Result<(), serde_json::Error> {
        let mut time = String::with_capacity(32);
        // The time is empty if the clock is before 1970.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let mut serializer = json::serializer(line);
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
        // Those are for the exporter.
        if self.outcome.is_ok() && !field.name().starts_with("otel.") {
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
