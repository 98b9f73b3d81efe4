//! The HTTP interface: connections, limits, responses, links and the description of the API.

mod connection;
mod documentation;
mod limits;
mod prefix;
pub(crate) mod responses;
mod users;
mod writes;

use libtest_mimic::Trial;

pub(crate) fn tests() -> Vec<Trial> {
    let modules = [
        connection::tests(),
        documentation::tests(),
        limits::tests(),
        prefix::tests(),
        responses::tests(),
        users::tests(),
        writes::tests(),
        // In their order.
    ];
    modules.into_iter().flatten().collect()
}
