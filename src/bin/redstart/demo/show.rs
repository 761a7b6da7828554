//! The output of the demo: its story and its account.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use indicatif::ProgressBar;
use redstart::topics::GroupStatus;
use serde::Serialize;

use super::account::{Account, Sums};
use crate::terminal::Terminal;

/// Writes the story: numbered lines above a progress bar.
pub(super) struct Show<'s, 'c> {
    pub(super) terminal: &'s mut Terminal<'c>,
    bar: ProgressBar,
    step: u32,
}

/// The circumstances of the account.
pub(super) struct Circumstances<'a> {
    /// Whether the workers did all the work.
    pub(super) drained: bool,
    pub(super) killed: u64,
    /// The primaries that were killed; `None` without a private cluster.
    pub(super) primaries_killed: Option<u64>,
    pub(super) publishing: Duration,
    pub(super) handling: Duration,
    pub(super) adapter: &'a str,
    pub(super) namespace: &'a str,
}

/// The account as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DemoReport<'a> {
    published: u64,
    handled: u64,
    dead: u64,
    duplicates: u64,
    lost: u64,
    retries: u64,
    workers_killed: u64,
    primaries_killed: u64,
    seconds: f64,
    messages_per_second: u64,
    adapter: &'a str,
    namespace: &'a str,
    adds_up: bool,
}

impl<'s, 'c> Show<'s, 'c> {
    pub(super) fn new(terminal: &'s mut Terminal<'c>, messages: u64) -> Self {
        let bar = terminal.progress(Some(messages), "   {bar:30} {pos}/{len}  {msg}");
        Self {
            terminal,
            bar,
            step: 0,
        }
    }

    /// Writes the next step of the story; nothing with --json.
    pub(super) fn tell(&mut self, text: impl Display) -> io::Result<()> {
        if self.terminal.is_json() {
            return Ok(());
        }
        self.step += 1;
        let (step, terminal) = (self.step, &mut *self.terminal);
        self.bar.suspend(|| {
            terminal.line(format_args!("{step}. {text}"))?;
            terminal.flush()
        })
    }

    /// Writes a remark to the error output.
    pub(super) fn remark(&mut self, text: impl Display) {
        let terminal = &mut *self.terminal;
        self.bar.suspend(|| terminal.remark(text));
    }

    pub(super) fn progress(&self, account: &Account, status: Option<&GroupStatus>, alive: usize) {
        self.bar.set_position(account.distinct());
        let (mut waiting, mut dead) = (String::new(), 0);
        if let Some(status) = status {
            waiting = format!("lag {}, in flight {}, ", status.lag, status.in_flight);
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

    /// Writes the account at the end.
    pub(super) fn account(&mut self, sums: &Sums, of: &Circumstances<'_>) -> io::Result<()> {
        self.stop_progress();
        let seconds = of.handling.as_secs_f64();
        let rate = rate(sums.handled, of.handling);
        if self.terminal.is_json() {
            return self.terminal.json(&DemoReport {
                published: sums.published,
                handled: sums.handled,
                dead: sums.dead,
                duplicates: sums.duplicates,
                lost: sums.lost,
                retries: sums.retries,
                workers_killed: of.killed,
                primaries_killed: of.primaries_killed.unwrap_or(0),
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
            "not yet handled when the demo gave up"
        };
        let mut rows = vec![
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
                "failed attempts with another to come",
            ),
            row("workers killed", of.killed.to_string(), ""),
            row("time", format!("{seconds:.1} s"), &handling),
            row("adapter", of.adapter.to_owned(), ""),
        ];
        if let Some(count) = of.primaries_killed {
            rows.insert(7, row("primaries killed", count.to_string(), ""));
        }
        self.terminal.line("")?;
        self.terminal.table(&[], &rows, 1..2)
    }

    /// Writes the hints after the account; nothing with --json.
    pub(super) fn epilogue(&mut self, lines: &[String]) -> io::Result<()> {
        if self.terminal.is_json() {
            return Ok(());
        }
        self.terminal.line("")?;
        lines.iter().try_for_each(|line| self.terminal.line(line))
    }
}

/// Per second, rounded.
fn rate(count: u64, time: Duration) -> u64 {
    let seconds = time.as_secs_f64().max(0.001);
    (count as f64 / seconds).round() as u64
}
