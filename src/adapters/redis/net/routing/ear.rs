//! What the doorbell's connection to one node tells, and what it is asked.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::adapters::redis::net::commands::{Answer, Failure, Replies};

/// The connection that hears the keys of a slot; `None` while none does.
pub(in crate::adapters::redis) type HeardBy = Box<dyn Fn(u16) -> Option<Ear> + Send + Sync>;

/// Hears the doorbell.
pub(in crate::adapters::redis) trait Hears:
    fmt::Debug + Send + Sync
{
    /// A key may have changed. The server does not watch it any more.
    fn rang(&self, key: &[u8]);

    /// Which connection hears the keys of each slot from now on. Where it has another number than before,
    /// every key of the slot may have changed, and the server watches none of them.
    fn heard_by(&self, connection: HeardBy);

    /// A server does not let this client listen.
    fn refused(&self, cause: &str);
}

/// Asks the server to watch some keys of one slot.
pub(in crate::adapters::redis) struct Ask {
    pub(in crate::adapters::redis) keys: Vec<Vec<u8>>,
    /// Called with true once the server watches the keys: it tells of the next change of each. Called with false
    /// as long as the server does not, for example while the slot moves; the answer says whether to ask again.
    pub(in crate::adapters::redis) then: Box<dyn Fn(bool) -> bool + Send>,
}

/// Packed commands, and the replies that have come so far.
pub(super) struct Read {
    pub(super) packed: Vec<u8>,
    pub(super) count: usize,
    pub(super) replies: Replies,
    pub(super) caller: oneshot::Sender<Answer>,
}

/// What a connection sends.
pub(super) enum Question {
    Ping,
    Watch(Ask),
    Read(Read),
}

impl Question {
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Read(_))
    }
}

/// A connection that hears.
#[derive(Clone, Debug)]
pub(in crate::adapters::redis) struct Ear {
    number: u64,
    address: Arc<str>,
    questions: mpsc::UnboundedSender<Question>,
}

/// What the connection of an ear is asked.
pub(in crate::adapters::redis) struct Questions {
    pub(super) address: Arc<str>,
    pub(super) coming: mpsc::UnboundedReceiver<Question>,
}

impl Ear {
    /// Makes the two ends of a connection's questions. The ear has no number yet.
    pub(super) fn new(address: &Arc<str>) -> (Self, Questions) {
        let (questions, coming) = mpsc::unbounded_channel();
        let ear = Self {
            number: 0,
            address: Arc::clone(address),
            questions,
        };
        let address = Arc::clone(address);
        (ear, Questions { address, coming })
    }

    /// The same connection under a number.
    pub(super) fn numbered(&self, number: u64) -> Self {
        Self {
            number,
            ..self.clone()
        }
    }

    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.questions.same_channel(&other.questions)
    }

    /// No other connection of this process has had the number. A connection gets another one when nothing
    /// that the server watched for it may be relied on.
    pub(in crate::adapters::redis) fn number(&self) -> u64 {
        self.number
    }

    /// Asks the server to watch keys. If the connection ends before the answer, nobody is called.
    pub(in crate::adapters::redis) fn ask(&self, ask: Ask) {
        let _ = self.questions.send(Question::Watch(ask));
    }

    /// Sends packed commands and waits for the reply to each. The server watches the keys that they read
    /// without a change.
    ///
    /// Dropping the future may come too late to keep the commands from being sent.
    pub(in crate::adapters::redis::net) async fn send(
        &self,
        packed: Vec<u8>,
        count: usize,
    ) -> Answer {
        let (caller, answer) = oneshot::channel();
        let read = Read {
            packed,
            count,
            replies: Replies::with_capacity(count),
            caller,
        };
        if self.questions.send(Question::Read(read)).is_err() {
            return Err(not_sent(&self.address));
        }
        answer
            .await
            .unwrap_or_else(|_| Err(Failure::of_ended_task()))
    }

    /// The same two ends, for tests without a server.
    #[cfg(test)]
    pub(in crate::adapters::redis) fn fake(number: u64) -> (Self, Questions) {
        let (ear, questions) = Self::new(&Arc::from("127.0.0.1:1"));
        (ear.numbered(number), questions)
    }
}

#[cfg(test)]
impl Questions {
    /// The next keys that the server shall watch.
    pub(in crate::adapters::redis) fn next(&mut self) -> Option<Ask> {
        match self.coming.try_recv() {
            Ok(Question::Watch(ask)) => Some(ask),
            _ => None,
        }
    }
}

/// The failure of a caller whose commands came too late for the connection.
pub(super) fn not_sent(address: &Arc<str>) -> Failure {
    let ended = io::Error::from(io::ErrorKind::NotConnected);
    Failure::NotSent(Arc::clone(address), ended.into())
}
