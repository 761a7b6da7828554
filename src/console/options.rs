//! Settings of the console.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use super::access::Access;
use crate::domain::{Error, ErrorKind};

pub(super) type Resolver = Arc<dyn Fn(&Parts) -> Access + Send + Sync>;

/// First segments of the console's own paths. A base path that began with one would be ambiguous
/// once a proxy has taken it off.
const OWN: [&str; 13] = [
    "api",
    "assets",
    "dead",
    "doctor",
    "events",
    "healthz",
    "kv",
    "metrics",
    "operations",
    "readyz",
    "retries",
    "topics",
    "theme",
];

/// How the console behaves.
#[derive(Clone)]
#[must_use]
pub struct ConsoleOptions {
    pub(super) access: Resolver,
    pub(super) base_path: String,
    pub(super) title: String,
    pub(super) read_only: bool,
    pub(super) payloads: bool,
    pub(super) values: bool,
    pub(super) trace_url: Option<String>,
    pub(super) max_clients: usize,
    pub(super) search_time: Duration,
}

impl ConsoleOptions {
    /// Options with a function that decides for each request who the visitor is.
    ///
    /// The function sees the head of the request. It must not believe headers that a visitor can
    /// set.
    pub fn with_access(access: impl Fn(&Parts) -> Access + Send + Sync + 'static) -> Self {
        Self {
            access: Arc::new(access),
            base_path: String::new(),
            title: String::new(),
            read_only: false,
            payloads: true,
            values: false,
            trace_url: None,
            max_clients: 100,
            search_time: Duration::from_millis(300),
        }
    }

    pub(super) fn with_resolver(
        mut self,
        access: impl Fn(&Parts) -> Access + Send + Sync + 'static,
    ) -> Self {
        self.access = Arc::new(access);
        self
    }

    /// Sets the path under which visitors reach the console, such as `/redstart`. Every link begins
    /// with it. Default: none.
    ///
    /// The console answers with and without the path in front of a request, because some proxies
    /// and axum's `nest_service` take it off.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a path with other characters than letters, digits,
    /// `-`, `_`, `.`, `~` and `/`, with empty segments, or with a first segment that is a page of the
    /// console.
    pub fn with_base_path(mut self, path: &str) -> Result<Self, Error> {
        let trimmed = path.trim_end_matches('/');
        let invalid =
            |rule: &str| Err(Error::new(ErrorKind::Invalid, "base path", rule).on(path.to_owned()));
        if !trimmed.is_empty() {
            let Some(segments) = trimmed.strip_prefix('/') else {
                return invalid("must begin with /");
            };
            let is_plain =
                |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
            let sound = |one: &str| {
                !one.is_empty() && !matches!(one, "." | "..") && one.chars().all(is_plain)
            };
            if !segments.split('/').all(sound) {
                return invalid("must be segments of letters, digits, -, _, . and ~");
            }
            let first = segments.split('/').next().unwrap_or_default();
            if OWN.contains(&first) {
                return invalid("must not begin with the name of a page of the console");
            }
        }
        self.base_path = trimmed.to_owned();
        Ok(self)
    }

    /// Sets a name that every page shows, such as the namespace or the environment. Default: none.
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Mounts no route that changes anything. Default: off.
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Shows or hides payloads, headers and fields of messages. Default: shown.
    pub fn with_payloads(mut self, shown: bool) -> Self {
        self.payloads = shown;
        self
    }

    /// Adds pages that list keys of the key-value store and show values, also to viewers. Operators
    /// may store and delete values there. Default: off.
    pub fn with_values(mut self, shown: bool) -> Self {
        self.values = shown;
        self
    }

    /// Sets the address of a trace, with `{trace_id}` in it. A message with a trace then has a link.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for an address without `{trace_id}`, or one that begins with
    /// neither `https://` nor `http://`.
    pub fn with_trace_url(mut self, url: &str) -> Result<Self, Error> {
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        if !is_web || !url.contains("{trace_id}") {
            let rule = "must begin with https:// or http:// and have {trace_id} in it";
            return Err(Error::new(ErrorKind::Invalid, "trace URL", rule).on(url.to_owned()));
        }
        self.trace_url = Some(url.to_owned());
        Ok(self)
    }

    /// Sets how many pages may be open with live figures at once. Further ones show their figures
    /// without updates. Default: 100.
    pub fn with_max_clients(mut self, clients: usize) -> Self {
        self.max_clients = clients;
        self
    }

    /// Sets how long a page searches among dead letters before it shows what it has found, with a
    /// link that continues. It searches one portion at least. A browser with JavaScript follows the
    /// rest of the search and shows its progress in this time again and again. Default: 300
    /// milliseconds.
    pub fn with_search_time(mut self, time: Duration) -> Self {
        self.search_time = time;
        self
    }
}

impl fmt::Debug for ConsoleOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleOptions")
            .field("base_path", &self.base_path)
            .field("title", &self.title)
            .field("read_only", &self.read_only)
            .field("payloads", &self.payloads)
            .field("values", &self.values)
            .field("trace_url", &self.trace_url)
            .field("max_clients", &self.max_clients)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_plain_and_no_page_of_the_console() {
        let path = |path: &str| {
            let options = ConsoleOptions::with_access(|_| Access::Forbidden);
            options
                .with_base_path(path)
                .map(|options| options.base_path)
        };
        assert_eq!(path("/redstart/").unwrap(), "/redstart");
        assert_eq!(path("/ops/bus-1").unwrap(), "/ops/bus-1");
        assert_eq!(path("/").unwrap(), "");
        for bad in [
            "redstart",
            "/a//b",
            "/..",
            "/a\"b",
            "/dead",
            "/topics/x",
            "/a b",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trace_url_is_an_address_of_the_web() {
        let url = |url: &str| {
            let options = ConsoleOptions::with_access(|_| Access::Forbidden);
            options.with_trace_url(url).is_ok()
        };
        assert!(url("https://grafana.test/{trace_id}"));
        assert!(!url("javascript:alert('{trace_id}')"));
        assert!(!url("https://grafana.test/"));
    }
}
