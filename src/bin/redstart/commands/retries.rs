//! `retries`: what waits for its time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use redstart::{
    Container,
    retries::{DeliveryId, Retries, ScheduledRetry},
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args::{CancelArgs, GroupOf, ListArgs, RetriesAction, RetriesArgs, RunNowArgs, Which};
use crate::console::Console;
use crate::failure::{FAILED, Failure};
use crate::table::Table;
use crate::{duration, escape, priority, shown};

const PAGE: usize = 500;
/// How much is shown of an error, in characters.
const ERROR: usize = 120;

pub(super) async fn run(
    args: &RetriesArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let retries = container.retries();
    let of = match &args.action {
        RetriesAction::List(args) => &args.of,
        RetriesAction::RunNow(args) => &args.of,
        RetriesAction::Cancel(args) => &args.of,
    };
    super::group_of(&of.topic, &of.group, container).await?;
    if !matches!(args.action, RetriesAction::List(_)) {
        priority::give_way();
    }
    match &args.action {
        RetriesAction::List(args) => list(args, &retries, console).await,
        RetriesAction::RunNow(args) => run_now(args, &retries, console).await,
        RetriesAction::Cancel(args) => cancel(args, &retries, console).await,
    }
}

/// Goes through what waits now, page by page, until `each` says to stop.
async fn walk(
    retries: &Retries,
    of: &GroupOf,
    mut each: impl FnMut(ScheduledRetry) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut last: Option<ScheduledRetry> = None;
    loop {
        let page = retries.list(&of.topic, &of.group, last.as_ref(), PAGE);
        let page = page.await?;
        last = page.last().cloned();
        if last.is_none() {
            return Ok(());
        }
        for retry in page {
            if !each(retry)? {
                return Ok(());
            }
        }
    }
}

async fn list(
    args: &ListArgs,
    retries: &Retries,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let header = ["id", "due in", "tries", "type", "last error"];
    let mut table = Table::new(&header, 2..3);
    let (mut rows, mut count) = (Vec::new(), 0);
    walk(retries, &args.of, |retry| {
        count += 1;
        if count > args.max {
            return Ok(false);
        }
        if console.is_json() {
            console.json(&object(&retry))?;
            return Ok(true);
        }
        rows.push(row(&retry));
        // Written as they come: a long list is never held as a whole.
        if rows.len() == PAGE {
            console.rows(&mut table, &std::mem::take(&mut rows))?;
        }
        Ok(true)
    })
    .await?;
    if !rows.is_empty() {
        console.rows(&mut table, &rows)?;
    }
    if count > args.max {
        console.remark(format_args!(
            "there are more than {}; --max shows them",
            args.max
        ));
    } else if count == 0 && !console.is_json() {
        console.remark("nothing waits for its time");
    }
    Ok(())
}

async fn run_now(
    args: &RunNowArgs,
    retries: &Retries,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let of = &args.of;
    let plan = Plan::of(&args.which, retries, of).await?;
    if args.dry_run {
        return plan.tell("run_now", "would be brought back", console);
    }
    let done = retries.run_now(&of.topic, &of.group, &plan.found).await?;
    plan.done(done.moved.len(), &args.which)
        .tell("run_now", "brought back", console)
}

async fn cancel(
    args: &CancelArgs,
    retries: &Retries,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let of = &args.of;
    let plan = Plan::of(&args.which, retries, of).await?;
    if args.dry_run {
        return plan.tell("cancelled", "would be removed", console);
    }
    if !plan.found.is_empty() {
        let count = plan.found.len();
        console.remark(format_args!(
            "This removes {count} {} for group {} of {}, for good.",
            if count == 1 {
                "message that waits"
            } else {
                "messages that wait"
            },
            of.group,
            of.topic
        ));
        if let Some(path) = &args.export {
            console.remark(format_args!(
                "They are written to {} first.",
                path.display()
            ));
        }
        if !args.yes {
            console.confirm(&count.to_string())?;
        }
        if let Some(path) = &args.export {
            plan.export(retries, of, path).await?;
        }
    }
    let done = retries.cancel(&of.topic, &of.group, &plan.found).await?;
    plan.done(done.moved.len(), &args.which)
        .tell("cancelled", "removed", console)
}

