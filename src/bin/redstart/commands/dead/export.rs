//! `dead export`: dead letters as lines of JSON.

use std::fs::File;
use std::io::{BufWriter, IntoInnerError, Write};
use std::path::Path;

use redstart::{
    Container,
    dead_letters::{DeadLetter, DeadLetterPages},
};

use crate::args::ExportArgs;
use crate::escape;
use crate::failure::{FAILED, Failure, INTERRUPTED};
use crate::terminal::Terminal;

pub(super) const BAR: &str = "{spinner} {pos} {msg}, {rate}";

pub(super) async fn run(
    args: &ExportArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let dead = super::dead_letters_of(&args.of, container).await?;
    let filter = args.filter.filter().map_err(Failure::usage)?;
    let (topic, group) = (&args.of.topic, &args.of.group);
    let pages = dead.pages(topic, group, &filter.into());
    if let Some(path) = &args.out {
        let max = args.max.unwrap_or(usize::MAX);
        let count = to_file(pages, max, path, terminal).await?;
        terminal.remark(format_args!("exported {count} to {}", path.display()));
        return Ok(());
    }
    let max = args.max.unwrap_or(usize::MAX);
    let written = each(pages, max, |letter| {
        // A terminal would obey control characters: they go out as JSON escapes of the same text.
        Ok(terminal.line(escape::json(&letter.to_json()))?)
    });
    match written.await.and_then(|_| Ok(terminal.flush()?)) {
        // Half an export is a failed export, also for `| head`.
        Err(Failure::ReaderGone) => Err(Failure::Said(FAILED)),
        ended => ended,
    }
}

/// Writes the selected dead letters, up to a number, to a new file, syncs it to the disk, and returns
/// their number.
pub(super) async fn to_file(
    pages: DeadLetterPages,
    max: usize,
    path: &Path,
    terminal: &mut Terminal<'_>,
) -> Result<u64, Failure> {
    let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut file = BufWriter::new(File::create_new(path).map_err(named)?);
    let bar = terminal.progress(None, BAR);
    bar.set_message("exported");
    let writing = each(pages, max, |letter| {
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
        terminal.remark(format_args!(
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

/// Calls `work` with every selected dead letter, up to a number, and returns their number.
async fn each(
    mut pages: DeadLetterPages,
    max: usize,
    mut work: impl FnMut(DeadLetter) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut count = 0;
    while let Some(mut letters) = pages.next().await? {
        letters.truncate(max - count);
        count += letters.len();
        letters.into_iter().try_for_each(&mut work)?;
        if count == max {
            break;
        }
    }
    Ok(count as u64)
}
