//! Which native commands a server has: asked, never guessed from its version.

use std::sync::atomic::{AtomicU8, Ordering};

use redis::{Cmd, RedisError, Value};

use super::socket::Socket;
use crate::adapters::redis::net::error::is_sound;
use crate::domain::{NativeCommand, NativeCommands};

/// The native commands that are switched on, and which of them a server has.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Natives {
    wanted: NativeCommands,
    /// What the server of the last connection has.
    had: AtomicU8,
}

impl Natives {
    pub(in crate::adapters::redis::net) fn new(wanted: NativeCommands) -> Self {
        Self {
            wanted,
            had: AtomicU8::new(0),
        }
    }

    /// Whether a command is switched on and the server has it. `false` before the first connection.
    pub(in crate::adapters::redis::net) fn has(&self, command: NativeCommand) -> bool {
        let had = NativeCommands::from_bits(self.had.load(Ordering::Acquire));
        self.wanted.contains(command) && had.contains(command)
    }

    /// Asks the server of a new connection, if anything is switched on. A server that refuses the question
    /// has none.
    pub(in crate::adapters::redis::net) async fn ask(
        &self,
        socket: &mut Socket,
    ) -> Result<(), RedisError> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let mut answers = Vec::with_capacity(2);
        for question in questions() {
            match socket.exchange(&question).await {
                Ok(answer) => answers.push(redis::parse_redis_value(&answer)?),
                Err(refusal) if is_sound(&refusal) => {}
                Err(failure) => return Err(failure),
            }
        }
        let has = match &answers[..] {
            [info, docs] => found(info, docs),
            _ => NativeCommands::none(),
        };
        // Until here the last server's answer counted: publishes that are packed while a connection breaks
        // again and again are numbered, too.
        self.had.store(has.bits(), Ordering::Release);
        Ok(())
    }
}

/// What to ask a server: one question for the names of commands, and one for their options.
pub(in crate::adapters::redis) fn questions() -> [Cmd; 2] {
    let mut info = redis::cmd("COMMAND");
    // Only servers with this command keep the memory of IDMP when they rewrite their append-only file.
    info.arg("INFO").arg("XIDMPRECORD");
    let mut docs = redis::cmd("COMMAND");
    docs.arg("DOCS").arg("XADD");
    [info, docs]
}

/// The native commands that the answers to the two questions name.
pub(in crate::adapters::redis) fn found(info: &Value, docs: &Value) -> NativeCommands {
    let records = match info {
        Value::Array(rows) => rows.iter().any(|row| !matches!(row, Value::Nil)),
        _ => false,
    };
    if records && has_token(docs, b"IDMP") {
        return NativeCommand::XaddIdmp.into();
    }
    NativeCommands::none()
}

/// Whether documentation names a token anywhere.
fn has_token(docs: &Value, token: &[u8]) -> bool {
    let is = |value: &Value, text: &[u8]| match value {
        Value::BulkString(bytes) => bytes == text,
        Value::SimpleString(held) => held.as_bytes() == text,
        _ => false,
    };
    match docs {
        Value::Array(parts) => {
            let pairs = parts.windows(2);
            let mut tokens = pairs.filter(|pair| is(&pair[0], b"token"));
            tokens.any(|pair| is(&pair[1], token))
                || parts.iter().any(|part| has_token(part, token))
        }
        Value::Map(pairs) => pairs
            .iter()
            .any(|(name, value)| is(name, b"token") && is(value, token) || has_token(value, token)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Value {
        redis::parse_redis_value(text.replace(' ', "\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn a_server_has_a_command_only_if_it_names_it_and_its_option() {
        let known = read("*1 *2 $11 xidmprecord :5 ");
        let unknown = read("*1 *-1 ");
        let nested = read("*2 $4 xadd *2 $9 arguments *1 *4 $4 name $3 any $5 token $4 IDMP ");
        let other = read("*2 $4 xadd *2 $9 arguments *1 *4 $4 name $4 IDMP $5 token $3 any ");
        let one = NativeCommands::from(NativeCommand::XaddIdmp);
        assert_eq!(found(&known, &nested), one);
        for (info, docs) in [
            (&unknown, &nested),
            (&known, &other),
            (&Value::Nil, &Value::Nil),
        ] {
            assert_eq!(found(info, docs), NativeCommands::none());
        }
    }

    #[test]
    fn nothing_is_used_that_is_not_switched_on() {
        for (wanted, has) in [
            (NativeCommands::none(), false),
            (NativeCommands::all(), true),
        ] {
            let natives = Natives::new(wanted);
            assert!(!natives.has(NativeCommand::XaddIdmp), "not asked yet");
            natives
                .had
                .store(NativeCommands::all().bits(), Ordering::Release);
            assert_eq!(natives.has(NativeCommand::XaddIdmp), has);
        }
    }
}
