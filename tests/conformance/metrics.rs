//! promtool checks the format of the metrics, the alerts, and the queries of the dashboard. Prometheus reads both formats.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use url::Url;

use crate::support::engine::{Database, Engine};
use crate::support::process::{PROGRAMS, Web, agent, request};
use crate::support::resource::{FIRST, LISTING};
use crate::support::tool::Tool;
use crate::support::{Port, Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .with_tool(Tool::Promtool, &Engine::ALL, tests![metrics_are_in_their_format])
        .with_tool(Tool::Promtool, &[Engine::any()], tests![alerts_and_the_dashboard_query_existing_metrics])
        .with_tool(Tool::Prometheus, &[Engine::any()], tests![prometheus_reads_metrics_exemplars_and_alerts])
        .and(Tests::of(module_path!()).once(tests![each_alert_is_tested_and_has_its_section]).trials())
        .trials()
}

fn programs(database: &Database) -> Vec<Web> {
    PROGRAMS.iter().map(|(name, _)| Web::program(name, database, &[])).collect()
}

fn metrics_are_in_their_format(database: &Database) {
    let web = Web::seeded(database);
    for path in [LISTING, FIRST, "/nothing", "/readyz"] {
        web.get(path);
    }
    for web in programs(database).iter().chain([&web]) {
        let mut promtool = Tool::Promtool.command();
        let promtool =
            promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = promtool.spawn().unwrap();
        promtool.stdin.take().unwrap().write_all(web.get("/metrics").body.as_bytes()).unwrap();
        let done = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.is_empty(), "{said}");
    }
}

const RULES: &str = include_str!("../../deploy/prometheus/rules.yml");
const TELEMETRY: &str = include_str!("../../docs/telemetry.md");
const RULE_TESTS: &str = include_str!("../../deploy/prometheus/rules.test.yml");

fn path(relative: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Runs promtool, which must succeed.
fn promtool(arguments: [&str; 2], file: &Path) {
    let done = Tool::Promtool.command().args(arguments).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

fn each_alert_is_tested_and_has_its_section() {
    let runbook = std::fs::read_to_string(path("docs/runbook.md")).unwrap();
    let mut lines = RULES.lines().map(str::trim);
    let mut alerts = Vec::new();
    while let Some(line) = lines.next() {
        let Some(alert) = line.strip_prefix("- alert: ") else { continue };
        let url = format!("runbook_url: docs/runbook.md#{}", alert.to_lowercase());
        let mut rule = lines.by_ref().take_while(|line| !line.is_empty());
        assert!(rule.any(|line| line.starts_with("summary: ")) && rule.any(|line| line == url), "{alert}");
        assert_eq!(
            RULE_TESTS.matches(&format!("{url}\n")).count() + RULE_TESTS.matches(&format!("{url} }}")).count(),
            1
        );
        assert!(fires_later(alert), "{alert}: no test expects it, and not before its time");
        alerts.push(alert);
    }
    let sections: Vec<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, alerts, "the sections have the order of the alerts");
}

/// Whether a test expects that the alert fires, and that it does not fire at an earlier time.
fn fires_later(alert: &str) -> bool {
    RULE_TESTS.split("\n  - name: ").any(|test| {
        let entries = test.split("eval_time: ").skip(1).filter_map(|entry| {
            let (minutes, rest) = entry.split_once('m')?;
            let rest = rest.trim_start_matches(',').trim_start().strip_prefix("alertname: ")?.strip_prefix(alert)?;
            Some((minutes.parse::<u32>().ok()?, rest.contains("exp_alerts:")))
        });
        let (firing, quiet): (Vec<_>, Vec<_>) = entries.partition(|(_, fires)| *fires);
        firing.iter().any(|(fires, _)| quiet.iter().any(|(before, _)| before < fires))
    })
}

/// Every query of the alerts and of the dashboard is valid, and queries metrics and labels that processes have. docs/telemetry.md lists all.
fn alerts_and_the_dashboard_query_existing_metrics(database: &Database) {
    promtool(["check", "rules"], &path("deploy/prometheus/rules.yml"));
    promtool(["test", "rules"], &path("deploy/prometheus/rules.test.yml"));

    let dashboard: Value = serde_json::from_str(include_str!("../../deploy/grafana/roster.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 10);
    // As rules, because those are what promtool reads queries from.
    let rules = queries.iter().enumerate().map(|(at, query)| {
        let query = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*");
        json!({"record": format!("query:{at}"), "expr": query})
    });
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules.collect::<Vec<_>>()}]});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules.to_string()).unwrap();
    promtool(["check", "rules"], file.path());

    let web = Web::seeded(database);
    web.get(LISTING);
    let programs = programs(database);
    let metrics = || programs.iter().chain([&web]).map(|program| program.get("/metrics").body).collect::<String>();
    eventually("the queue is measured", || metrics().contains("\njobs_queue_depth{"));
    let metrics = metrics();
    let has = |name: &str| metrics.contains(&format!("\n{name}{{")) || metrics.contains(&format!("\n{name} "));
    // The labels `job` and `instance` are those of Prometheus.
    let has_label = |label: &str| ["job", "instance"].contains(&label) || metrics.contains(&format!("{label}=\""));
    for query in queries.iter().chain([&RULES, &TELEMETRY]) {
        let labels = query.split("by (").skip(1).flat_map(|rest| rest.split(')').next().unwrap().split(", "));
        let labels: BTreeSet<_> = labels.collect();
        for label in &labels {
            assert!(has_label(label), "{label} of {query}");
        }
        let words: BTreeSet<_> = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let is_metric = |word: &str| {
            let kinds = ["http_server_", "db_client_", "jobs_", "log_", "process_", "target_", "tokio_"];
            kinds.iter().any(|kind| word.starts_with(kind)) && !labels.contains(word)
        };
        let names: Vec<_> = words.into_iter().filter(|word| is_metric(word)).collect();
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(has(name) || has(&format!("{name}_count")) || has_label(name), "{name} of {query}");
        }
    }
    for name in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(TELEMETRY.contains(&format!("`{name}`")), "docs/telemetry.md does not list {name}");
    }
}

