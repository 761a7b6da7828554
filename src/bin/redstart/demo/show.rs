//! What the demo tells while it plays, and at the end.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use indicatif::ProgressBar;
use redstart::topics::GroupStatus;
use serde::Serialize;

use super::account::{Account, Sums};
use crate::console::Console;

/// Tells the story: numbered lines, below them a bar.
pub(super) struct Show<'s, 'c> {
    pub(super) console: &'s mut Console<'c>,
    bar: ProgressBar,
    step: u32,
}

/// What the account is told with.
pub(super) struct Circumstances<'a> {
    /// Whether the work was done to its end.
    pub(super) drained: bool,
    pub(super) killed: u64,
    pub(super) publishing: Duration,
    pub(super) handling: Duration,
    pub(super) adapter: &'a str,
    pub(super) namespace: &'a str,
}

/// The account for programs.
#[derive(Serialize)]
struct Told<'a> {
    published: u64,
    handled: u64,
    dead: u64,
    duplicates: u64,
    lost: u64,
    retries: u64,
    workers_killed: u64,
    seconds: f64,
    messages_per_second: u64,
    adapter: &'a str,
    namespace: &'a str,
    adds_up: bool,
}

impl<'s, 'c> Show<'s, 'c> {
    pub(super) fn new(console: &'s mut Console<'c>, messages: u64) -> Self {
        let bar = console.progress(Some(messages), "   {bar:30} {pos}/{len}  {msg}");
        Self {
            console,
            bar,
            step: 0,
        }
    }

    /// The next step of the story; nothing where the output is for programs.
    pub(super) fn tell(&mut self, text: impl Display) -> io::Result<()> {
        if self.console.is_json() {
            return Ok(());
        }
        self.step += 1;
        let (step, console) = (self.step, &mut *self.console);
        self.bar.suspend(|| {
            console.line(format_args!("{step}. {text}"))?;
            console.flush()
        })
    }

    /// A remark on the error output.
    pub(super) fn remark(&mut self, text: impl Display) {
        let console = &mut *self.console;
        self.bar.suspend(|| console.remark(text));
    }

    pub(super) fn progress(&self, account: &Account, status: Option<&GroupStatus>, alive: usize) {
        self.bar.set_position(account.distinct());
        let (mut waiting, mut dead) = (String::new(), 0);
        if let Some(status) = status {
            waiting = format!("lag {}, in-flight {}, ", status.lag, status.in_flight);
            dead = status.dead;
        }
        let retries = account.retries();
        self.bar.set_message(format!(
            "{waiting}retries {retries}, dead {dead}, workers {alive}"
        ));
    }

    pub(super) fn stop_progress(&self) {
        self.bar.finish_and_clear();
    }

    /// The account at the end.
    pub(super) fn account(&mut self, sums: &Sums, of: &Circumstances<'_>) -> io::Result<()> {
        self.stop_progress();
        let seconds = of.handling.as_secs_f64();
        let rate = rate(sums.handled, of.handling);
        if self.console.is_json() {
            return self.console.json(&Told {
                published: sums.published,
                handled: sums.handled,
                dead: sums.dead,
                duplicates: sums.duplicates,
                lost: sums.lost,
                retries: sums.retries,
                workers_killed: of.killed,
                seconds: (seconds * 1000.0).round() / 1000.0,
                messages_per_second: rate,
                adapter: of.adapter,
                namespace: of.namespace,
                adds_up: sums.adds_up(),
            });
        }
        let row =
            |name: &str, value: String, note: &str| vec![name.to_owned(), value, note.to_owned()];
        let publishing = format!("{} messages/s", self::rate(sums.published, of.publishing));
        let handling = format!("{rate} messages/s, including the wait for the lease");
        let lost = if of.drained {
            "published - handled - dead"
        } else {
            "not handled yet when the demo gave up"
        };
        let rows = [
            row("published", sums.published.to_string(), &publishing),
            row("handled", sums.handled.to_string(), "each at least once"),
            row(
                "dead letters",
                sums.dead.to_string(),
                "every attempt failed",
            ),
            row(
                "duplicates",
                sums.duplicates.to_string(),
                if sums.duplicates > 0 {
                    "handled again: the kill came before the acknowledgement"
                } else {
                    ""
                },
            ),
            row("lost", sums.lost.to_string(), lost),
            row(
                "retries",
                sums.retries.to_string(),
                "failed attempts that were tried again",
            ),
            row("workers killed", of.killed.to_string(), ""),
            row("time", format!("{seconds:.1} s"), &handling),
            row("adapter", of.adapter.to_owned(), ""),
        ];
        self.console.line("")?;
        self.console.table(&[], &rows, 1..2)
    }

    /// What is said after the account; nothing where the output is for programs.
    pub(super) fn epilogue(&mut self, lines: &[String]) -> io::Result<()> {
        if self.console.is_json() {
            return Ok(());
        }
        self.console.line("")?;
        lines.iter().try_for_each(|line| self.console.line(line))
    }
}

/// Per second, rounded.
fn rate(count: u64, time: Duration) -> u64 {
    let seconds = time.as_secs_f64().max(0.001);
    (count as f64 / seconds).round() as u64
}
