//! The events of a run, as JSON lines in one file. All processes append to it.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Line {
    /// Microseconds since 1970, by the machine's clock: the clock of a process may jump.
    pub(crate) at: u64,
    /// The process and, where it matters, the client in it.
    pub(crate) by: String,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// The outcome of a publish.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fate {
    Ok,
    No,
    Unknown,
}

/// What a handler returned.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    Ack,
    Fail,
    Snooze,
    Reject,
    /// Its delivery was cancelled, and it does not say how the delivery ends.
    GiveBack,
    /// It ends its process.
    Abort,
}

/// A dead letter, as it was found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Letter {
    pub(crate) record: String,
    /// The message, where it could be decoded.
    pub(crate) n: Option<u64>,
    pub(crate) entry: String,
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    /// How many times the message was redriven before.
    pub(crate) redriven: u32,
}

/// A client's operation on a register.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    Get,
    Set(u64),
    CasResult { expected: Option<u64>, new: u64 },
}

/// The reply.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Told {
    Got(Option<u64>),
    Set,
    Swapped(bool),
    No,
    Unknown,
}

/// The outcome of a claim or of a completion.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Claimed {
    Mine,
    Busy,
    /// It was completed under this token.
    Done(u64),
    No,
    Unknown,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A group that must see every message.
    Group {
        topic: String,
        group: String,
        /// Its partitions have owners.
        #[serde(default)]
        owned: bool,
    },
    /// A publish that is about to be sent.
    Publish {
        topic: String,
        n: u64,
    },
    Published {
        topic: String,
        n: u64,
        fate: Fate,
    },
    /// A handler was called.
    Begun {
        topic: String,
        group: String,
        n: u64,
        entry: String,
        consumer: String,
        attempt: u32,
        /// The token of the partition's owner, in an owned group.
        #[serde(default)]
        token: Option<u64>,
    },
    /// A handler is about to return.
    Returned {
        topic: String,
        group: String,
        n: u64,
        consumer: String,
        attempt: u32,
        end: End,
    },
    /// An undecodable entry was added to the log.
    Malformed {
        topic: String,
        entry: String,
    },
    /// An operator listed dead letters with their messages, and found these for the first time.
    Listed {
        topic: String,
        group: String,
        /// When the listing began. A listed dead letter may be gone when this line is written.
        since: u64,
        letters: Vec<Letter>,
    },
    /// A redrive that is about to be sent.
    Redrive {
        topic: String,
        group: String,
        call: u64,
        records: Vec<(String, u64)>,
    },
    /// The records that it moved; `None` when unknown.
    Moved {
        call: u64,
        done: Option<Vec<String>>,
    },
    /// A dead letter that is left at the end.
    DeadLettered {
        topic: String,
        group: String,
        letter: Letter,
    },
    /// A client sends an operation on a register.
    Asked {
        key: String,
        call: u64,
        op: Op,
    },
    Told {
        key: String,
        call: u64,
        told: Told,
    },
    /// The reply to a claim came.
    Claim {
        key: String,
        token: u64,
        claimed: Claimed,
    },
    /// A claim is about to be completed.
    Complete {
        key: String,
        token: u64,
    },
    Completed {
        key: String,
        token: u64,
        claimed: Claimed,
    },
    /// A fault begins. One that `loses_data` loses data by definition.
    Fault {
        name: String,
        loses_data: bool,
        /// The one topic that it can affect; `None` for all of them.
        topic: Option<String>,
    },
    /// The fault ends.
    Healed {
        name: String,
    },
    /// A probe of a log: removed entries that a group has not settled.
    Trimmed {
        topic: String,
        missing: u64,
    },
    /// A message has entered the pipeline.
    Entered {
        n: u64,
    },
    /// A stage of the pipeline at the end: what it has counted, and the messages that it has passed on.
    Stage {
        stage: String,
        count: u64,
        sum: u64,
        /// How many messages replaced the shared value.
        shared: u64,
        passed: Vec<u64>,
    },
    /// The clock of a worker is wrong.
    WrongClock,
    /// The server executed a claim, and the connection broke before its reply.
    ClaimLost,
    /// The server had no memory left when it got the settlement of a failed attempt.
    FullAtRetry,
    Phase {
        name: String,
    },
    /// A group has drained, with the milliseconds since publishing ended.
    Drained {
        topic: String,
        group: String,
        millis: u64,
    },
}

impl Event {
    /// A fault begins that loses no data and can affect every topic.
    pub(crate) fn fault(name: &str) -> Self {
        Self::Fault {
            name: name.to_owned(),
            loses_data: false,
            topic: None,
        }
    }

    pub(crate) fn healed(name: &str) -> Self {
        let name = name.to_owned();
        Self::Healed { name }
    }
}

/// Writes lines. Clones write to the same file, and so do other processes.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    file: Arc<File>,
    path: PathBuf,
    by: String,
}

impl Journal {
    pub(crate) fn open(path: &Path, by: &str) -> Self {
        // One write appends a whole line, which stays after the process dies.
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        Self {
            file: Arc::new(file),
            path: path.to_owned(),
            by: by.to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write(&self, event: Event) {
        self.write_all([event]);
    }

    pub(crate) fn write_all(&self, events: impl IntoIterator<Item = Event>) {
        let at = now();
        let mut text = Vec::new();
        for event in events {
            let by = self.by.clone();
            serde_json::to_writer(&mut text, &Line { at, by, event }).unwrap();
            text.push(b'\n');
        }
        (&*self.file).write_all(&text).unwrap();
    }

    /// Everything that was written, by anyone, in the order of its time.
    pub(crate) fn read(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        let mut lines: Vec<Line> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        lines.sort_by_key(|line| line.at);
        lines
    }
}

pub(crate) fn now() -> u64 {
    // A system call: the shim that sets a worker's clock does not see it.
    let time = clock_gettime(ClockId::Realtime);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1_000_000 + nanos / 1000
}
