//! `dead import`: exported dead letters, into a group.

use indicatif::ProgressBar;
use redstart::{
    Container,
    dead_letters::{DeadLetter, ImportReport, Imported},
};
use serde::Serialize;

use super::PAGE;
use super::export::BAR;
use crate::args::ImportArgs;
use crate::commands::input;
use crate::failure::{FAILED, Failure, INTERRUPTED, chain, written};
use crate::terminal::Terminal;

/// The rule that a dead letter breaks which an earlier import added and which left the group.
const GONE: &str = "an earlier import added this dead letter, and it left the group since \
                    (redriven, purged or removed by retention); --reimport adds it again";

/// What happened to the lines.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct LinesReport {
    #[serde(flatten)]
    import: ImportReport,
    failed: u64,
}

pub(super) async fn run(
    args: &ImportArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let dead = super::dead_letters_of(&args.of, container).await?;
    let (topic, group) = (&args.of.topic, &args.of.group);
    let mut lines = input::read(std::io::BufReader::new(std::io::stdin()));
    let mut report = LinesReport::default();
    let bar = terminal.progress(None, BAR);
    bar.set_message("imported");
    let (mut batch, mut ended) = (Vec::with_capacity(PAGE), Ok(()));
    let mut gone = GoneLines::default();
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        // The interrupt waits for a batch on its way, so that the report at the end is right.
        let read = tokio::select! {
            biased;
            _ = &mut interrupt => {
                terminal.remark("interrupted");
                ended = Err(Failure::Said(INTERRUPTED));
                break;
            }
            read = lines.recv_many(&mut batch, PAGE) => read,
        };
        if read == 0 {
            break;
        }
        let (numbers, letters, failure) = parse(&mut batch, &mut report, &bar, terminal);
        match dead.import(topic, group, &letters, args.reimport).await {
            Ok(results) => {
                report.import += ImportReport::of(&results);
                for (number, result) in numbers.into_iter().zip(results) {
                    if result == Imported::Gone {
                        gone.add(number, &bar, terminal);
                    }
                }
            }
            Err(error) => {
                ended = Err(error.into());
                break;
            }
        }
        if let Some(failure) = failure {
            ended = Err(failure);
            break;
        }
        bar.set_position(report.import.imported);
    }
    gone.report(&bar, terminal);
    bar.finish_and_clear();
    let told = if terminal.is_json() {
        terminal.json(&report)
    } else {
        let mut text = format!("{} imported", report.import.imported);
        for (count, what) in [
            (report.import.present, "already present"),
            (report.import.gone, "imported earlier and gone since"),
            (report.failed, "failed"),
        ] {
            if count > 0 {
                text = format!("{text}, {count} {what}");
            }
        }
        terminal.line(text)
    };
    let ended = ended.and_then(|()| match report.failed + report.import.gone {
        0 => Ok(()),
        _ => Err(Failure::Said(FAILED)),
    });
    written(told, ended)
}

/// Consecutive lines of dead letters that an earlier import added and that left the group.
#[derive(Debug, Default)]
struct GoneLines {
    range: Option<(u64, u64)>,
}

impl GoneLines {
    fn add(&mut self, number: u64, bar: &ProgressBar, terminal: &mut Terminal<'_>) {
        match &mut self.range {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => {
                self.report(bar, terminal);
                self.range = Some((number, number));
            }
        }
    }

    fn report(&mut self, bar: &ProgressBar, terminal: &mut Terminal<'_>) {
        let Some((first, last)) = self.range.take() else {
            return;
        };
        bar.suspend(|| {
            if first == last {
                terminal.remark(format_args!("line {first}: {GONE}"));
            } else {
                terminal.remark(format_args!("lines {first} to {last}: {GONE}"));
            }
        });
    }
}

/// The dead letters of the valid lines with the lines' numbers, and the error that ended the input.
/// Tells the rule that each invalid line breaks.
fn parse(
    batch: &mut Vec<input::CountedLine>,
    report: &mut LinesReport,
    bar: &ProgressBar,
    terminal: &mut Terminal<'_>,
) -> (Vec<u64>, Vec<DeadLetter>, Option<Failure>) {
    let (mut numbers, mut letters) = (Vec::new(), Vec::with_capacity(batch.len()));
    for counted in batch.drain(..) {
        let line = match counted.line {
            Ok(line) => line,
            Err(error) => return (numbers, letters, Some(error.into())),
        };
        let read = line.bytes.and_then(|bytes| {
            let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
            if text.trim().is_empty() {
                return Ok(None);
            }
            let letter = DeadLetter::from_json(text).map_err(|error| chain(&error))?;
            Ok(Some(letter))
        });
        match read {
            Ok(Some(letter)) => {
                numbers.push(line.number);
                letters.push(letter);
            }
            Ok(None) => {}
            Err(rule) => {
                report.failed += 1;
                bar.suspend(|| terminal.remark(format_args!("line {}: {rule}", line.number)));
            }
        }
    }
    (numbers, letters, None)
}
