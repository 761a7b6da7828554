//! Reads the server's URL, and refuses every part that the connection would ignore.

use std::borrow::Cow;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

use crate::domain::{Error, ErrorKind};

/// The query keys of a unix socket's URL. Other URLs have none.
const UNIX_KEYS: [&str; 3] = ["user", "pass", "db"];

const FORM: &str = "must be redis:// or rediss://[user:password@]host[:port][/database], \
                    redis+cluster:// or rediss+cluster://[user:password@]host[:port],…, or \
                    unix:///path; symbols of a user or password are percent-encoded";

/// Where to connect, with which credentials, and whether by TLS.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Target {
    /// One server, or some nodes of a cluster.
    pub(in crate::adapters::redis::net) infos: Vec<ConnectionInfo>,
    pub(in crate::adapters::redis::net) encrypted: bool,
    pub(in crate::adapters::redis::net) clustered: bool,
}

/// Reads a URL. Errors never quote it, because it may contain a password.
pub(in crate::adapters::redis::net) fn read(url: &str) -> Result<Target, Error> {
    // This adapter does TLS itself, so the parser sees the plain form of the URL.
    for (scheme, encrypted) in [("redis+cluster://", false), ("rediss+cluster://", true)] {
        if let Some(rest) = url.strip_prefix(scheme) {
            return Ok(Target {
                infos: read_nodes(rest)?,
                encrypted,
                clustered: true,
            });
        }
    }
    let (plain, encrypted) = match url.strip_prefix("rediss://") {
        Some(rest) => (Cow::Owned(format!("redis://{rest}")), true),
        None => (Cow::Borrowed(url), false),
    };
    Ok(Target {
        infos: vec![read_one(&plain)?],
        encrypted,
        clustered: false,
    })
}

/// Reads the rest of a cluster's URL: each host stands for a URL of its own with the same
/// credentials.
fn read_nodes(rest: &str) -> Result<Vec<ConnectionInfo>, Error> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
        None => (String::new(), authority),
    };
    let node = |host: &str| {
        if host.is_empty() {
            return Err(invalid(FORM));
        }
        let info = read_one(&format!("redis://{credentials}{host}{tail}"))?;
        if info.redis_settings().db() != 0 {
            return Err(invalid("names a database, and a cluster has only one"));
        }
        Ok(info)
    };
    hosts.split(',').map(node).collect()
}

/// Reads the URL of one server without TLS.
fn read_one(plain: &str) -> Result<ConnectionInfo, Error> {
    let Some(parsed) = redis::parse_redis_url(plain) else {
        return Err(invalid(FORM));
    };
    if parsed.fragment().is_some() {
        return Err(invalid(
            "has no `#` part: certificates are always checked, and a `#` in a password is \
             written %23",
        ));
    }
    let unix = parsed.scheme().ends_with("unix");
    // An unencoded `?` ends the host, and the rest of a password is then taken for a query.
    let quotable = !parsed.query().unwrap_or_default().contains('@');
    let mut seen = Vec::new();
    for (key, _) in parsed.query_pairs() {
        if !unix || !UNIX_KEYS.contains(&key.as_ref()) {
            return Err(invalid(unknown_key(&key, quotable)));
        }
        if seen.contains(&key) {
            return Err(invalid(format!("has `?{key}=` twice")));
        }
        seen.push(key);
    }
    if unix && !matches!(parsed.host_str(), None | Some("localhost")) {
        return Err(invalid(FORM));
    }
    if unix && (!parsed.username().is_empty() || parsed.password().is_some()) {
        return Err(invalid(
            "has a user or password before the path; a unix socket takes ?user= and &pass=",
        ));
    }
    // Leave the cause out: it may quote the URL, and so the password.
    let info = parsed.into_connection_info().map_err(|_| invalid(FORM))?;
    let settings = info.redis_settings();
    if settings.username().is_some() && settings.password().is_none() {
        return Err(invalid(
            "has a user without a password, and the server would take the connection for user \
             `default`; for a user of `nopass` give any password",
        ));
    }
    Ok(info)
}

/// The host and port of a URL, of a cluster its first node, or the path of its socket; `None` for a URL that is refused.
pub(crate) fn address_of(url: &str) -> Option<(String, Option<u16>)> {
    match read(url).ok()?.infos.first()?.addr() {
        ConnectionAddr::Tcp(host, port) => Some((host.clone(), Some(*port))),
        ConnectionAddr::Unix(path) => Some((path.display().to_string(), None)),
        _ => None,
    }
}

