//! `dead import`: exported dead letters, into a group.

use indicatif::ProgressBar;
use redstart::{
    Container,
    dead_letters::{DeadLetter, ImportReport},
};
use serde::Serialize;

use super::PAGE;
use super::export::BAR;
use crate::args::ImportArgs;
use crate::commands::input;
use crate::failure::{FAILED, Failure, INTERRUPTED, chain};
use crate::terminal::Terminal;

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
        let letters = parse(&mut batch, &mut report, &bar, terminal)?;
        let plan = dead.plan_import(topic, group, letters, args.reimport);
        match dead.run_import(plan.confirm_unasked()).await {
            Ok(done) => report.import += done,
            Err(error) => {
                ended = Err(error.into());
                break;
            }
        }
        bar.set_position(report.import.imported);
    }
    bar.finish_and_clear();
    if terminal.is_json() {
        terminal.json(&report)?;
    } else {
        let mut text = format!("{} imported", report.import.imported);
        for (count, what) in [
            (report.import.present, "already present"),
            (report.failed, "failed"),
        ] {
            if count > 0 {
                text = format!("{text}, {count} {what}");
            }
        }
        terminal.line(text)?;
    }
    ended?;
    if report.failed > 0 {
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}

/// The dead letters of the valid lines. Tells the rule that each invalid line breaks.
fn parse(
    batch: &mut Vec<std::io::Result<input::InputLine>>,
    report: &mut LinesReport,
    bar: &ProgressBar,
    terminal: &mut Terminal<'_>,
) -> Result<Vec<DeadLetter>, Failure> {
    let mut letters = Vec::with_capacity(batch.len());
    for line in batch.drain(..) {
        let line = line?;
        let read = line.bytes.and_then(|bytes| {
            let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
            if text.trim().is_empty() {
                return Ok(None);
            }
            let letter = DeadLetter::from_json(text).map_err(|error| chain(&error))?;
            Ok(Some(letter))
        });
        match read {
            Ok(letter) => letters.extend(letter),
            Err(rule) => {
                report.failed += 1;
                bar.suspend(|| terminal.remark(format_args!("line {}: {rule}", line.number)));
            }
        }
    }
    Ok(letters)
}
