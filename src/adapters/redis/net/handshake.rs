//! The commands that make a new connection usable, the same for every kind of connection.

use redis::{Cmd, ErrorKind, RedisConnectionInfo, RedisError};

use super::error::{NoConnection, Step};

/// Each command of the handshake, in its order.
pub(super) fn steps(settings: &RedisConnectionInfo, name: &str) -> Vec<(Step, Cmd)> {
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
pub(super) fn failed(
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