fn unknown_key(key: &str, quotable: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !quotable || key.is_empty() || key.len() > 32 || !key.bytes().all(plain) {
        return "has an unknown part after `?`; a `?` in a password is written %3F".to_owned();
    }
    let instead = match key {
        "db" | "database" => "; write the database as the path: redis://host/3",
        "user" | "username" | "pass" | "password" => {
            "; write the credentials before the host: redis://user:password@host"
        }
        "protocol" => "; Redstart always uses RESP2",
        _ => "",
    };
    format!("has an unknown part `?{key}=`{instead}")
}

fn invalid(rule: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "Redis URL", rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let error = read(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        format!("{error} {error:?}")
    }

    #[test]
    fn an_address_has_no_credentials() {
        let of = |url| address_of(url).unwrap();
        let tcp = of("rediss://ann:secret@example.org:7000/3");
        assert_eq!(tcp, ("example.org".to_owned(), Some(7000)));
        let unix = of("unix:///run/redis.sock?user=ann&pass=secret");
        assert_eq!(unix, ("/run/redis.sock".to_owned(), None));
        assert_eq!(address_of("http://secret@h"), None);
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_being_quoted() {
        for url in [
            "",
            "secret",
            "http://secret@h",
            "redis://h/secret",
            "redis//secret",
            "redis://:secret@h:port",
            "redis://u:1?secret=1@h",
            "redis://u:1?secret@h",
            "redis://u:1#secret@h",
            "redis://secret@h",
            "unix://u:secret@localhost/s",
            "unix://secret/s",
        ] {
            let told = refused(url);
            assert!(!told.contains("secret"), "{url}: {told}");
        }
    }

    #[test]
    fn an_unknown_query_key_is_refused_by_its_name() {
        for (url, named) in [
            ("redis://h?db=3", "`?db=`; write the database as the path"),
            ("redis://h/1?protocol=resp3", "`?protocol=`"),
            ("redis://h?protocol=2", "`?protocol=`"),
            ("rediss://h?timeout=3", "`?timeout=`"),
            ("redis://h?user=a&password=b", "`?user=`"),
            ("redis://h?%64b=3", "`?db=`"),
            ("valkey://h?x=1", "`?x=`"),
            ("unix:///s?db=1&protocol=resp3", "`?protocol=`"),
            ("unix:///s?db=1&password=b", "`?password=`"),
            ("unix:///s?db=1&db=2", "`?db=` twice"),
            ("unix:///s#x", "no `#` part"),
            ("redis://h#insecure", "no `#` part"),
        ] {
            let told = refused(url);
            assert!(told.contains(named), "{url}: {told}");
        }
    }

    #[test]
    fn a_user_needs_a_password() {
        for url in ["redis://ann@h", "rediss://ann:@h", "unix:///s?user=ann"] {
            let told = refused(url);
            assert!(told.contains("user without a password"), "{url}: {told}");
            assert!(!told.contains("ann"), "{url}: {told}");
        }
    }

    #[test]
    fn understood_urls_are_accepted() {
        for url in [
            "redis://h",
            "redis://h:7000/",
            "redis://ann:p%3F%23@h/3",
            "redis://:p@[::1]",
            "unix:///s?user=ann&pass=p&db=3",
            "unix:///s",
        ] {
            assert!(!read(url).unwrap().encrypted, "{url}");
        }
        let target = read("rediss://ann:p@h/3").unwrap();
        assert!(target.encrypted);
        assert_eq!(target.infos[0].redis_settings().db(), 3);
        assert!(!target.clustered);
    }

    #[test]
    fn the_url_of_a_cluster_names_some_of_its_nodes() {
        let target = read("redis+cluster://ann:p%2C@h1:7000,[::1]:7001,h3").unwrap();
        assert!(target.clustered && !target.encrypted);
        let addresses: Vec<String> = target.infos.iter().map(|i| i.addr().to_string()).collect();
        assert_eq!(addresses, ["h1:7000", "::1:7001", "h3:6379"]);
        for info in &target.infos {
            assert_eq!(info.redis_settings().username(), Some("ann"));
            assert_eq!(info.redis_settings().password(), Some("p,"));
        }
        assert!(read("rediss+cluster://h1,h2/").unwrap().encrypted);
    }

    #[test]
    fn a_cluster_url_that_cannot_be_used_is_refused_without_being_quoted() {
        for (url, named) in [
            ("redis+cluster://", "must be"),
            ("redis+cluster://:secret@h1,,h2", "must be"),
            ("redis+cluster://:secret@h1:port", "must be"),
            ("redis+cluster://:secret@h1,h2/3", "a cluster has only one"),
            ("redis+cluster://:secret@h1?x=1", "`?x=`"),
            ("rediss+cluster://h1#secret", "no `#` part"),
            ("redis+cluster://ann@h1,h2", "user without a password"),
        ] {
            let told = refused(url);
            assert!(told.contains(named), "{url}: {told}");
            assert!(!told.contains("secret"), "{url}: {told}");
        }
    }
}
