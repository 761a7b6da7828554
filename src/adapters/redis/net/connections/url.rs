//! Reads the server's URL, and refuses every part that the connection would ignore.

use std::borrow::Cow;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};

use crate::domain::{Error, ErrorKind};

/// The query keys of a unix socket's URL. Other URLs have none.
const UNIX_KEYS: [&str; 3] = ["user", "pass", "db"];

const FORM: &str = "must be redis:// or rediss://[user:password@]host[:port][/database], \
                    redis+cluster:// or rediss+cluster://[user:password@]host[:port],…, \
                    redis+sentinel:// or rediss+sentinel://[user:password@]sentinel[:port],…/service, \
                    or unix:///path; symbols of a user or password are percent-encoded";

/// The port of a sentinel whose URL names none.
const SENTINEL_PORT: &str = ":26379";

/// Where to connect, with which credentials, and whether by TLS.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Target {
    /// One server, some nodes of a cluster, or sentinels.
    pub(in crate::adapters::redis::net) infos: Vec<ConnectionInfo>,
    pub(in crate::adapters::redis::net) encrypted: bool,
    pub(in crate::adapters::redis::net) kind: Kind,
}

/// What the hosts of a URL are.
#[derive(Debug)]
pub(in crate::adapters::redis::net) enum Kind {
    /// The server.
    Server,
    /// Nodes of a cluster.
    Cluster,
    /// Sentinels, which know the primary of a service.
    Sentinels {
        service: String,
        /// The credentials and the database for the primary.
        settings: RedisConnectionInfo,
    },
}

/// Reads a URL. Errors never quote it, because it may contain a password.
pub(in crate::adapters::redis::net) fn read(url: &str) -> Result<Target, Error> {
    // This adapter does TLS itself, so the parser sees the plain form of the URL.
    for (scheme, encrypted) in [("redis+cluster://", false), ("rediss+cluster://", true)] {
        if let Some(rest) = url.strip_prefix(scheme) {
            return Ok(Target {
                infos: read_nodes(rest)?,
                encrypted,
                kind: Kind::Cluster,
            });
        }
    }
    for (scheme, encrypted) in [("redis+sentinel://", false), ("rediss+sentinel://", true)] {
        if let Some(rest) = url.strip_prefix(scheme) {
            let (infos, kind) = read_sentinels(rest)?;
            return Ok(Target {
                infos,
                encrypted,
                kind,
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
        kind: Kind::Server,
    })
}

/// Reads the rest of a cluster's URL: each host stands for a URL of its own with the same
/// credentials.
fn read_nodes(rest: &str) -> Result<Vec<ConnectionInfo>, Error> {
    let (credentials, hosts, tail) = split(rest);
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

/// The parts of a URL behind its scheme: the credentials with their `@`, the hosts, and the rest.
fn split(rest: &str) -> (&str, &str, &str) {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let at = authority.rfind('@').map_or(0, |at| at + 1);
    let (credentials, hosts) = authority.split_at(at);
    (credentials, hosts, tail)
}

/// Reads the rest of a URL of sentinels: `[user:password@]host[:port],…/service[/database]`. The
/// credentials are those of the servers.
fn read_sentinels(rest: &str) -> Result<(Vec<ConnectionInfo>, Kind), Error> {
    let (credentials, hosts, tail) = split(rest);
    let end = tail.find(['?', '#']).unwrap_or(tail.len());
    let (path, query) = tail.split_at(end);
    let path = path.strip_prefix('/').unwrap_or(path);
    let (service, database) = match path.split_once('/') {
        Some((service, database)) => (service, format!("/{database}")),
        None => (path, String::new()),
    };
    if service.is_empty() {
        return Err(invalid(
            "names no service; the name that the sentinels know stands after the hosts: \
             redis+sentinel://s1:26379,s2:26379/service",
        ));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !service.bytes().all(plain) {
        return Err(invalid(
            "has a service that no sentinel can know: its name has letters, digits and `.-_` only",
        ));
    }
    // The parser knows no lists, so each host stands for a URL of its own. The first one also checks
    // what belongs to the servers.
    let sentinel = |host: &str| {
        if host.is_empty() {
            return Err(invalid(FORM));
        }
        let after_address = host.rfind(']').map_or(host, |end| &host[end..]);
        let port = if after_address.contains(':') {
            ""
        } else {
            SENTINEL_PORT
        };
        read_one(&format!(
            "redis://{credentials}{host}{port}{database}{query}"
        ))
    };
    let infos: Vec<ConnectionInfo> = hosts.split(',').map(sentinel).collect::<Result<_, _>>()?;
    let settings = infos.first().ok_or_else(|| invalid(FORM))?;
    let kind = Kind::Sentinels {
        service: service.to_owned(),
        settings: settings.redis_settings().clone(),
    };
    let bare = |info: ConnectionInfo| info.set_redis_settings(RedisConnectionInfo::default());
    Ok((infos.into_iter().map(bare).collect(), kind))
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

/// The host and port of a URL, of a cluster its first node, or the path of its socket; `None` for a
/// URL that is refused, and for sentinels: the server that they name changes.
pub(crate) fn address_of(url: &str) -> Option<(String, Option<u16>)> {
    if url.contains("+sentinel://") {
        return None;
    }
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
        assert!(matches!(target.kind, Kind::Server));
    }

    #[test]
    fn the_url_of_a_cluster_names_some_of_its_nodes() {
        let target = read("redis+cluster://ann:p%2C@h1:7000,[::1]:7001,h3").unwrap();
        assert!(matches!(target.kind, Kind::Cluster) && !target.encrypted);
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

    #[test]
    fn the_url_of_sentinels_names_a_service() {
        let url = "redis+sentinel://ann:p%2C@s1:7000,[::1],s3/my-service.1/3";
        let target = read(url).unwrap();
        let addresses: Vec<String> = target.infos.iter().map(|i| i.addr().to_string()).collect();
        assert_eq!(addresses, ["s1:7000", "::1:26379", "s3:26379"]);
        // The sentinels never see the password of the servers.
        for info in &target.infos {
            assert_eq!(info.redis_settings().password(), None);
            assert_eq!(info.redis_settings().db(), 0);
        }
        let Kind::Sentinels { service, settings } = target.kind else {
            panic!("{:?}", target.kind);
        };
        assert_eq!(service, "my-service.1");
        assert_eq!(settings.username(), Some("ann"));
        assert_eq!((settings.password(), settings.db()), (Some("p,"), 3));
        assert!(read("rediss+sentinel://s1/x").unwrap().encrypted);
        assert_eq!(address_of(url), None);
    }

    #[test]
    fn a_sentinel_url_that_cannot_be_used_is_refused_without_being_quoted() {
        for (url, named) in [
            ("redis+sentinel://:secret@s1", "names no service"),
            ("redis+sentinel://:secret@s1,s2/", "names no service"),
            ("redis+sentinel://s1/secret%20x", "letters, digits"),
            ("redis+sentinel://:secret@s1,,s2/x", "must be"),
            ("redis+sentinel:///x", "must be"),
            ("redis+sentinel://:secret@s1:port/x", "must be"),
            ("redis+sentinel://s1/x/secret", "must be"),
            ("redis+sentinel://:secret@s1/x?db=1", "`?db=`"),
            ("rediss+sentinel://s1/x#secret", "no `#` part"),
            ("redis+sentinel://ann@s1/x", "user without a password"),
        ] {
            let told = refused(url);
            assert!(told.contains(named), "{url}: {told}");
            assert!(!told.contains("secret"), "{url}: {told}");
        }
    }
}
