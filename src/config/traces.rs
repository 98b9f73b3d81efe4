//! The variables of OpenTelemetry's standard: each is supported, reported as unused, or rejected by its name.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. The SDK reads most of them
//! itself and ignores invalid values without an error, so they are checked here first.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ureq::http::Uri;
use url::Url;

use super::values::{DAY, not_one_of, one_of, parse_boolean, parse_integer, shown};

/// Where traces go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TracesExporter {
    /// To the endpoint, by OTLP.
    Otlp,
    /// Nowhere.
    None,
}

impl<'de> Deserialize<'de> for TracesExporter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = [("otlp", Self::Otlp), ("none", Self::None)];
        one_of(&String::deserialize(deserializer)?, &values).map_err(D::Error::custom)
    }
}

/// A URL to which OTLP can be sent. Its path may contain an API key, so it is shown without a path of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// The URL to send traces to, if this is the base of the URLs of all signals.
    pub(super) fn for_traces(&self) -> String {
        format!("{}/v1/traces", self.0.trim_end_matches('/'))
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Url::parse(&self.0) {
            Ok(url) if !["/", "/v1/traces"].contains(&url.path()) => {
                write!(f, "{}/***", url.origin().ascii_serialization())
            }
            _ => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    /// An error does not contain the text.
    fn try_from(text: String) -> Result<Self, String> {
        const KEYS: &str = "put a key or a password into OTEL_EXPORTER_OTLP_HEADERS, as in authorization=Bearer%20KEY";
        let url = Url::parse(&text);
        Err(match url {
            Ok(url) if url.password().is_some() || !url.username().is_empty() => format!("it holds a user; {KEYS}"),
            Ok(url) if url.query().is_some() || url.fragment().is_some() => format!("it holds a ? or a #; {KEYS}"),
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() && text.parse::<Uri>().is_ok() => {
                return Ok(Self(text));
            }
            _ => "expected a URL such as http://host:4318 or https://host:4318".to_owned(),
        })
    }
}

/// The values that a variable accepts.
enum Rule {
    /// Any text.
    Text,
    /// `name=value` pairs, separated by commas. They may be secrets.
    Pairs,
    /// An integer in this range.
    Integer(u64, u64),
    /// A number from 0 to 1.
    Ratio,
    /// A boolean.
    Boolean,
    /// One of these. The error for other values has the advice.
    AnyOf(&'static [&'static str], &'static str),
    /// Several of these, separated by commas.
    Several(&'static [&'static str], &'static str),
    /// Nothing.
    Refused(&'static str),
}

use Rule::{AnyOf, Boolean, Integer, Pairs, Ratio, Refused, Several, Text};

const PROTOCOL: Rule = AnyOf(&["http/protobuf"], "only http/protobuf is supported; collectors have it on port 4318");
const COMPRESSION: Rule = AnyOf(&["none"], "compression is not supported; set none");
const CERTIFICATE: Rule = Refused("only public certificate authorities are supported; remove it");
const LIMIT: Rule = Refused("this limit is not supported; remove it");
const NO_METRICS: &str = "metrics are not sent; collect them from /metrics";
const NO_LOGS: &str = "logs are not sent; collect them from standard output";

const RULES: &[(&str, Rule)] = &[
    ("OTEL_SERVICE_NAME", Text),
    ("OTEL_RESOURCE_ATTRIBUTES", Pairs),
    ("OTEL_EXPORTER_OTLP_HEADERS", Pairs),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", Pairs),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", PROTOCOL),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", COMPRESSION),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", COMPRESSION),
    // By the standard, these apply to gRPC only. Over HTTP, the scheme of the endpoint decides.
    ("OTEL_EXPORTER_OTLP_INSECURE", Boolean),
    ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", Boolean),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", CERTIFICATE),
    (
        SAMPLER,
        AnyOf(
            &[
                "always_on",
                "always_off",
                "traceidratio",
                "parentbased_always_on",
                "parentbased_always_off",
                "parentbased_traceidratio",
            ],
            "",
        ),
    ),
    (SAMPLER_ARG, Ratio),
    (
        "OTEL_PROPAGATORS",
        Several(&["tracecontext", "baggage"], "only tracecontext, or tracecontext,baggage is supported"),
    ),
    ("OTEL_BSP_SCHEDULE_DELAY", Integer(1, DAY)),
    ("OTEL_BSP_EXPORT_TIMEOUT", Integer(1, DAY)),
    ("OTEL_BSP_MAX_QUEUE_SIZE", Integer(1, 1_000_000)),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", Integer(1, 1_000_000)),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", Integer(0, 1_000_000)),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", Integer(0, 1_000_000)),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", Integer(0, 1_000_000)),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", LIMIT),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", LIMIT),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", LIMIT),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", LIMIT),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", LIMIT),
    ("OTEL_METRICS_EXPORTER", AnyOf(&["none", "prometheus"], NO_METRICS)),
    ("OTEL_LOGS_EXPORTER", AnyOf(&["none", "console"], NO_LOGS)),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", Refused(NO_METRICS)),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", Refused(NO_LOGS)),
    ("OTEL_LOG_LEVEL", Refused("set the level by RUST_LOG, such as info,opentelemetry_sdk=debug")),
    ("OTEL_CONFIG_FILE", Refused("a configuration file is not supported; set the variables")),
    ("OTEL_EXPERIMENTAL_CONFIG_FILE", Refused("a configuration file is not supported; set the variables")),
];

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Prefixes of variables that configure unsupported features of the standard.
const UNUSED: [&str; 8] = [
    "OTEL_BLRP_",
    "OTEL_METRIC_",
    "OTEL_METRICS_",
    "OTEL_EXPORTER_OTLP_METRICS_",
    "OTEL_EXPORTER_OTLP_LOGS_",
    "OTEL_EXPORTER_PROMETHEUS_",
    "OTEL_EXPORTER_ZIPKIN_",
    "OTEL_EXPORTER_JAEGER_",
];

