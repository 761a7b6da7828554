//! `publish`: publishes lines of the input as messages.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use indicatif::ProgressBar;
use redstart::schedules::{ScheduleOptions, When};
use redstart::views::EntryLine;
use redstart::{Bus, Container, Envelope, Error, ErrorKind, PublishOptions, envelope::Codec};
use serde::Serialize;

use super::envelope_line;
use super::input::{self, CountedLine};
use crate::args::{PublishArgs, when};
use crate::failure::{FAILED, Failure, INTERRUPTED, chain, written};
use crate::settings::{NamespaceAccess, Settings};
use crate::terminal::Terminal;

/// How many messages one call publishes at most. A call does not wait for more lines.
const BATCH: usize = 500;

/// What happened to the lines.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct PublishReport {
    published: u64,
    /// Only where the messages are for later.
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled: Option<u64>,
    /// Published before, within the deduplication window: the topic has one entry of each.
    duplicates: u64,
    failed: u64,
    unknown: u64,
}

pub(super) async fn run(
    args: &PublishArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
    input: impl BufRead + Send + 'static,
) -> Result<(), Failure> {
    let from = args.from.as_deref().filter(|path| *path != Path::new("-"));
    let input: Box<dyn BufRead + Send> = match from {
        Some(path) => Box::new(BufReader::new(open(path)?)),
        None => Box::new(input),
    };
    let due = when(args.at, args.after);
    if args.id.is_some() && due.is_none() {
        return Err(Failure::usage("--id needs --at or --after"));
    }
    let containers = Containers {
        settings,
        plain: settings.connect_for(NamespaceAccess::Create).await?,
        of_codec: Vec::new(),
    };
    let bar = terminal.progress(None, "{spinner} {msg}, {elapsed}");
    let mut publishing = Publishing {
        args,
        containers,
        bar,
        count: PublishReport {
            scheduled: due.map(|_| 0),
            ..PublishReport::default()
        },
        due,
        refused: Vec::new(),
        reported: None,
    };
    let result = publishing.all(input, terminal).await;
    publishing.report_the_rest(terminal);
    publishing.bar.finish_and_clear();
    let count = publishing.count;
    let PublishReport {
        published,
        scheduled,
        duplicates,
        failed,
        unknown,
    } = count;
    let told = if terminal.is_json() {
        terminal.json(&count)
    } else {
        let mut text = match scheduled {
            Some(scheduled) => format!("{scheduled} scheduled for {}", args.topic),
            None => format!("{published} published to {}", args.topic),
        };
        for (count, what) in [
            (duplicates, "already published"),
            (failed, "failed"),
            (unknown, "unknown"),
        ] {
            if count > 0 {
                text = format!("{text}, {count} {what}");
            }
        }
        terminal.line(text)
    };
    let ended = result.and_then(|()| match failed + unknown {
        0 => Ok(()),
        _ => Err(Failure::Said(FAILED)),
    });
    written(told, ended)
}

/// Consecutive lines that failed by the same rule.
struct RefusedLines {
    first: u64,
    last: u64,
    rule: String,
    cause: String,
}

struct Publishing<'a> {
    args: &'a PublishArgs,
    /// `None`: now.
    due: Option<When>,
    containers: Containers<'a>,
    bar: ProgressBar,
    count: PublishReport,
    refused: Vec<RefusedLines>,
    reported: Option<Reported>,
}

/// Consecutive messages of one codec, with the numbers of their lines.
struct Run {
    codec: Option<Codec>,
    numbers: Vec<u64>,
    envelopes: Vec<Envelope>,
}

impl Run {
    fn of(codec: Option<Codec>, number: u64, envelope: Envelope) -> Self {
        Self {
            codec,
            numbers: vec![number],
            envelopes: vec![envelope],
        }
    }

    fn push(&mut self, number: u64, envelope: Envelope) {
        self.numbers.push(number);
        self.envelopes.push(envelope);
    }
}

/// The containers that publish: one of the settings, and one for each codec that a line names.
struct Containers<'a> {
    settings: &'a Settings,
    plain: Container,
    of_codec: Vec<(Codec, Container)>,
}

