//! A route, as the route table names it.

use std::fmt;

use actix_web::http::Method;

/// The route of a request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Route {
    /// The pattern of its path, if there is such a resource. Logs and metrics have it instead of the path, which may hold
    /// anything.
    pub(super) pattern: Option<&'static str>,
    /// Whether browsers receive its errors as a page.
    pub(super) has_page: bool,
    /// The methods of the resource.
    pub(super) methods: Methods,
}

/// A set of methods.
#[derive(Clone, Copy, Default)]
pub(crate) struct Methods(u8);

const KNOWN: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

impl Methods {
    /// Those of all resources together.
    pub(super) const ALL: Self = Self((1 << KNOWN.len()) - 1);

    pub(super) fn insert(&mut self, method: &Method) {
        let position = KNOWN.iter().position(|known| known == method);
        self.0 |= 1 << position.expect("a route has one of these methods");
    }

    pub(super) fn contains(self, method: &Method) -> bool {
        self.iter().any(|own| own == *method)
    }

    fn iter(self) -> impl Iterator<Item = Method> {
        (0..).zip(KNOWN).filter(move |(position, _)| self.0 & (1 << position) != 0).map(|(_, method)| method)
    }
}

/// As the header `Allow` lists them. Every resource has OPTIONS, too.
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for method in self.iter() {
            write!(f, "{method}, ")?;
        }
        f.write_str("OPTIONS")
    }
}

/// Whether the method with this name changes nothing (RFC 9110, section 9.2.1).
pub(super) fn is_safe(method: &str) -> bool {
    ["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method)
}