/// A running Prometheus.
struct Prometheus {
    child: Child,
    port: Port,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Reads the metrics of a process each second, and the alerts.
    fn start(target: u16) -> Self {
        let (port, folder) = (Port::reserve(), tempfile::tempdir().unwrap());
        let configuration = json!({
            "global": {"scrape_interval": "1s"},
            "rule_files": [path("deploy/prometheus/rules.yml")],
            "scrape_configs": [{"job_name": "web", "static_configs": [{"targets": [format!("127.0.0.1:{target}")]}]}],
        });
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, configuration.to_string()).unwrap();
        let child = Tool::Prometheus
            .command()
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number))
            .args(["--enable-feature=exemplar-storage", "--log.level=error"])
            .spawn();
        Self { child: child.unwrap(), port, _folder: folder }
    }

    /// What its API returns. Null if it does not respond.
    fn get(&self, path: &str) -> Value {
        let url = Url::parse(&format!("http://127.0.0.1:{}/api/v1/{path}", self.port.number)).unwrap();
        if std::net::TcpStream::connect(("127.0.0.1", self.port.number)).is_err() {
            return Value::Null;
        }
        serde_json::from_str(&request(&agent(), "GET", url, &[]).body).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn prometheus_reads_metrics_exemplars_and_alerts(database: &Database) {
    drop(Web::seeded(database));
    // Traces are sampled. That they arrive nowhere does not matter.
    let web = Web::start(database, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]);
    let answer = web.get(FIRST);
    let trace_id = answer.header("traceparent").unwrap().split('-').nth(1).unwrap();
    let open = web.get_with("/metrics", &[("accept", "application/openmetrics-text; version=1.0.0")]);
    let content_type = Some("application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(open.header("content-type"), content_type);
    assert!(open.body.contains(trace_id) && open.body.ends_with("\n# EOF\n"), "{}", open.body);
    let text = web.get_with("/metrics", &[("accept", "text/plain, application/openmetrics-text;q=0.5")]);
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4"));
    assert!(!text.body.contains(trace_id) && !text.body.contains("# EOF"), "{}", text.body);

    let prometheus = Prometheus::start(web.port);
    // It prefers OpenMetrics, so this is what it parses.
    eventually("it reads the metrics", || prometheus.get("query?query=up")["data"]["result"][0]["value"][1] == "1");
    eventually("it has the example", || {
        let query = "query_exemplars?query=http_server_request_duration_seconds_bucket&start=0&end=9999999999";
        prometheus.get(query).to_string().contains(trace_id)
    });
    let info = &prometheus.get("query?query=target_info")["data"]["result"][0]["metric"]["service_name"];
    assert_eq!(*info, env!("CARGO_PKG_NAME"));
    let rules = prometheus.get("rules");
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), RULES.matches("- alert: ").count());
    assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
}
