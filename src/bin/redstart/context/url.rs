//! Passwords in URLs of servers.

/// Whether a URL has a password.
pub(crate) fn holds_password(url: &str) -> bool {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme.contains("unix") {
        return rest.contains("pass=");
    }
    // A password that is not percent-encoded may hold the marks that end the authority.
    let before_host = rest.rsplit_once('@');
    before_host.is_some_and(|(user, _)| user.contains(':')) || rest.contains("pass=")
}

/// The URL with dots in place of its password.
pub(crate) fn without_password(url: &str) -> String {
    if !holds_password(url) {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return "…".to_owned();
    };
    match (rest.rsplit_once('@'), rest.split_once('?')) {
        (Some((user, host)), _) if user.contains(':') => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:…@{host}")
        }
        (_, Some((place, _))) => format!("{scheme}://{place}?…"),
        _ => "…".to_owned(),
    }
}

/// The URL with a password: for its user, or for the server as a whole.
pub(crate) fn with_password(url: &str, password: &str) -> String {
    let password = percent_encoded(password);
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    if scheme.contains("unix") {
        let join = if rest.contains('?') { '&' } else { '?' };
        return format!("{scheme}://{rest}{join}pass={password}");
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    format!("{scheme}://{user}:{password}@{host}{tail}")
}

fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_recognised_in_a_url() {
        for url in [
            "redis://:canary@h/",
            "redis://u:canary@h:1/0",
            "redis://u:canary/canary@h",
            "redis://u:1234/canary@h/0",
            "redis://u:canary?canary@h",
            "redis://:canary#canary@canary@h/",
            "redis+cluster://:canary/1@h:1,h:2",
            "u:canary/1@h",
            "unix:///s?pass=canary",
        ] {
            assert!(holds_password(url), "{url}");
            let shown = without_password(url);
            assert!(!shown.contains("canary"), "{shown}");
        }
        for url in ["redis://h:6379/", "redis://u@h:1", "unix:///a@b:c"] {
            assert!(!holds_password(url), "{url}");
            assert_eq!(without_password(url), url);
        }
        assert_eq!(
            without_password("redis://u:se:c@r@h:1/0"),
            "redis://u:…@h:1/0"
        );
        assert_eq!(without_password("unix:///s?user=u&pass=p"), "unix:///s?…");
    }

    #[test]
    fn a_password_stands_beside_its_user() {
        for (url, full) in [
            ("redis://h:1/0", "redis://:p%40%3A@h:1/0"),
            ("rediss://ann@h", "rediss://ann:p%40%3A@h"),
            (
                "redis+cluster://h:1,h:2",
                "redis+cluster://:p%40%3A@h:1,h:2",
            ),
            ("unix:///s", "unix:///s?pass=p%40%3A"),
            ("unix:///s?user=ann", "unix:///s?user=ann&pass=p%40%3A"),
        ] {
            assert_eq!(with_password(url, "p@:"), full);
        }
    }
}
