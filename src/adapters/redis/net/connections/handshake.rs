//! The commands that make a new connection usable, the same for every kind of connection.

use redis::{Cmd, ErrorKind, RedisConnectionInfo, RedisError};

use crate::adapters::redis::net::error::{self, NoConnection, Step};
use crate::adapters::redis::resp::reply;

/// Each command of the handshake, in its order.
pub(in crate::adapters::redis::net) fn steps(
    settings: &RedisConnectionInfo,
    name: &str,
) -> Vec<(Step, Cmd)> {
    let mut steps = Vec::with_capacity(3);
    if let Some(password) = settings.password() {
        let mut command = redis::cmd("AUTH");
        if let Some(user) = settings.username() {
            command.arg(user);
        }
        command.arg(password);
        steps.push((Step::LogIn, command));
    }
    if settings.db() != 0 {
        let mut command = redis::cmd("SELECT");
        command.arg(settings.db());
        steps.push((Step::Database(settings.db()), command));
    }
    let mut command = redis::cmd("CLIENT");
    command.arg("SETNAME").arg(name);
    steps.push((Step::Introduce, command));
    steps
}

/// Whether the reply of ROLE is a primary's. A replica counts as not ready: sentinels name it while they
/// make it the primary, and name a former primary until they detect the failover.
pub(in crate::adapters::redis::net) fn is_primary(role: &[u8]) -> Result<(), RedisError> {
    let reply = redis::parse_redis_value(role)?;
    let name = reply::array(reply)?.into_iter().next();
    let name = name.ok_or_else(|| reply::unexpected("ROLE"))?;
    match &*reply::text(name)? {
        "master" => Ok(()),
        "slave" => Err(error::server_error(
            "READONLY the server that the sentinels name is a replica",
        )),
        _ => Err(reply::unexpected("ROLE")),
    }
}

/// The failure of a step. A cause that repeats the password is left out: a server that does not know
/// AUTH answers with the arguments it was sent.
pub(in crate::adapters::redis::net) fn failed(
    step: Step,
    cause: RedisError,
    settings: &RedisConnectionInfo,
) -> NoConnection {
    let repeats = |password: &str| format!("{cause} {cause:?}").contains(password);
    if step == Step::LogIn && settings.password().is_some_and(repeats) {
        let cause = (ErrorKind::AuthenticationFailed, "the server refused AUTH").into();
        return NoConnection { step, cause };
    }
    NoConnection { step, cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::IntoConnectionInfo as _;

    fn settings(url: &str) -> RedisConnectionInfo {
        let info = url.into_connection_info().unwrap();
        info.redis_settings().clone()
    }

    fn sent(url: &str) -> Vec<(Step, String)> {
        steps(&settings(url), "name")
            .into_iter()
            .map(|(step, command)| {
                let packed = String::from_utf8(command.get_packed_command()).unwrap();
                // Every second line is the length of the next one.
                let words: Vec<&str> = packed.lines().skip(2).step_by(2).collect();
                (step, words.join(" "))
            })
            .collect()
    }

    #[test]
    fn the_handshake_sends_only_the_steps_that_the_url_needs() {
        let introduce = (Step::Introduce, "CLIENT SETNAME name".to_owned());
        assert_eq!(sent("redis://h"), std::slice::from_ref(&introduce));
        let all = [
            (Step::LogIn, "AUTH ann secret".to_owned()),
            (Step::Database(3), "SELECT 3".to_owned()),
            introduce,
        ];
        assert_eq!(sent("redis://ann:secret@h/3"), all);
        let first = (Step::LogIn, "AUTH secret".to_owned());
        assert_eq!(sent("redis://:secret@h")[0], first);
    }

    #[test]
    fn only_a_primary_passes_for_one() {
        assert!(is_primary(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n").is_ok());
        let replica = b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:0\r\n";
        let cause = is_primary(replica).unwrap_err();
        let step = Step::Introduce;
        assert!(NoConnection { step, cause }.is_passing(), "ask again");
        assert!(is_primary(b"*2\r\n$8\r\nsentinel\r\n*0\r\n").is_err());
        assert!(is_primary(b":1\r\n").is_err());
    }

    #[test]
    fn a_cause_that_repeats_the_password_is_left_out() {
        let settings = settings("redis://ann:secret@h");
        let cause = |detail: &str| (ErrorKind::Client, "ERR", detail.to_owned()).into();
        let shown = |detail| {
            let NoConnection { step, cause } = failed(Step::LogIn, cause(detail), &settings);
            assert_eq!(step, Step::LogIn);
            format!("{cause} {cause:?}")
        };
        assert!(!shown("unknown command 'AUTH', args: 'ann' 'secret'").contains("secret"));
        assert!(shown("invalid username-password pair").contains("invalid username"));
    }
}
