//! promtool checks the format of the metrics and the queries of the dashboard.

use std::io::Write as _;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::engine::{Database, Engine};
use crate::support::process::Web;
use crate::support::resource::{FIRST, LISTING};
use crate::support::tool::Tool;
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .with_tool(Tool::Promtool, &Engine::ALL, tests![metrics_are_in_their_format])
        .with_tool(Tool::Promtool, &[Engine::any()], tests![the_dashboard_asks_for_what_there_is])
        .trials()
}

fn metrics_are_in_their_format(database: &Database) {
    let web = Web::seeded(database);
    for path in [LISTING, FIRST, "/nothing", "/readyz"] {
        web.get(path);
    }
    let mut promtool = Tool::Promtool.command();
    let promtool =
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(web.get("/metrics").body.as_bytes()).unwrap();
    let done = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.is_empty(), "{said}");
}

/// Every query of the dashboard is one that Prometheus understands, and of metrics and labels that there are.
fn the_dashboard_asks_for_what_there_is(database: &Database) {
    let dashboard: Value = serde_json::from_str(include_str!("../../deploy/grafana/roster.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
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
    let done = Tool::Promtool.command().args(["check", "rules"]).arg(file.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let web = Web::seeded(database);
    web.get(LISTING);
    let metrics = web.get("/metrics").body;
    for query in queries {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: Vec<_> =
            words.filter(|word| ["http_server_", "db_", "roster_"].iter().any(|kind| word.starts_with(kind))).collect();
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(
                metrics.contains(&format!("\n{name}{{")) || metrics.contains(&format!("\n{name} ")),
                "{name} of {query}"
            );
        }
        for label in query.split("by (").skip(1).flat_map(|rest| rest.split(')').next().unwrap().split(", ")) {
            assert!(metrics.contains(&format!("{label}=\"")), "{label} of {query}");
        }
    }
}
