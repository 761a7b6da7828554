//! The commands of one caller, and their answers.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use redis::RedisError;
use tokio::sync::oneshot;

use super::error::{self, NoConnection};
use super::numbers::Numbers;
use crate::adapters::redis::resp::{Scan, pack};
use crate::domain::{Error, ErrorKind};

/// The raw reply to each command, or the error that the server answered.
pub(in crate::adapters::redis) type Replies = Vec<Result<Bytes, RedisError>>;

/// Why a caller gets no replies.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was sent to the server at this address.
    NotSent(Arc<str>, NoConnection),
    /// At least a part was sent.
    Unknown(RedisError),
}

impl Failure {
    pub(super) fn into_error(self, operation: &'static str) -> Error {
        match self {
            Self::NotSent(address, failure) => error::no_connection(operation, &address, failure),
            Self::Unknown(cause) => error::sent(operation, cause),
        }
    }

    /// Whether the same call may succeed later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::NotSent(_, cause) => cause.is_passing(),
            Self::Unknown(cause) => matches!(
                error::sent("connect", cause.clone()).kind(),
                ErrorKind::Unavailable | ErrorKind::OutcomeUnknown
            ),
        }
    }

    /// The failure of a caller whose task has ended without an answer.
    pub(super) fn of_ended_task() -> Self {
        Self::Unknown(io::Error::from(io::ErrorKind::BrokenPipe).into())
    }
}

/// What a caller waits for.
pub(super) type Answer = Result<Replies, Failure>;

/// The commands of one caller, all of one slot.
#[derive(Debug)]
pub(super) struct Commands {
    /// The slot, if the commands return to the link's [`TakesBack`] when they were not done.
    pub(super) slot: Option<u16>,
    /// The call of the publisher. Its commands keep their order or fail.
    pub(super) call: u64,
    pub(super) packed: Vec<u8>,
    pub(super) count: usize,
    /// The numbers by which a server adds the messages only once, also if they are sent again. `None` for
    /// commands without numbers, which are not sent again after an unknown outcome.
    pub(super) numbers: Option<Box<Numbers>>,
    pub(super) caller: oneshot::Sender<Answer>,
}

impl Commands {
    /// Whether the commands may be sent again although they may have been done.
    pub(super) fn may_repeat(&self) -> bool {
        let numbers = self.numbers.as_ref();
        numbers.is_some_and(|numbers| numbers.are_remembered())
    }
}

/// The answers to commands of which an earlier attempt may have been done: where this one was not, the
/// outcome stays unknown.
pub(super) fn still_unsure(replies: Replies, earlier: &RedisError) -> Replies {
    let replies = replies.into_iter();
    let judged = replies.map(|one| one.map_err(|later| unsure_again(earlier, &later)));
    judged.collect()
}

/// The failure of a connection that may have done a command which then failed again.
pub(super) fn unsure_again(earlier: &RedisError, later: &dyn fmt::Display) -> RedisError {
    let text = format!("{earlier}; then, when the message was sent again: {later}");
    io::Error::new(io::ErrorKind::ConnectionAborted, text).into()
}

/// Packed commands, each behind an ASKING, which holds for one command only.
pub(super) fn asking_each(commands: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(2 * commands.len());
    let mut rest = commands;
    while let Ok(Some(length)) = Scan::new().advance(rest) {
        pack(&mut packed, &[b"ASKING"]);
        packed.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
    packed
}

/// Takes commands that were not done, to repeat them later or on another server.
///
/// The link hands them over in the order in which they were sent, and before it answers anything
/// that was sent after them.
pub(super) trait TakesBack: fmt::Debug + Send + Sync {
    /// Takes commands that the server at `address` has not done, or has not done completely. `answer`
    /// is the caller's answer if they are not repeated.
    fn take_back(&self, address: &Arc<str>, commands: Commands, answer: Answer);

    /// Takes commands that were never sent, behind those of their slot that were handed over before.
    fn take_back_unsent(&self, address: &Arc<str>, commands: Commands);

    /// Says that the server has been silent for a while, or has broken the connection.
    fn silent(&self);

    /// Says that the server has done younger commands of a call: the older ones that it gave back are
    /// too late.
    fn overtaken(&self, slot: u16, call: u64);
}
