//! The twelve factors: one module for each factor, in their order.

mod admin_processes;
mod backing_services;
mod build_release_run;
mod codebase;
mod concurrency;
mod config;
mod dependencies;
mod dev_prod_parity;
mod disposability;
mod logs;
mod port_binding;
mod processes;

use libtest_mimic::Trial;

pub(crate) fn tests() -> Vec<Trial> {
    let modules = [
        codebase::tests(),
        dependencies::tests(),
        config::tests(),
        backing_services::tests(),
        build_release_run::tests(),
        processes::tests(),
        port_binding::tests(),
        concurrency::tests(),
        disposability::tests(),
        dev_prod_parity::tests(),
        logs::tests(),
        admin_processes::tests(),
    ];
    modules.into_iter().flatten().collect()
}
