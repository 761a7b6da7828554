//! What a URL does not say of a connection.

use std::fmt;

use redis::RedisConnectionInfo;

use super::tls::TlsSettings;
use crate::domain::{Error, ErrorKind, NativeCommands};

/// The settings of connections beside the URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub(crate) tls: TlsSettings,
    pub(crate) sentinel: SentinelLogin,
    /// The native commands that are switched on.
    pub(crate) native: NativeCommands,
}

impl Access {
    /// TLS settings alone.
    pub(crate) fn by(tls: &TlsSettings) -> Self {
        Self {
            tls: tls.clone(),
            ..Self::default()
        }
    }
}

/// The log-in at sentinels. It has nothing to do with that at the servers.
#[derive(Clone, Default, Eq, PartialEq)]
pub(crate) struct SentinelLogin {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

impl fmt::Debug for SentinelLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentinelLogin")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl SentinelLogin {
    /// Whether nothing is set.
    pub(in crate::adapters::redis::net) fn is_empty(&self) -> bool {
        self.user.is_none() && self.password.is_none()
    }

    pub(in crate::adapters::redis::net) fn settings(&self) -> Result<RedisConnectionInfo, Error> {
        let settings = RedisConnectionInfo::default();
        match (&self.user, &self.password) {
            (None, None) => Ok(settings),
            (None, Some(password)) => Ok(settings.set_password(password)),
            (Some(user), Some(password)) => Ok(settings.set_username(user).set_password(password)),
            (Some(_), None) => Err(invalid("have a user without a password")),
        }
    }
}

/// The error of a log-in that breaks a rule.
pub(in crate::adapters::redis::net) fn invalid(rule: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        "sentinels",
        format!("the settings {rule}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_does_not_show_its_password() {
        let login = SentinelLogin {
            user: Some("ann".to_owned()),
            password: Some("canary".to_owned()),
        };
        let access = Access {
            sentinel: login.clone(),
            ..Access::default()
        };
        assert!(!format!("{access:?}").contains("canary"));
        let settings = login.settings().unwrap();
        assert_eq!(settings.username(), Some("ann"));
        assert_eq!(settings.password(), Some("canary"));
    }

    #[test]
    fn a_user_needs_a_password() {
        let login = SentinelLogin {
            user: Some("ann".to_owned()),
            password: None,
        };
        let error = login.settings().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error.to_string().contains("user without a password"),
            "{error}"
        );
    }
}
