//! The commands that make a new connection usable, the same for every kind of connection.

use redis::{Cmd, ErrorKind, RedisConnectionInfo, RedisError};

use crate::adapters::redis::net::error::{NoConnection, Step};

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
