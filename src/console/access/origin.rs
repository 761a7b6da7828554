//! Refuses changes that another site sends through a visitor's browser.

use http::header::{HOST, ORIGIN};
use http::request::Parts;

/// Whether the request comes from a page of the console itself.
///
/// A browser states where a request comes from in `Sec-Fetch-Site`. One that is too old for this
/// header states its page's `Origin`. Pages of other sites can set neither, so a request without both
/// is refused too.
pub(in crate::console) fn is_own(parts: &Parts) -> bool {
    let text = |name: &str| parts.headers.get(name).map(|value| value.to_str());
    match text("sec-fetch-site") {
        Some(site) => site.is_ok_and(|site| site == "same-origin"),
        None => {
            let host = parts
                .headers
                .get(HOST)
                .and_then(|host| host.to_str().ok())
                .or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
            let origin = parts.headers.get(ORIGIN).and_then(|one| one.to_str().ok());
            let of_origin = origin.and_then(|origin| origin.split_once("://"));
            matches!((of_origin, host), (Some((_, of)), Some(host)) if of.eq_ignore_ascii_case(host))
        }
    }
}

/// Whether a browser sends the request for a page: it then says for which one. A program says nothing.
pub(in crate::console) fn is_of_a_browser(parts: &Parts) -> bool {
    parts.headers.contains_key("sec-fetch-site") || parts.headers.contains_key(ORIGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(headers: &[(&str, &str)]) -> bool {
        let mut request = http::Request::post("/").header("host", "console.test:8087");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        is_own(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_pages_of_the_console_may_post() {
        for (headers, expected) in [
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("origin", "http://console.test:8087")], true),
            (vec![("origin", "https://CONSOLE.test:8087")], true),
            (vec![("origin", "http://console.test")], false),
            (vec![("origin", "http://evil.test")], false),
            (vec![("origin", "null")], false),
            (vec![], false),
            (
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "http://console.test:8087"),
                ],
                false,
            ),
        ] {
            assert_eq!(own(&headers), expected, "{headers:?}");
        }
    }
}
