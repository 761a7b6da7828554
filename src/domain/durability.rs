//! What a published message survives.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::duration::parse_duration;
use super::error::{Error, ErrorKind};

/// What a message must survive before its publish counts as done. The guide
/// [durability](crate::docs::durability) has a table of what each level survives.
///
/// As text: `accepted`, `fsynced`, `replicated:1`, `replicated:2:500ms`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Durability {
    /// The server has the message in memory, and on its disk as its `appendfsync` says; the default.
    #[default]
    Accepted,
    /// The server has synced the message to its disk.
    Fsynced,
    /// This number of replicas has the message in memory.
    #[non_exhaustive]
    Replicated {
        /// How many replicas.
        replicas: u32,
        /// How long a publish waits for them.
        timeout: Duration,
    },
}

impl Durability {
    /// The longest wait for replicas.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(4);

    /// The level at which `replicas` replicas have the message within `timeout`: 1 replica at least,
    /// 1 millisecond to [4 seconds](Self::MAX_TIMEOUT). Connecting and publishing check the bounds.
    #[must_use]
    pub const fn replicated(replicas: u32, timeout: Duration) -> Self {
        Self::Replicated { replicas, timeout }
    }

    /// Checks the bounds.
    pub(crate) fn check(self) -> Result<Self, Error> {
        let rule = match self {
            Self::Replicated { replicas: 0, .. } => {
                "level replicated needs one replica at least".to_owned()
            }
            Self::Replicated { timeout, .. }
                if !(Duration::from_millis(1)..=Self::MAX_TIMEOUT).contains(&timeout) =>
            {
                format!("level replicated waits for 1 ms to 4 s, not {timeout:?}")
            }
            _ => return Ok(self),
        };
        Err(Error::new(ErrorKind::Invalid, "durability", rule))
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Fsynced => f.write_str("fsynced"),
            Self::Replicated { replicas, timeout } => {
                write!(f, "replicated:{replicas}:{}ms", timeout.as_millis())
            }
        }
    }
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || {
            let rule = "must be accepted, fsynced, replicated:<replicas> or \
                        replicated:<replicas>:<time>, such as replicated:1:500ms";
            Error::new(ErrorKind::Invalid, "durability", rule)
        };
        let mut parts = text.split(':');
        let level = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("accepted"), None, ..) => Self::Accepted,
            (Some("fsynced"), None, ..) => Self::Fsynced,
            (Some("replicated"), Some(replicas), timeout, None) => {
                let replicas = replicas.parse().map_err(|_| unknown())?;
                let timeout = match timeout {
                    None => Duration::from_secs(1),
                    Some(text) => parse_duration(text).ok_or_else(unknown)?,
                };
                Self::replicated(replicas, timeout)
            }
            _ => return Err(unknown()),
        };
        level.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_from_its_text() {
        for level in [
            Durability::Accepted,
            Durability::Fsynced,
            Durability::replicated(2, Duration::from_millis(500)),
        ] {
            assert_eq!(level.to_string().parse::<Durability>().unwrap(), level);
        }
        let second = Durability::replicated(1, Duration::from_secs(1));
        assert_eq!("replicated:1".parse::<Durability>().unwrap(), second);
        for text in [
            "",
            "synced",
            "accepted:1",
            "replicated",
            "replicated:x",
            "replicated:1:x",
            "replicated:1:1s:1",
        ] {
            let error = text.parse::<Durability>().unwrap_err();
            assert!(
                error.to_string().contains("must be accepted"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn bounds_are_checked() {
        let replicated = |replicas, millis| {
            Durability::replicated(replicas, Duration::from_millis(millis)).check()
        };
        assert!(replicated(1, 1).is_ok() && replicated(9, 4000).is_ok());
        for (replicas, millis) in [(0, 10), (1, 0), (1, 4001)] {
            let error = replicated(replicas, millis).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        assert!("replicated:0".parse::<Durability>().is_err());
    }
}