/// What is to be done, or was.
struct Plan {
    found: Vec<DeliveryId>,
    count: usize,
    missing: usize,
}

impl Plan {
    /// Those that were named and wait, or all that wait.
    async fn of(which: &Which, retries: &Retries, of: &GroupOf) -> Result<Self, Failure> {
        let wanted: HashSet<DeliveryId> = which.ids.iter().copied().collect();
        let mut found = Vec::new();
        walk(retries, of, |retry| {
            if which.all || wanted.contains(&retry.id) {
                found.push(retry.id);
            }
            Ok(which.all || found.len() < wanted.len())
        })
        .await?;
        Ok(Self {
            count: found.len(),
            missing: if which.all {
                0
            } else {
                wanted.len() - found.len()
            },
            found,
        })
    }

    /// Writes those that still wait to a new file. What came back by itself meanwhile cannot be removed either.
    async fn export(&self, retries: &Retries, of: &GroupOf, path: &Path) -> Result<(), Failure> {
        let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        let mut file = BufWriter::new(File::create_new(path).map_err(named)?);
        let found: HashSet<DeliveryId> = self.found.iter().copied().collect();
        walk(retries, of, |retry| {
            if found.contains(&retry.id) {
                writeln!(file, "{}", escape::to_json(&object(&retry))?).map_err(named)?;
            }
            Ok(true)
        })
        .await?;
        // What is removed is on the disk before.
        let file = file.into_inner();
        let file = file.map_err(|error| named(error.into_error()))?;
        file.sync_all().map_err(named)
    }

    /// After so many were done: what came back by itself meanwhile counts as missing where it was
    /// named.
    fn done(mut self, count: usize, which: &Which) -> Self {
        if !which.all {
            self.missing += self.count - count;
        }
        self.count = count;
        self
    }

    fn tell(&self, name: &str, what: &str, console: &mut Console<'_>) -> Result<(), Failure> {
        let Self { count, missing, .. } = self;
        if console.is_json() {
            console.json(&serde_json::json!({ name: count, "missing": missing }))?;
        } else if *missing > 0 {
            console.line(format_args!("{count} {what}, {missing} do not wait"))?;
        } else {
            console.line(format_args!("{count} {what}"))?;
        }
        if *missing > 0 {
            return Err(Failure::Said(FAILED));
        }
        Ok(())
    }
}

fn row(retry: &ScheduledRetry) -> Vec<String> {
    let (tries, kind, error) = match &retry.envelope {
        Ok(envelope) => (
            envelope.failed_attempts().to_string(),
            envelope.message_type().to_owned(),
            envelope.last_error().unwrap_or("-").to_owned(),
        ),
        Err(flaw) => {
            let dash = || "-".to_owned();
            (dash(), dash(), format!("undecodable: {flaw}"))
        }
    };
    vec![
        retry.id.to_string(),
        duration::short(retry.due_in),
        tries,
        kind,
        escape::excerpt(&error, ERROR),
    ]
}

/// A retry for programs.
#[derive(Serialize)]
struct Shown {
    id: String,
    due: String,
    due_in_ms: u64,
    attempts: Option<u32>,
    last_error: Option<String>,
    origin: String,
    first_failure: Option<String>,
    redriven: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<serde_json::Value>,
}

fn object(retry: &ScheduledRetry) -> Shown {
    let read = match &retry.envelope {
        Ok(envelope) => shown::wire(envelope),
        Err(flaw) => Err(flaw.to_string()),
    };
    let envelope = retry.envelope.as_ref().ok();
    let fields = read.is_err().then(|| shown::fields(&retry.fields));
    let (wire, error) = match read {
        Ok(wire) => (Some(wire), None),
        Err(error) => (None, Some(error)),
    };
    Shown {
        id: retry.id.to_string(),
        due: retry.due.to_string(),
        due_in_ms: u64::try_from(retry.due_in.as_millis()).unwrap_or(u64::MAX),
        attempts: envelope.map(redstart::Envelope::failed_attempts),
        last_error: envelope.and_then(|one| one.last_error().map(str::to_owned)),
        origin: retry.history.origin.to_string(),
        first_failure: retry.history.first_failure.map(|time| time.to_string()),
        redriven: retry.history.redriven,
        envelope: wire,
        error,
        fields,
    }
}
