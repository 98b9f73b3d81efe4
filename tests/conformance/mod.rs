//! External tools check what the service serves. Their configuration stands beside their tests.

mod browser;
mod exchanges;
mod metrics;
mod openapi;
mod systemd;

use libtest_mimic::Trial;

pub(crate) fn tests() -> Vec<Trial> {
    let modules = [browser::tests(), exchanges::tests(), metrics::tests(), openapi::tests(), systemd::tests()];
    modules.into_iter().flatten().collect()
}
