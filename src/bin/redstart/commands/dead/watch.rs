//! `dead watch`: messages that die from now on.

use std::time::Duration;

use redstart::{
    Container, dead_letters::DeadLetterSummary, envelope::EntryId, views::ListedDeadLetter,
};

use super::or_dash;
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
    let mut watch = dead.watch(topic, group, filter).await?;
    let mut left = args.max.unwrap_or(usize::MAX);
    if !terminal.is_json() {
        terminal.remark(format_args!("watching {topic}/{group}"));
    }
    let mut pause = POLL;
    while left > 0 {
        let found = match watch.look().await {
            Err(error) if error.is_retryable() => {
                if pause == POLL {
                    terminal.remark(format_args!("{}; trying again", chain(&error)));
                }
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
                continue;
            }
            found => found?,
        };
        pause = POLL;
        for (id, summary) in found.items.iter().take(left) {
            if terminal.is_json() {
                terminal.json(&ListedDeadLetter::new(*id, summary))?;
            } else {
                terminal.line(line(*id, summary))?;
            }
        }
        terminal.flush()?;
        left = left.saturating_sub(found.items.len());
        if !found.more {
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
