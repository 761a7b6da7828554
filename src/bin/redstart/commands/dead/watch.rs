//! `dead watch`: what dies from now on.

use std::time::Duration;

use redstart::{Container, dead_letters::DeadLetterSummary, envelope::EntryId};

use super::{PAGE, line};
use crate::args::WatchArgs;
use crate::console::Console;
use crate::escape;
use crate::failure::{Failure, chain};

/// How often to look.
const POLL: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) async fn run(
    args: &WatchArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    super::check(&args.of, container).await?;
    let filter = args.filter.filter().map_err(Failure::of_settings)?;
    let dead = container.dead_letters();
    let (topic, group) = (&args.of.topic, &args.of.group);
    let mut after = dead.newest(topic, group).await?;
    let mut left = args.max.unwrap_or(usize::MAX);
    if !console.is_json() {
        console.remark(format_args!("watching {topic}/{group}"));
    }
    let mut pause = POLL;
    while left > 0 {
        let looked = async {
            // From before the look: what does not match is not looked at again.
            let newest = dead.newest(topic, group).await?;
            let page = dead.list(topic, group, &filter, after, PAGE).await?;
            Ok::<_, redstart::Error>((newest, page))
        };
        let (newest, page) = match looked.await {
            Err(error) if error.is_retryable() => {
                if pause == POLL {
                    console.remark(format_args!("{}; trying again", chain(&error)));
                }
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
                continue;
            }
            looked => looked?,
        };
        pause = POLL;
        for (id, head) in page.items.iter().take(left) {
            if console.is_json() {
                console.json(&line(*id, head))?;
            } else {
                console.line(told(*id, head))?;
            }
        }
        console.flush()?;
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

fn told(id: EntryId, head: &DeadLetterSummary) -> String {
    let time = id.time().map_or_else(String::new, |time| time.to_string());
    let kind = if head.message_type.is_empty() {
        "-"
    } else {
        &head.message_type
    };
    let (kind, error) = (escape::text(kind), escape::text(&head.error));
    format!("{id}  {time}  {}  {kind}  {error}", head.reason)
}
