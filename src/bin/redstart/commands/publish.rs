//! `publish`: lines of the input become messages.

use std::io::BufRead;

use indicatif::ProgressBar;
use redstart::{Container, Envelope, ErrorKind};
use serde::Serialize;

use super::input::{self, Line};
use super::line;
use crate::args::PublishArgs;
use crate::console::Console;
use crate::failure::{FAILED, Failure, INTERRUPTED, chain};
use crate::settings::{NamespaceAccess, Settings};

/// How many messages one call publishes. What has arrived is published without waiting for more.
const BATCH: usize = 500;

/// What became of the lines.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Count {
    published: u64,
    failed: u64,
    unknown: u64,
}

pub(super) async fn run(
    args: &PublishArgs,
    settings: &Settings,
    console: &mut Console<'_>,
    input: impl BufRead + Send + 'static,
) -> Result<(), Failure> {
    let container = settings.connect_to(NamespaceAccess::Begin).await?;
    let bar = console.progress(None, "{spinner} {msg}, {elapsed}");
    let mut publishing = Publishing {
        args,
        container,
        bar,
        count: Count::default(),
        troubles: Vec::new(),
        told: None,
    };
    let result = publishing.all(input, console).await;
    publishing.tell_the_rest(console);
    publishing.bar.finish_and_clear();
    let count = publishing.count;
    let Count {
        published,
        failed,
        unknown,
    } = count;
    if console.is_json() {
        console.json(&count)?;
    } else {
        let mut text = format!("published {published} to {}", args.topic);
        for (count, what) in [(failed, "failed"), (unknown, "unknown")] {
            if count > 0 {
                text = format!("{text}, {count} {what}");
            }
        }
        console.line(text)?;
    }
    result?;
    if failed + unknown > 0 {
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}

/// Lines in a row that one rule has stopped.
struct Trouble {
    first: u64,
    last: u64,
    rule: String,
    cause: String,
}

struct Publishing<'a> {
    args: &'a PublishArgs,
    container: Container,
    bar: ProgressBar,
    count: Count,
    troubles: Vec<Trouble>,
    told: Option<Told>,
}

/// The last trouble that was told, and the lines after it that share it and were not: a server
/// that is away would otherwise be complained of once for every batch.
struct Told {
    rule: String,
    last: u64,
    untold: Option<u64>,
}

impl Publishing<'_> {
    async fn all(
        &mut self,
        input: impl BufRead + Send + 'static,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let mut lines = input::read(input);
        let mut batch = Vec::with_capacity(BATCH);
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        loop {
            // A batch that is on its way is waited for, so that the account at the end is true.
            let read = tokio::select! {
                biased;
                _ = &mut interrupt => {
                    console.remark("interrupted");
                    return Err(Failure::Said(INTERRUPTED));
                }
                read = lines.recv_many(&mut batch, BATCH) => read,
            };
            if read == 0 {
                return Ok(());
            }
            let ended = self.batch(&mut batch).await;
            self.report(console);
            if ended? {
                return Ok(());
            }
        }
    }

    /// Publishes what has arrived; returns whether to stop.
    async fn batch(&mut self, batch: &mut Vec<std::io::Result<Line>>) -> Result<bool, Failure> {
        let (mut numbers, mut envelopes) = (Vec::new(), Vec::new());
        let mut bad = Vec::new();
        let mut failure = None;
        for line in batch.drain(..) {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    failure = Some(Failure::from(error));
                    break;
                }
            };
            let parsed = line.bytes.and_then(|bytes| line::parse(&bytes, self.args));
            match parsed {
                Ok(None) => {}
                Ok(Some(envelope)) => {
                    numbers.push(line.number);
                    envelopes.push(envelope);
                }
                Err(rule) => {
                    bad.push((line.number, rule));
                    if self.args.stop_on_error {
                        break;
                    }
                }
            }
        }
        let mut stop = self.args.stop_on_error && !bad.is_empty();
        for (number, rule) in bad {
            self.count.failed += 1;
            self.trouble(number, rule, String::new());
        }
        stop |= self.publish(&numbers, &envelopes).await && self.args.stop_on_error;
        let done = self.count.published;
        self.bar.set_message(format!("published {done}"));
        self.bar.tick();
        match failure {
            Some(failure) => Err(failure),
            None => Ok(stop),
        }
    }

    /// Returns whether one of them was not, or may not have been, published.
    async fn publish(&mut self, numbers: &[u64], envelopes: &[Envelope]) -> bool {
        let bus = self.container.bus();
        let results = bus.publish_all(&self.args.topic, envelopes).await;
        let mut any = false;
        for (number, result) in numbers.iter().zip(results) {
            let Err(error) = result else {
                self.count.published += 1;
                continue;
            };
            any = true;
            if error.kind() == ErrorKind::OutcomeUnknown {
                self.count.unknown += 1;
            } else {
                self.count.failed += 1;
            }
            self.trouble(*number, error.to_string(), chain(&error));
        }
        any
    }

    fn trouble(&mut self, number: u64, rule: String, cause: String) {
        match self.troubles.last_mut() {
            // Of messages that failed together only the first one has the cause.
            Some(last) if last.rule == rule && last.last + 1 == number => last.last = number,
            _ => self.troubles.push(Trouble {
                first: number,
                last: number,
                cause: if cause.is_empty() {
                    rule.clone()
                } else {
                    cause
                },
                rule,
            }),
        }
    }

    fn report(&mut self, console: &mut Console<'_>) {
        let mut troubles = std::mem::take(&mut self.troubles);
        troubles.sort_by_key(|trouble| trouble.first);
        for trouble in troubles {
            if let Some(told) = &mut self.told
                && told.rule == trouble.rule
                && told.last + 1 == trouble.first
            {
                told.untold.get_or_insert(trouble.first);
                told.last = trouble.last;
                continue;
            }
            self.tell_the_rest(console);
            self.tell(trouble.first, trouble.last, &trouble.cause, console);
            self.told = Some(Told {
                rule: trouble.rule,
                last: trouble.last,
                untold: None,
            });
        }
    }

    fn tell_the_rest(&mut self, console: &mut Console<'_>) {
        if let Some(told) = self.told.take()
            && let Some(first) = told.untold
        {
            self.tell(first, told.last, "the same", console);
        }
    }

    fn tell(&self, first: u64, last: u64, what: &str, console: &mut Console<'_>) {
        self.bar.suspend(|| {
            if first == last {
                console.remark(format_args!("line {first}: {what}"));
            } else {
                console.remark(format_args!("lines {first} to {last}: {what}"));
            }
        });
    }
}