impl Containers<'_> {
    async fn get(&mut self, codec: Option<Codec>) -> Result<Container, Failure> {
        let Some(codec) = codec else {
            return Ok(self.plain.clone());
        };
        if let Some((_, container)) = self.of_codec.iter().find(|(of, _)| *of == codec) {
            return Ok(container.clone());
        }
        let builder = self.settings.builder_for(NamespaceAccess::Create)?;
        let connected = builder.with_codec(codec).connect().await;
        let container = connected.map_err(Failure::of_settings)?;
        self.of_codec.push((codec, container.clone()));
        Ok(container)
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// The lines reported last, and the later ones that failed by the same rule: without it, a server
/// that is away would cause one report for every batch.
struct Reported {
    rule: String,
    last: u64,
    unreported: Option<u64>,
}

impl Publishing<'_> {
    async fn all(
        &mut self,
        input: impl BufRead + Send + 'static,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let mut lines = input::read(input);
        let mut batch = Vec::with_capacity(BATCH);
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        loop {
            // The interrupt waits for a batch on its way, so that the report at the end is right.
            let read = tokio::select! {
                biased;
                _ = &mut interrupt => {
                    terminal.remark("interrupted");
                    return Err(Failure::Said(INTERRUPTED));
                }
                read = lines.recv_many(&mut batch, BATCH) => read,
            };
            if read == 0 {
                return Ok(());
            }
            let ended = self.batch(&mut batch).await;
            self.report(terminal);
            if ended? {
                return Ok(());
            }
        }
    }

    /// Publishes the lines that arrived; returns whether to stop.
    async fn batch(&mut self, batch: &mut Vec<CountedLine>) -> Result<bool, Failure> {
        let mut runs: Vec<Run> = Vec::new();
        let mut bad = Vec::new();
        let mut failure = None;
        for counted in batch.drain(..) {
            let line = match counted.line {
                Ok(line) => line,
                Err(error) => {
                    failure = Some(Failure::from(error));
                    break;
                }
            };
            let parsed = line
                .bytes
                .and_then(|bytes| envelope_line::parse(&bytes, self.args));
            match parsed {
                Ok(None) => {}
                Ok(Some(EntryLine {
                    envelope, codec, ..
                })) => {
                    // Messages of one codec go together, and all keep their order.
                    let same = runs.last_mut().filter(|run| run.codec == codec);
                    match same {
                        Some(run) => run.push(line.number, envelope),
                        None => runs.push(Run::of(codec, line.number, envelope)),
                    }
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
            self.refuse(number, rule, String::new());
        }
        for run in runs {
            let container = self.containers.get(run.codec).await?;
            let failed = self.publish(&container, &run).await;
            if failed && self.args.stop_on_error {
                stop = true;
                break;
            }
        }
        let done = self.count.published + self.count.scheduled.unwrap_or_default();
        self.bar.set_message(format!("{done} done"));
        self.bar.tick();
        match failure {
            Some(failure) => Err(failure),
            None => Ok(stop),
        }
    }

    /// Returns whether a message failed or has an unknown outcome.
    async fn publish(&mut self, container: &Container, run: &Run) -> bool {
        let bus = container.bus();
        let results = match self.due {
            Some(due) => self.schedule(&bus, &run.envelopes, due).await,
            None => self.publish_now(&bus, &run.envelopes).await,
        };
        let mut any = false;
        for (number, result) in run.numbers.iter().zip(results) {
            let Err(error) = result else {
                continue;
            };
            any = true;
            if error.kind() == ErrorKind::OutcomeUnknown {
                self.count.unknown += 1;
            } else {
                self.count.failed += 1;
            }
            self.refuse(*number, error.to_string(), chain(&error));
        }
        any
    }

    async fn publish_now(&mut self, bus: &Bus, envelopes: &[Envelope]) -> Vec<Result<(), Error>> {
        let options = PublishOptions::new().with_durability(self.args.durability);
        let publishing = bus.publish_all_with(&self.args.topic, envelopes, options);
        let results = publishing.await;
        let count = &mut self.count;
        let counted = results.into_iter().map(|result| {
            match result?.duplicate {
                true => count.duplicates += 1,
                false => count.published += 1,
            }
            Ok(())
        });
        counted.collect()
    }

    /// Leaves the messages with the server until they are due.
    async fn schedule(
        &mut self,
        bus: &Bus,
        envelopes: &[Envelope],
        due: When,
    ) -> Vec<Result<(), Error>> {
        let topic = &self.args.topic;
        let mut options = ScheduleOptions::new().with_durability(self.args.durability);
        // An id names one message, whatever the number of lines in a batch.
        let mut allowed = envelopes.len();
        if let Some(id) = &self.args.id {
            options = options.with_id(id.clone());
            allowed = allowed.min(usize::from(self.count.scheduled == Some(0)));
        }
        let (first, others) = envelopes.split_at(allowed);
        let done = bus.publish_later(topic, first, due, options).await;
        let refused = others.iter().map(|_| {
            let rule = "--id names one message; leave it out to schedule several";
            Err(Error::new(ErrorKind::Invalid, "schedule", rule))
        });
        let scheduled = done.iter().flatten().count() as u64;
        self.count.scheduled = self.count.scheduled.map(|count| count + scheduled);
        let done = done.into_iter().map(|result| result.map(drop));
        done.chain(refused).collect()
    }

    fn refuse(&mut self, number: u64, rule: String, cause: String) {
        match self.refused.last_mut() {
            // Only the first of several messages that failed together carries the cause.
            Some(last) if last.rule == rule && last.last + 1 == number => last.last = number,
            _ => self.refused.push(RefusedLines {
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

    fn report(&mut self, terminal: &mut Terminal<'_>) {
        let mut refused = std::mem::take(&mut self.refused);
        refused.sort_by_key(|lines| lines.first);
        for lines in refused {
            if let Some(reported) = &mut self.reported
                && reported.rule == lines.rule
                && reported.last + 1 == lines.first
            {
                reported.unreported.get_or_insert(lines.first);
                reported.last = lines.last;
                continue;
            }
            self.report_the_rest(terminal);
            self.write(lines.first, lines.last, &lines.cause, terminal);
            self.reported = Some(Reported {
                rule: lines.rule,
                last: lines.last,
                unreported: None,
            });
        }
    }

    fn report_the_rest(&mut self, terminal: &mut Terminal<'_>) {
        if let Some(reported) = self.reported.take()
            && let Some(first) = reported.unreported
        {
            self.write(first, reported.last, "as before", terminal);
        }
    }

    fn write(&self, first: u64, last: u64, what: &str, terminal: &mut Terminal<'_>) {
        self.bar.suspend(|| {
            if first == last {
                terminal.remark(format_args!("line {first}: {what}"));
            } else {
                terminal.remark(format_args!("lines {first} to {last}: {what}"));
            }
        });
    }
}
