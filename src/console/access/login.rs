//! Log-in of the console's own server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::Access;
use super::attempts::Attempts;
use super::proxy::ProxyLogin;
use super::users::Users;
use crate::console::failure::Failure;
use crate::domain::{Error, ErrorKind};

/// How visitors of a [`ConsoleServer`](crate::console::ConsoleServer) say who they are.
#[must_use]
pub struct Login {
    kind: Kind,
    hosts: Vec<String>,
}

enum Kind {
    Local(String),
    Users(Users, Attempts),
    Proxy(ProxyLogin),
}

impl Login {
    /// No log-in: every visitor is an operator with this name; empty where nobody knows it. The server
    /// then listens on this machine only.
    pub fn local(name: impl Into<String>) -> Self {
        Self::of(Kind::Local(name.into()))
    }

    /// HTTP's basic log-in with the users of a file.
    ///
    /// A line is `name:role:hash` with the role `operator` or `viewer` and a hash of
    /// [`hash_password`](crate::console::hash_password), or `name:role:bearer:sha256` for a program with
    /// a token. Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a wrong line, by its number, and for a file without users.
    pub fn users(file: &str) -> Result<Self, Error> {
        Ok(Self::of(Kind::Users(
            Users::parse(file)?,
            Attempts::default(),
        )))
    }

    /// Log-in by a proxy.
    pub fn proxy(proxy: ProxyLogin) -> Self {
        Self::of(Kind::Proxy(proxy))
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            hosts: Vec::new(),
        }
    }

    /// Adds a host name by which visitors of a server without log-in may address it. The names of
    /// this machine's loopback are always allowed.
    pub fn with_allowed_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// What the server's first line says about the log-in.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Local(_) => "no log-in: this machine only",
            Kind::Users(..) => "log-in by users file",
            Kind::Proxy(_) => "log-in by proxy",
        }
    }

    /// Refuses to listen openly without a log-in.
    pub(in crate::console) fn check(&self, address: SocketAddr) -> Result<(), Error> {
        if !matches!(self.kind, Kind::Local(_)) || address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let rule = format!(
            "{address} can be reached from other machines and nobody would have to log in; set \
             --users-file or --user-header, or listen on 127.0.0.1"
        );
        Err(Error::new(ErrorKind::Invalid, "console", rule))
    }

    /// Who sends a request.
    pub(in crate::console) async fn access(
        &self,
        parts: &Parts,
        peer: IpAddr,
    ) -> Result<Access, Failure> {
        match &self.kind {
            Kind::Local(name) => self.local_access(parts, name),
            Kind::Proxy(proxy) => proxy.access(parts, peer),
            Kind::Users(users, attempts) => by_users(users, attempts, parts, peer).await,
        }
    }

    /// A page of another site can make a browser resolve that site's name to this machine. Such a
    /// request has the other site's name as its host.
    fn local_access(&self, parts: &Parts, name: &str) -> Result<Access, Failure> {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = without_port(host.unwrap_or_default());
        let known = ["localhost", "127.0.0.1", "[::1]"].into_iter();
        let mut known = known.chain(self.hosts.iter().map(String::as_str));
        if known.any(|known| known.eq_ignore_ascii_case(host)) {
            return Ok(Access::Operator(name.to_owned()));
        }
        let rule = "the console does not know itself by this host name; --allowed-host adds one";
        Err(Failure::new(StatusCode::FORBIDDEN, rule))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Login").field(&self.describe()).finish()
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

async fn by_users(
    users: &Users,
    attempts: &Attempts,
    parts: &Parts,
    peer: IpAddr,
) -> Result<Access, Failure> {
    let header = parts.headers.get(AUTHORIZATION);
    let Some((scheme, secret)) = header
        .and_then(|header| header.to_str().ok())
        .and_then(|header| header.split_once(' '))
    else {
        return Err(unknown("log in to see this console"));
    };
    // A browser adds a password to requests by itself, but never a token.
    let is_api = parts.uri.path().contains("/api/v1/");
    if is_api && !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unknown("the API takes a bearer token"));
    }
    let pair = match scheme.eq_ignore_ascii_case("basic") {
        true => STANDARD.decode(secret.trim()).ok(),
        false => None,
    };
    let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
    // Tokens and known passwords come first: behind a proxy all visitors have one address, and the
    // guesses of one must not lock out the others.
    let found = match pair.as_ref().and_then(|pair| pair.split_once(':')) {
        Some((name, password)) => users.of_password(name, password, attempts, peer).await,
        None => {
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            match users.of_token(secret.trim()).filter(|_| is_bearer) {
                Some(access) => Ok(Some(access)),
                None => attempts.begin(peer, Instant::now()).map(|_| None),
            }
        }
    };
    match found {
        Ok(Some(access)) => Ok(access),
        Ok(None) => {
            tracing::warn!(%peer, "a log-in to the console failed");
            Err(unknown("the name or the password is wrong"))
        }
        Err(left) => {
            let message = "too many wrong passwords from this address; wait a minute";
            let mut failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, message);
            failure.retry_after = Some(left);
            Err(failure)
        }
    }
}

