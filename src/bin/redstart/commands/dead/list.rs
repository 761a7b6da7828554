//! `dead list`: those that match, page by page.

use redstart::{Container, dead_letters::DeadLetterSummary, envelope::EntryId};

use super::{PAGE, line};
use crate::args::DeadListArgs;
use crate::console::Console;
use crate::duration;
use crate::escape;
use crate::failure::Failure;
use crate::table::Table;

/// How much is shown of an error, in characters.
const ERROR: usize = 120;

pub(super) async fn run(
    args: &DeadListArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    super::check(&args.of, container).await?;
    let filter = args.filter.filter().map_err(Failure::of_settings)?;
    let dead = container.dead_letters();
    let (topic, group) = (&args.of.topic, &args.of.group);
    let (mut after, mut left) = (args.after, args.max);
    let header = ["id", "age", "reason", "type", "tries", "error"];
    let mut table = Table::new(&header, 4..5);
    let (mut last, mut more) = (None, false);
    loop {
        // One more than is shown tells whether there are more.
        let max = PAGE.min(left.saturating_add(1));
        let page = dead.list(topic, group, &filter, after, max).await?;
        let mut rows = Vec::new();
        for (id, head) in &page.items {
            if left == 0 {
                more = true;
                break;
            }
            left -= 1;
            last = Some(*id);
            if console.is_json() {
                console.json(&line(*id, head))?;
            } else {
                rows.push(row(*id, head));
            }
        }
        if !rows.is_empty() {
            console.rows(&mut table, &rows)?;
        }
        after = page.next;
        if more || after.is_none() {
            break;
        }
    }
    match last {
        Some(last) if more => console.remark(format_args!("there are more: --after {last}")),
        None if !console.is_json() => console.remark("none"),
        _ => {}
    }
    Ok(())
}

fn row(id: EntryId, head: &DeadLetterSummary) -> Vec<String> {
    vec![
        id.to_string(),
        duration::short(duration::since(id.millis)),
        head.reason.to_string(),
        if head.message_type.is_empty() {
            "-".to_owned()
        } else {
            head.message_type.clone()
        },
        head.attempts.to_string(),
        escape::excerpt(&head.error, ERROR),
    ]
}
