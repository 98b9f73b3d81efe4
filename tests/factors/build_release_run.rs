//! V. Build, release, run: strictly separate stages. One build runs under any configuration, and a
//! running process tells which release it is.

pub(crate) mod push;

use libtest_mimic::Trial;

use crate::support::engine::Database;
use crate::support::process::Web;
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .any(tests![a_process_tells_its_release, a_process_of_no_release_says_so])
        .and(push::tests())
        .trials()
}

fn a_process_tells_its_release(database: &Database) {
    let web = Web::start(database, &[("RELEASE_ID", "0.1.0.7")]);
    assert_eq!(web.get("/version").json()["release_id"], "0.1.0.7");
    eventually("it logs more than its start", || web.events().len() > 1);
    let events = web.events();
    assert!(events.iter().all(|event| event["release_id"] == "0.1.0.7"), "{events:?}");
}

fn a_process_of_no_release_says_so(database: &Database) {
    let web = Web::start(database, &[]);
    assert!(web.get("/version").json()["release_id"].is_null());
    assert!(web.events().iter().all(|event| event.get("release_id").is_none()));
}