fn unknown(message: &str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, message)
}

/// What a browser needs to ask for a name and a password.
pub(in crate::console) const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"Redstart\", charset=\"UTF-8\"");

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_server_without_log_in_listens_on_this_machine_only() {
        let check = |login: &Login, address: &str| login.check(address.parse().unwrap());
        let local = Login::local("ann");
        for address in [
            "127.0.0.1:1",
            "[::1]:1",
            "127.9.9.9:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(check(&local, address).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:8087", "[::]:1", "10.0.0.1:1"] {
            let told = check(&local, address).unwrap_err().to_string();
            assert!(told.contains("nobody would have to log in"), "{told}");
        }
        let proxy = ProxyLogin::new("x-user", ["10.0.0.1"]).unwrap();
        assert!(check(&Login::proxy(proxy), "0.0.0.0:1").is_ok());
    }

    #[tokio::test]
    async fn without_log_in_the_host_must_be_this_machine() {
        let login = Login::local("ann").with_allowed_host("ops.test");
        for (host, allowed) in [
            ("localhost:8087", true),
            ("127.0.0.1", true),
            ("[::1]:8087", true),
            ("[::1]", true),
            ("OPS.test:1", true),
            ("evil.test", false),
            ("localhost.evil.test", false),
            ("", false),
        ] {
            let access = login.access(&request(&[("host", host)]), PEER).await;
            assert_eq!(access.is_ok(), allowed, "{host}");
        }
    }

    #[tokio::test]
    async fn a_wrong_password_is_refused_and_the_sixth_has_to_wait() {
        let hash = crate::console::hash_password("p:q").unwrap();
        let login = Login::users(&format!("ann:operator:{hash}")).unwrap();
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let right = basic("ann:p:q");
        let access = login
            .access(&request(&[("authorization", &right)]), PEER)
            .await;
        assert_eq!(access.unwrap(), Access::Operator("ann".into()));
        let none = login.access(&request(&[]), PEER).await.unwrap_err();
        assert_eq!(none.status, StatusCode::UNAUTHORIZED);
        for wrong in [
            "Basic !",
            "Basic YQ==",
            "Digest x",
            &basic("ann:p"),
            "Bearer x",
        ] {
            let failed = login
                .access(&request(&[("authorization", wrong)]), PEER)
                .await;
            assert_eq!(
                failed.unwrap_err().status,
                StatusCode::UNAUTHORIZED,
                "{wrong}"
            );
        }
        let guess = basic("ann:q");
        for wrong in [&guess, "Bearer x"] {
            let failed = login
                .access(&request(&[("authorization", wrong)]), PEER)
                .await;
            assert_eq!(failed.unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
        }
        // All visitors of a proxy have its address: known passwords pass whatever others guess.
        let access = login
            .access(&request(&[("authorization", &right)]), PEER)
            .await;
        assert!(access.is_ok());
        let other = "10.0.0.9".parse().unwrap();
        let access = login
            .access(&request(&[("authorization", &right)]), other)
            .await;
        assert!(access.is_ok());
    }
}
