//! `dead export` and `dead import`: dead letters as lines of JSON.

use std::fs::File;
use std::io::{BufWriter, IntoInnerError, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use redstart::{
    Container,
    dead_letters::{DeadLetter, DeadLetters, Imported, Selection},
    envelope::{EntryId, Timestamp},
};
use serde_json::json;

use super::PAGE;
use crate::args::{ExportArgs, GroupOf, ImportArgs};
use crate::commands::input;
use crate::console::Console;
use crate::escape;
use crate::failure::{FAILED, Failure, INTERRUPTED, chain};

const BAR: &str = "{spinner} {pos} {msg}, {rate}";

pub(super) async fn export(
    args: &ExportArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    super::check(&args.of, container).await?;
    let dead = container.dead_letters();
    let filter = args.filter.filter().map_err(Failure::of_settings)?;
    let which = bounded(&args.of, filter.into(), args.filter.until, &dead).await?;
    if let Some(path) = &args.out {
        let count = to_file(&args.of, &which, &dead, path, console).await?;
        console.remark(format_args!("exported {count} to {}", path.display()));
        return Ok(());
    }
    let written = each(&args.of, &which, &dead, |letter| {
        // A terminal is not a file: what would disturb it is written in another form of the same
        // text.
        Ok(console.line(escape::json(&letter.to_json()))?)
    });
    match written.await.and_then(|_| Ok(console.flush()?)) {
        // Half an export is none.
        Err(Failure::ReaderGone) => Err(Failure::Said(FAILED)),
        ended => ended,
    }
}

/// Writes the dead letters that are meant to a new file, and returns how many. They are on the disk
/// when this returns.
pub(super) async fn to_file(
    of: &GroupOf,
    which: &Selection,
    dead: &DeadLetters,
    path: &Path,
    console: &mut Console<'_>,
) -> Result<u64, Failure> {
    let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut file = BufWriter::new(File::create_new(path).map_err(named)?);
    let bar = console.progress(None, BAR);
    bar.set_message("exported");
    let writing = each(of, which, dead, |letter| {
        bar.inc(1);
        writeln!(file, "{}", letter.to_json()).map_err(named)
    });
    let count = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err(Failure::Said(INTERRUPTED)),
        count = writing => count,
    };
    bar.finish_and_clear();
    if matches!(count, Err(Failure::Said(INTERRUPTED))) {
        console.remark(format_args!(
            "interrupted: {} has only {} of them",
            path.display(),
            bar.position()
        ));
    }
    let file = file
        .into_inner()
        .map_err(IntoInnerError::into_error)
        .map_err(named)?;
    file.sync_all().map_err(named)?;
    count
}

/// The selection without what dies from now on.
pub(super) async fn bounded(
    of: &GroupOf,
    which: Selection,
    until: Option<Timestamp>,
    dead: &DeadLetters,
) -> Result<Selection, Failure> {
    let Selection::Matching(filter) = which else {
        return Ok(which);
    };
    let newest = dead.newest(&of.topic, &of.group).await?;
    // The bound is a time, and others may die in the same millisecond: it is to be over.
    tokio::time::sleep(Duration::from_millis(2)).await;
    Ok(match newest.and_then(EntryId::time) {
        Some(newest) if until.is_none_or(|until| until > newest) => {
            filter.with_until(newest).into()
        }
        _ => Selection::Matching(filter),
    })
}

/// Goes through the dead letters that are meant, and returns how many there are.
async fn each(
    of: &GroupOf,
    which: &Selection,
    dead: &DeadLetters,
    mut work: impl FnMut(DeadLetter) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let (topic, group) = (&of.topic, &of.group);
    let mut count = 0;
    let mut take = |letters: Vec<DeadLetter>| {
        count += letters.len() as u64;
        letters.into_iter().try_for_each(&mut work)
    };
    match which {
        Selection::Ids(ids) => {
            for ids in ids.chunks(PAGE) {
                take(dead.get(topic, group, ids).await?)?;
            }
        }
        Selection::Matching(filter) => {
            let mut after = None;
            loop {
                let page = dead.list(topic, group, filter, after, PAGE).await?;
                let ids: Vec<EntryId> = page.items.iter().map(|(id, _)| *id).collect();
                take(dead.get(topic, group, &ids).await?)?;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        _ => return Err(Failure::new("this selection cannot be gone through")),
    }
    Ok(count)
}

/// What became of the lines.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    imported: u64,
    known: u64,
    failed: u64,
}

pub(super) async fn import(
    args: &ImportArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    super::check(&args.of, container).await?;
    let dead = container.dead_letters();
    let mut lines = input::read(std::io::BufReader::new(std::io::stdin()));
    let mut count = Count::default();
    let bar = console.progress(None, BAR);
    bar.set_message("imported");
    let (mut batch, mut ended) = (Vec::with_capacity(PAGE), Ok(()));
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        // A batch that is on its way is waited for, so that the account at the end is true.
        let read = tokio::select! {
            biased;
            _ = &mut interrupt => {
                console.remark("interrupted");
                ended = Err(Failure::Said(INTERRUPTED));
                break;
            }
            read = lines.recv_many(&mut batch, PAGE) => read,
        };
        if read == 0 {
            break;
        }
        let letters = parse(&mut batch, &mut count, &bar, console)?;
        match dead
            .import(&args.of.topic, &args.of.group, &letters, args.again)
            .await
        {
            Ok(done) => {
                let known = done.iter().filter(|one| **one == Imported::Present).count() as u64;
                count.known += known;
                count.imported += done.len() as u64 - known;
            }
            Err(error) => {
                ended = Err(error.into());
                break;
            }
        }
        bar.set_position(count.imported);
    }
    bar.finish_and_clear();
    let Count {
        imported,
        known,
        failed,
    } = count;
    if console.is_json() {
        console.json(&json!({ "imported": imported, "known": known, "failed": failed }))?;
    } else {
        let mut text = format!("imported {imported}");
        for (count, what) in [(known, "known already"), (failed, "failed")] {
            if count > 0 {
                text = format!("{text}, {count} {what}");
            }
        }
        console.line(text)?;
    }
    ended?;
    if failed > 0 {
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}

/// The dead letters of the lines that can be read; of the others it is said why.
fn parse(
    batch: &mut Vec<std::io::Result<input::Line>>,
    count: &mut Count,
    bar: &ProgressBar,
    console: &mut Console<'_>,
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
                count.failed += 1;
                bar.suspend(|| console.remark(format_args!("line {}: {rule}", line.number)));
            }
        }
    }
    Ok(letters)
}
