//! Answers that say that the server certainly did not run a command.

use redis::{RedisError, ServerError};

/// Where the server says that a key is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Address {
    /// `None` means the host that was asked.
    pub(super) host: Option<String>,
    pub(super) port: u16,
}

impl Address {
    pub(super) fn new(host: &str, port: u16) -> Self {
        let known = !matches!(host, "" | "?");
        Self {
            host: known.then(|| host.to_owned()),
            port,
        }
    }

    /// Reads `host:port`. The colons of an IPv6 address belong to the host.
    fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self::new(host, port.parse().ok()?))
    }
}

/// Why a command was certainly not done, and where or when to repeat it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Undone {
    /// Another node holds the slot.
    Moved { slot: u16, to: Address },
    /// Another node answers for this key while the slot moves.
    Ask { to: Address },
    /// The server does not serve the key now.
    NotReady,
    /// There was no connection to the server.
    Unreachable,
}

/// What a server says of a script that names a key of a moving slot.
const NOT_LOCAL: &str = "attempted to access a non local key";

/// What an error says of the command that failed; for a pipeline, of its first one. `None` when the
/// command may have been done, or when a repeat would not help.
pub(super) fn undone(error: &RedisError) -> Option<Undone> {
    let errors = error.clone().into_server_errors()?;
    of_server(&errors.first()?.1)
}

/// What an answer of the server says of its command.
pub(super) fn of_server(error: &ServerError) -> Option<Undone> {
    let words = || error.details().unwrap_or_default().split_ascii_whitespace();
    Some(match error.code() {
        "MOVED" => Undone::Moved {
            slot: words().next()?.parse().ok()?,
            to: Address::read(words().nth(1)?)?,
        },
        "ASK" => Undone::Ask {
            to: Address::read(words().nth(1)?)?,
        },
        "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "READONLY" | "NOREPLICAS" => {
            Undone::NotReady
        }
        // `trim.lua` and `prune_consumers.lua` name keys that their calls do not, and a repeat of them
        // does no harm.
        _ if error.details().is_some_and(|text| text.contains(NOT_LOCAL)) => Undone::NotReady,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) {
            Ok(redis::Value::ServerError(error)) => error.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_answer_of_a_command_that_was_not_done_is_known() {
        let address = |host, port| Address::new(host, port);
        for (text, expected) in [
            (
                "MOVED 3999 127.0.0.1:6381",
                Some(Undone::Moved {
                    slot: 3999,
                    to: address("127.0.0.1", 6381),
                }),
            ),
            (
                "MOVED 3999 ::1:6381",
                Some(Undone::Moved {
                    slot: 3999,
                    to: address("::1", 6381),
                }),
            ),
            (
                "ASK 3999 :6381",
                Some(Undone::Ask {
                    to: address("", 6381),
                }),
            ),
            (
                "ASK 3999 ?:6381",
                Some(Undone::Ask {
                    to: address("", 6381),
                }),
            ),
            ("TRYAGAIN Multiple keys request", Some(Undone::NotReady)),
            ("CLUSTERDOWN Hash slot not served", Some(Undone::NotReady)),
            ("LOADING Redis is loading", Some(Undone::NotReady)),
            (
                "MASTERDOWN Link with MASTER is down",
                Some(Undone::NotReady),
            ),
            ("READONLY You can't write", Some(Undone::NotReady)),
            (
                "NOREPLICAS Not enough good replicas",
                Some(Undone::NotReady),
            ),
            (
                "ERR Script attempted to access a non local key in a cluster node script: 00ff",
                Some(Undone::NotReady),
            ),
            ("OOM command not allowed", None),
            ("NOGROUP No such key", None),
            ("CROSSSLOT Keys in request", None),
            ("MOVED nonsense", None),
            ("MOVED 1 nonsense", None),
        ] {
            assert_eq!(undone(&reply(text)), expected, "{text}");
        }
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(undone(&broken.into()), None, "it may have been done");
    }
}
