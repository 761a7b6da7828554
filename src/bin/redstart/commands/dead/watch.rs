//! `dead watch`: messages that die from now on.

use std::time::Duration;

use redstart::{
    Container, dead_letters::DeadLetterSummary, envelope::EntryId, views::ListedDeadLetter,
};

use super::{PAGE, or_dash};
use crate::args::WatchArgs;
use crate::escape;
use crate::failure::{Failure, chain};
use crate::terminal::Terminal;

/// How often to look.
const POLL: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) async fn run(
    args: &WatchArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let dead = super::dead_letters_of(&args.of, container).await?;
    let filter = args.filter.filter().map_err(Failure::usage)?;
    let (topic, group) = (&args.of.topic, &args.of.group);
    let mut after = dead.newest(topic, group).await?;
    let mut left = args.max.unwrap_or(usize::MAX);
    if !terminal.is_json() {
        terminal.remark(format_args!("watching {topic}/{group}"));
    }
    let mut pause = POLL;
    while left > 0 {
        let looked = async {
            // Asked before the list: the next look can skip everything up to here.
            let newest = dead.newest(topic, group).await?;
            let page = dead.list(topic, group, &filter, after, PAGE).await?;
            Ok::<_, redstart::Error>((newest, page))
        };
        let (newest, page) = match looked.await {
            Err(error) if error.is_retryable() => {
                if pause == POLL {
                    terminal.remark(format_args!("{}; trying again", chain(&error)));
                }
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
                continue;
            }
            looked => looked?,
        };
        pause = POLL;
        for (id, summary) in page.items.iter().take(left) {
            if terminal.is_json() {
                terminal.json(&ListedDeadLetter::new(*id, summary))?;
            } else {
                terminal.line(line(*id, summary))?;
            }
        }
        terminal.flush()?;
        left = left.saturating_sub(page.items.len());
        let last = page.items.last().map(|(id, _)| *id);
        after = after.max(last).max(page.next);
        if page.next.is_none() {
            after = after.max(newest);
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

fn line(id: EntryId, summary: &DeadLetterSummary) -> String {
    let time = id.time().map_or_else(String::new, |time| time.to_string());
    let message_type = escape::text(or_dash(&summary.message_type));
    let error = escape::text(&summary.error);
    format!("{id}  {time}  {}  {message_type}  {error}", summary.reason)
}
