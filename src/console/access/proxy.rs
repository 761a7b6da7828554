//! Log-in by a proxy in front of the console, which names the visitor in a header.

use std::net::IpAddr;
use std::str::FromStr;

use http::request::Parts;
use http::{HeaderName, StatusCode};

use super::Access;
use crate::console::failure::Failure;
use crate::domain::{Error, ErrorKind};

/// Which headers a proxy sets, and from where the console believes them.
#[derive(Clone, Debug)]
#[must_use]
pub struct ProxyLogin {
    user: HeaderName,
    groups: Option<HeaderName>,
    operators: Option<String>,
    trusted: Vec<Network>,
}

impl ProxyLogin {
    /// Believes `header` from addresses in `trusted`, such as `10.0.0.0/8` or `::1`. Every visitor is
    /// a viewer, unless [`with_operators`](Self::with_operators) says otherwise.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a header that cannot exist, for a wrong network, and
    /// without any network.
    pub fn new<T: AsRef<str>>(
        header: &str,
        trusted: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let trusted = trusted.into_iter().map(|one| one.as_ref().parse());
        let trusted = trusted.collect::<Result<Vec<Network>, Error>>()?;
        if trusted.is_empty() {
            let rule = "needs the proxy's address: anybody could set the header";
            return Err(Error::new(ErrorKind::Invalid, "trusted proxy", rule));
        }
        Ok(Self {
            user: name(header)?,
            groups: None,
            operators: None,
            trusted,
        })
    }

    /// Makes visitors operators whose groups, separated by commas in `header`, include `group`.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a header that cannot exist, or an empty group.
    pub fn with_operators(mut self, header: &str, group: &str) -> Result<Self, Error> {
        if group.trim().is_empty() || group.contains(',') {
            let rule = "must be a name without commas";
            return Err(Error::new(ErrorKind::Invalid, "operator group", rule));
        }
        self.groups = Some(name(header)?);
        self.operators = Some(group.trim().to_owned());
        Ok(self)
    }

    pub(super) fn access(&self, parts: &Parts, peer: IpAddr) -> Result<Access, Failure> {
        let refused = |rule: &str| Err(Failure::new(StatusCode::FORBIDDEN, rule));
        if !self.trusted.iter().any(|network| network.has(peer)) {
            return refused("this address may not say who a visitor is; come through the proxy");
        }
        let mut names = parts.headers.get_all(&self.user).iter();
        let (Some(user), None) = (names.next(), names.next()) else {
            return refused("the proxy must name the visitor once");
        };
        let user = user.to_str().unwrap_or_default().trim();
        if user.is_empty() || user.len() > 200 {
            return refused("the proxy named no visitor");
        }
        let groups = self
            .groups
            .iter()
            .flat_map(|name| parts.headers.get_all(name));
        let mut groups = groups
            .filter_map(|value| value.to_str().ok())
            .flat_map(|one| one.split(','));
        let is_operator = self
            .operators
            .as_ref()
            .is_some_and(|operators| groups.any(|group| group.trim() == operators));
        Ok(match is_operator {
            true => Access::Operator(user.to_owned()),
            false => Access::Viewer(user.to_owned()),
        })
    }
}

fn name(header: &str) -> Result<HeaderName, Error> {
    header.parse().map_err(|_| {
        Error::new(ErrorKind::Invalid, "header", "must be a name of a header").on(header.to_owned())
    })
}

/// Addresses with a common beginning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.bits))
                    .unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            let rule = "must be an address or a network, such as 10.0.0.5 or 10.0.0.0/8";
            Error::new(ErrorKind::Invalid, "trusted proxy", rule).on(text.to_owned())
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_the_proxy_says_who_a_visitor_is() {
        let login = ProxyLogin::new("X-Forwarded-User", ["10.1.0.0/16", "::1"])
            .unwrap()
            .with_operators("X-Forwarded-Groups", "ops")
            .unwrap();
        let ann = parts(&[
            ("x-forwarded-user", "ann"),
            ("x-forwarded-groups", "dev, ops"),
        ]);
        let bob = parts(&[("x-forwarded-user", "bob"), ("x-forwarded-groups", "oops")]);
        let access = |parts: &Parts, peer: &str| login.access(parts, peer.parse().unwrap());
        assert_eq!(
            access(&ann, "10.1.2.3").unwrap(),
            Access::Operator("ann".into())
        );
        assert_eq!(
            access(&ann, "::ffff:10.1.2.3").unwrap(),
            Access::Operator("ann".into())
        );
        assert_eq!(access(&bob, "::1").unwrap(), Access::Viewer("bob".into()));
        for (parts, peer) in [
            (&ann, "10.2.0.1"),
            (&ann, "::2"),
            (&parts(&[]), "::1"),
            (&parts(&[("x-forwarded-user", "")]), "::1"),
            (
                &parts(&[("x-forwarded-user", "a"), ("x-forwarded-user", "b")]),
                "::1",
            ),
        ] {
            assert!(access(parts, peer).is_err(), "{peer}");
        }
    }

    #[test]
    fn networks_are_checked() {
        for bad in ["10.0.0.0/33", "::/129", "ten", "10.0.0.0/x", ""] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.has("203.0.113.9".parse().unwrap()));
        assert!(ProxyLogin::new("x", Vec::<String>::new()).is_err());
        assert!(ProxyLogin::new("a b", ["::1"]).is_err());
    }
}
