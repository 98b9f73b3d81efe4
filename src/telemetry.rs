//! Logs as a stream of events, one a line (factor XI): never a file, never a buffer. Traces go to a
//! collector, when the environment names one.

mod json_lines;
mod lines;
mod origin;
mod text_lines;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Level, dispatcher};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, LogFormat};
use json_lines::{JsonLine, JsonMembers};
use lines::Lines;
pub use lines::{DroppedLines, accepts_line};
pub use origin::Origin;
pub(crate) use origin::parse_traceparent;
use text_lines::{Pairs, TextLine};

/// What must be done at the end of a process for its telemetry to be complete.
#[must_use = "traces that were not flushed are lost"]
pub struct Telemetry {
    exporter: Option<SdkTracerProvider>,
    /// Counts the log lines that were dropped.
    pub dropped_lines: DroppedLines,
}

impl Telemetry {
    /// Sends the traces that are still here; for five seconds at most.
    pub fn flush(self) {
        if let Some(Err(error)) = self.exporter.map(|provider| provider.shutdown()) {
            tracing::warn!(error = %error, "the last traces were not sent");
        }
    }
}

/// Sends this process's events to its standard output, and its traces to the collector that the
/// configuration names; for a server, whose output they are.
///
/// # Errors
/// When no exporter can be made of the `OTEL_` variables.
pub fn to_stdout(config: &Config) -> Result<Telemetry, opentelemetry_otlp::ExporterBuildError> {
    let exporter = config.traces_endpoint().map(|endpoint| traces_to(endpoint, config)).transpose()?;
    let dropped_lines = start(config, &io::stdout(), exporter.as_ref());
    Ok(Telemetry { exporter, dropped_lines })
}

/// Sends this process's events to its standard error; for an admin task, whose output is its result.
pub fn to_stderr(config: &Config) {
    start(config, &io::stderr(), None);
}

fn start(config: &Config, stream: &(impl AsFd + IsTerminal), exporter: Option<&SdkTracerProvider>) -> DroppedLines {
    // This program logs its start by itself.
    let filter: Targets =
        format!("actix_server=warn,{}", config.rust_log).parse().expect("the configuration was checked");
    // The exporter's lines of this level contain the URL of the endpoint, which may contain an API key.
    let filter = filter.and(filter_fn(|line| line.target() != "opentelemetry-otlp" || *line.level() <= Level::INFO));
    let lines = Lines::to(stream);
    let dropped_lines = lines.dropped();
    let lines = tracing_subscriber::fmt::layer().with_writer(lines);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.log_format {
        LogFormat::Text => {
            let has_colours = stream.is_terminal() && config.no_color.is_none();
            lines.fmt_fields(Pairs { has_colours }).event_format(TextLine).with_filter(filter).boxed()
        }
        LogFormat::Json => {
            let line = JsonLine { release_id: config.release_id.clone() };
            lines.fmt_fields(JsonMembers).event_format(line).with_filter(filter).boxed()
        }
    };
    let spans = exporter.map(|provider| {
        let own = Targets::new().with_target(env!("CARGO_PKG_NAME"), LevelFilter::DEBUG);
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(env!("CARGO_PKG_NAME")));
        layer.with_location(false).with_threads(false).with_filter(own)
    });
    tracing_subscriber::registry().with(lines).with(spans).init();
    // The default hook writes over several lines, to the error stream.
    let log = dispatcher::get_default(Clone::clone);
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        // A panic within a call of the database's driver is out of every subscriber.
        dispatcher::with_default(&log, || {
            tracing::error!(place, "panicked: {}", panic.payload_as_str().unwrap_or("no message"));
        });
    }));
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    dropped_lines
}

/// An exporter of spans in a thread of its own, in batches, by OTLP over HTTP.
fn traces_to(endpoint: String, config: &Config) -> Result<SdkTracerProvider, opentelemetry_otlp::ExporterBuildError> {
    let timeout = config.traces_timeout();
    // HTTP_PROXY is not a variable of this program.
    let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).proxy(None);
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client(agent.build().into()))
        .with_endpoint(endpoint)
        .with_timeout(timeout)
        .build()?;
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if let Some(release_id) = &config.release_id {
        resource = resource.with_attribute(KeyValue::new("release_id", release_id.clone()));
    }
    // The name of OTEL_SERVICE_NAME stands, if there is one.
    let named = Resource::builder().build();
    let name = named.get(&"service.name".into()).map(|name| name.to_string());
    if name.is_none_or(|name| name.starts_with("unknown_service")) {
        resource = resource.with_service_name(env!("CARGO_PKG_NAME"));
    }
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

/// The exporter's HTTP client. It may block: the thread that it runs in does nothing else.
#[derive(Debug)]
struct Client(ureq::Agent);

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let (parts, mut answer) = self.0.run(Request::from_parts(parts, body.as_ref()))?.into_parts();
        Ok(Response::from_parts(parts, answer.read_to_vec()?.into()))
    }
}
