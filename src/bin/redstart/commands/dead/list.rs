//! `dead list`: the matching dead letters, page by page.

use redstart::{
    Container, dead_letters::DeadLetterSummary, envelope::EntryId, views::ListedDeadLetter,
};

use super::{PAGE, or_dash};
use crate::args::DeadListArgs;
use crate::duration;
use crate::escape;
use crate::failure::Failure;
use crate::table::Table;
use crate::terminal::Terminal;

/// How many characters of an error are shown.
const ERROR: usize = 120;

pub(super) async fn run(
    args: &DeadListArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let dead = super::dead_letters_of(&args.of, container).await?;
    let filter = args.filter.filter().map_err(Failure::usage)?;
    let (topic, group) = (&args.of.topic, &args.of.group);
    let newest_first = args.newest_first(terminal.out_is_terminal() && !terminal.is_json());
    let (mut from, mut left) = (args.after.or(args.before), args.max);
    let header = ["id", "age", "reason", "type", "attempts", "error"];
    let mut table = Table::new(&header, 4..5);
    let (mut last, mut more) = (None, false);
    loop {
        // Reading one more than it shows tells whether there are more.
        let max = PAGE.min(left.saturating_add(1));
        let page = if newest_first {
            dead.list_newest(topic, group, &filter, from, max).await?
        } else {
            dead.list(topic, group, &filter, from, max).await?
        };
        let mut rows = Vec::new();
        for (id, summary) in &page.items {
            if left == 0 {
                more = true;
                break;
            }
            left -= 1;
            last = Some(*id);
            if terminal.is_json() {
                terminal.json(&ListedDeadLetter::new(*id, summary))?;
            } else {
                rows.push(row(*id, summary));
            }
        }
        if !rows.is_empty() {
            terminal.rows(&mut table, &rows)?;
        }
        from = page.next;
        if more || from.is_none() {
            break;
        }
    }
    match last {
        Some(last) if more => {
            let option = if newest_first { "before" } else { "after" };
            terminal.remark(format_args!("more: --{option} {last}"));
        }
        None if !terminal.is_json() => terminal.remark("no dead letters match"),
        _ => {}
    }
    Ok(())
}

fn row(id: EntryId, summary: &DeadLetterSummary) -> Vec<String> {
    vec![
        id.to_string(),
        duration::short(duration::since(id.millis)),
        summary.reason.to_string(),
        or_dash(&summary.message_type).to_owned(),
        summary.attempts.to_string(),
        escape::excerpt(&summary.error, ERROR),
    ]
}
