//! The format of OpenMetrics 1.0, <https://prometheus.io/docs/specs/om/open_metrics_spec/>. The library for the metrics writes
//! the text format only, and the client library of OpenMetrics writes this format only.

use std::fmt::{self, Write as _};
use std::time::UNIX_EPOCH;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::durations::{Durations, LABELS, NAME, Recorded};

/// The metrics as text.
pub(super) fn encode(mut families: Vec<MetricFamily>, durations: &Durations) -> String {
    // The information about the target comes first.
    families.sort_by_key(|family| family.name() != "target_info");
    let mut text = String::with_capacity(32 * 1024);
    for family in &families {
        write_family(&mut text, family, durations).expect("a String accepts all text");
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(out: &mut String, family: &MetricFamily, durations: &Durations) -> fmt::Result {
    let full = family.name();
    // The name of a family has no suffix, and those of its samples have one.
    let (kind, name) = match family.get_field_type() {
        MetricType::COUNTER => ("counter", full.strip_suffix("_total").unwrap_or(full)),
        MetricType::HISTOGRAM => ("histogram", full),
        _ => full.strip_suffix("_info").map_or(("gauge", full), |name| ("info", name)),
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    // A unit is a suffix of the name, too.
    if let Some(unit) = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}"))) {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    writeln!(out, "# HELP {name} {}", Escaped(family.help()))?;
    for metric in family.get_metric() {
        match kind {
            "counter" => write_sample(out, (name, "_total"), metric, None, metric.get_counter().get_value(), None)?,
            "gauge" => write_sample(out, (name, ""), metric, None, metric.get_gauge().get_value(), None)?,
            "info" => write_sample(out, (name, "_info"), metric, None, 1.0, None)?,
            _ => write_histogram(out, name, metric, durations)?,
        }
    }
    Ok(())
}

fn write_histogram(out: &mut String, name: &str, metric: &Metric, durations: &Durations) -> fmt::Result {
    let histogram = metric.get_histogram();
    let label = |name| metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value());
    let exemplar = |bucket| (name == NAME).then(|| durations.exemplar(LABELS.map(label), bucket))?;
    let bounds = histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    let all = (f64::INFINITY, histogram.get_sample_count());
    for (number, (bound, count)) in bounds.chain([all]).enumerate() {
        let bound = if bound.is_finite() { format!("{bound:?}") } else { "+Inf".to_owned() };
        write_sample(out, (name, "_bucket"), metric, Some(&bound), count, exemplar(number))?;
    }
    write_sample(out, (name, "_sum"), metric, None, histogram.get_sample_sum(), None)?;
    write_sample(out, (name, "_count"), metric, None, histogram.get_sample_count(), None)
}

fn write_sample(
    out: &mut String,
    (name, suffix): (&str, &str),
    metric: &Metric,
    bound: Option<&str>,
    value: impl fmt::Display,
    exemplar: Option<Recorded>,
) -> fmt::Result {
    write!(out, "{name}{suffix}")?;
    let labels = metric.get_label().iter().map(|label| (label.name(), label.value()));
    let mut separator = '{';
    for (name, value) in labels.chain(bound.map(|bound| ("le", bound))) {
        write!(out, "{separator}{name}=\"{}\"", Escaped(value))?;
        separator = ',';
    }
    write!(out, "{} {value}", if separator == ',' { "}" } else { "" })?;
    if let Some((exemplar, seconds, time)) = exemplar {
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (trace_id, span_id) = (exemplar.trace_id, exemplar.span_id);
        write!(
            out,
            " # {{trace_id=\"{trace_id}\",span_id=\"{span_id}\"}} {seconds} {}.{:03}",
            time / 1000,
            time % 1000
        )?;
    }
    writeln!(out)
}

/// Text with the escapes of the format.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix_web::http::StatusCode;
    use opentelemetry::trace::{SpanId, TraceId};
    use prometheus::{IntCounterVec, Opts};

    use super::super::{Exemplar, Exposition, Metrics};

    #[test]
    fn each_kind_of_metric_has_its_form() {
        let other = IntCounterVec::new(Opts::new("others_total", "Back\\slash."), &["text"]).expect("valid");
        other.with_label_values(&["\"\\\n"]).inc();
        let metrics = Metrics::new(Some("1.0"), vec![Box::new(other)]);
        let traced = Exemplar { trace_id: TraceId::from(10), span_id: SpanId::from(11) };
        metrics.record("GET", "/rows", StatusCode::OK, Duration::from_millis(3), Some(traced));
        metrics.record("GET", "/rows", StatusCode::OK, Duration::from_millis(30), None);
        let text = metrics.render(7, Exposition::OpenMetrics).expect("it is valid");
        for line in [
            "# TYPE others counter\n# HELP others Back\\\\slash.\nothers_total{text=\"\\\"\\\\\\n\"} 1\n",
            "# TYPE http_server_active_requests gauge\n",
            "\nhttp_server_active_requests 7\n",
            "# TYPE http_server_request_duration_seconds histogram\n# UNIT http_server_request_duration_seconds seconds\n",
            "_bucket{http_request_method=\"GET\",http_route=\"/rows\",le=\"0.0025\"} 0\n",
            "_bucket{http_request_method=\"GET\",http_route=\"/rows\",le=\"0.005\"} 1 # \
             {trace_id=\"0000000000000000000000000000000a\",span_id=\"000000000000000b\"} 0.003 ",
            "_bucket{http_request_method=\"GET\",http_route=\"/rows\",le=\"1.0\"} 2\n",
            "_bucket{http_request_method=\"GET\",http_route=\"/rows\",le=\"+Inf\"} 2\n",
            "_count{http_request_method=\"GET\",http_route=\"/rows\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.starts_with("# TYPE target info\n# HELP target ") && text.ends_with("\n# EOF\n"), "{text}");
        assert_eq!(text.matches(" # {").count(), 1, "only a traced request is an exemplar");
        let text = metrics.render(7, Exposition::Text).expect("it is valid");
        assert!(text.contains("\n# TYPE target_info gauge\n") && !text.contains("# EOF"), "{text}");
    }
}