/// The names that the SDK reads.
pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
    RULES.iter().map(|(name, _)| *name)
}

/// Whether this is a variable of the standard that has no effect here.
pub(super) fn is_unused(name: &str) -> bool {
    UNUSED.iter().any(|prefix| name.starts_with(prefix)) && !names().any(|known| known == name)
}

/// The problems of the variables that the SDK reads, each with the name of its variable.
pub(super) fn problems(vars: &BTreeMap<String, String>) -> Vec<String> {
    if vars.get("OTEL_SDK_DISABLED").is_some_and(|value| parse_boolean(value) == Ok(true)) {
        return Vec::new();
    }
    let given = RULES.iter().filter_map(|(name, rule)| Some((name, rule, vars.get(*name)?)));
    let mut problems: Vec<_> = given
        .filter_map(|(name, rule, value)| check(rule, value).err().map(|problem| format!("{name}: {problem}")))
        .collect();
    let has_ratio = vars.get(SAMPLER).is_some_and(|sampler| sampler.ends_with("traceidratio"));
    if has_ratio && !vars.contains_key(SAMPLER_ARG) {
        problems.push(format!("{SAMPLER_ARG}: required by this {SAMPLER}; set it to a number from 0 to 1"));
    }
    problems
}

fn check(rule: &Rule, value: &str) -> Result<(), String> {
    match rule {
        Text => Ok(()),
        Pairs => check_pairs(value),
        Integer(least, most) => parse_integer::<u64>(value, *least, *most).map(drop),
        Ratio => match value.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
            _ => Err(format!("expected a number from 0 to 1, got {}", shown(value))),
        },
        Boolean => parse_boolean(value).map(drop),
        AnyOf(known, _) if known.contains(&value) => Ok(()),
        AnyOf(known, "") => Err(not_one_of(value, known.iter().copied())),
        Several(known, _) if value.split(',').all(|one| known.contains(&one.trim())) && value.contains(known[0]) => {
            Ok(())
        }
        AnyOf(_, advice) | Several(_, advice) => Err(format!("{advice}; got {}", shown(value))),
        Refused(advice) => Err((*advice).to_owned()),
    }
}

/// Checks pairs, because the SDK ignores invalid ones. A pair may be a secret, so an error does not contain it.
fn check_pairs(value: &str) -> Result<(), String> {
    let pairs = value.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    for (number, pair) in pairs.enumerate() {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte))
        };
        let is_encoded = |value: &str| {
            let mut escapes = value.split('%').skip(1);
            escapes.all(|rest| rest.get(..2).is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())))
        };
        let is_value = |value: &str| is_encoded(value) && value.chars().all(|c| !c.is_control());
        let is_pair = pair.split_once('=').is_some_and(|(name, value)| is_name(name.trim()) && is_value(value));
        if !is_pair {
            return Err(format!(
                "number {} of its pairs is not name=value; write them as name=value,name=value, with a comma as %2C and a percent sign as %25",
                number + 1
            ));
        }
    }
    Ok(())
}
