//! Sweeps: begin, move in portions, stop at the failure limit, end; resume an interrupted one.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::domain::{
    DeadLetterFilter, DeadLetterSummary, EntryId, Error, ErrorKind, Group, Selection, Sweep,
    SweepAction, Topic, describe,
};
use crate::operate::dead_letters::handle::{DeadLetters, subject};
use crate::operate::dead_letters::journal::Order;
use crate::operate::dead_letters::publish::PublishedPortion;
use crate::operate::dead_letters::report::{SweepEnd, SweepProgress, SweepReport};
use crate::store::{Disposition, GroupAt, IdRange, MAX_BATCH};

/// How many summaries a sweep holds at once.
pub(super) const PAGE: usize = 1000;

/// How often a sweep counts the redriven messages that died again.
const LOOK: Duration = Duration::from_millis(200);

/// How much of an error the journal keeps, in characters.
const LONGEST_REFUSAL: usize = 300;

/// The ids after `after` that lie within a filter's times and up to a watermark. `None` without
/// a watermark: the group had no dead letters then.
pub(super) fn range_of(
    filter: &DeadLetterFilter,
    after: Option<EntryId>,
    watermark: Option<EntryId>,
) -> Option<IdRange> {
    let (since, until) = filter.bounds();
    Some(IdRange {
        after: after.max(since),
        until: Some(watermark?.min(until.unwrap_or(watermark?))),
        newest_first: false,
    })
}

/// A sweep under way.
struct RunningSweep<'a> {
    dead_letters: &'a DeadLetters,
    topic: &'a Topic,
    group: &'a Group,
    sweep: &'a Sweep,
    operation: Uuid,
    /// The watermark: the newest dead letter that the sweep may take.
    until: Option<EntryId>,
    began: Instant,
    /// How many the sweep took before an interruption.
    before: u64,
    progress: SweepProgress,
    report: &'a (dyn Fn(SweepProgress) + Send + Sync),
    /// The newest dead letter among which the sweep looked for messages that died again.
    looked: Option<EntryId>,
    next_look: Instant,
    /// The first dead letter that could not be published, and the error.
    refused: Option<String>,
}

impl DeadLetters {
    /// Redrives, publishes or purges many dead letters, and records it in the journal.
    ///
    /// The sweep takes the dead letters that exist when it begins. A message that dies later,
    /// also a redriven one that dies again, waits for the next sweep. The store moves and counts
    /// each dead letter in one step: two sweeps at once neither lose nor double one, and the
    /// journal is right however a sweep ends. The sweep calls `progress` when it begins and after
    /// every portion.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a sweep that breaks a rule; otherwise the kinds of the
    /// connection, after which [`resume`](Self::resume) continues the sweep.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the journal keeps the operation without a result, with what it
    /// moved so far. [`resume`](Self::resume) continues it.
    pub async fn sweep(
        &self,
        topic: &Topic,
        group: &Group,
        sweep: Sweep,
        progress: &(dyn Fn(SweepProgress) + Send + Sync),
    ) -> Result<SweepReport, Error> {
        sweep.validate()?;
        let until = self.watermark(topic, group, &sweep).await?;
        let operation = Uuid::now_v7();
        let order = Order::of(&sweep, until, self.store.now());
        self.port()
            .begin_operation(&GroupAt::of(topic, group), operation, &order.encode())
            .await?;
        tracing::info!(
            %topic, %group, %operation, operator = sweep.operator,
            action = %sweep.action, selection = %sweep.selection,
            "sweep of dead letters begins",
        );
        let run = RunningSweep::new(self, topic, group, &sweep, operation, until, progress);
        run.finish(None).await
    }

    /// The newest dead letter that a sweep may take when it begins now; `None` where there is none.
    pub(super) async fn watermark(
        &self,
        topic: &Topic,
        group: &Group,
        sweep: &Sweep,
    ) -> Result<Option<EntryId>, Error> {
        let newest = self.port().newest(&GroupAt::of(topic, group)).await?;
        Ok(newest.map(|newest| newest.min(sweep.watermark.unwrap_or(newest))))
    }

    /// Continues an interrupted sweep where it stopped, with its own selection and rate.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) when the journal does not have the operation;
    /// [`Invalid`](ErrorKind::Invalid) when the operation has ended; the kinds of the connection.
    /// The journal cannot tell an interrupted sweep from one that still runs elsewhere: two that
    /// run at once share the work.
    pub async fn resume(
        &self,
        topic: &Topic,
        group: &Group,
        operation: Uuid,
        progress: &(dyn Fn(SweepProgress) + Send + Sync),
    ) -> Result<SweepReport, Error> {
        let failed = |kind, rule: String| {
            Error::new(kind, "resume sweep", rule)
                .on(format!("{} {operation}", subject(topic, group)))
        };
        let rows = self.port().journal(&GroupAt::of(topic, group)).await?;
        let Some(row) = rows.into_iter().find(|row| row.id == operation) else {
            let rule = "the journal does not have this operation";
            return Err(failed(ErrorKind::NotFound, rule.to_owned()));
        };
        if let Some(result) = row.result {
            let rule = format!("the operation has ended: {result}");
            return Err(failed(ErrorKind::Invalid, rule));
        }
        let order = Order::decode(&row.order);
        let Some((order, sweep)) = order.and_then(|order| Some((order.clone(), order.sweep()?)))
        else {
            let rule = "the journal keeps only a part of this order; begin a new operation";
            return Err(failed(ErrorKind::Invalid, rule.to_owned()));
        };
        let until = order.until();
        tracing::info!(%topic, %group, %operation, "sweep of dead letters resumes");
        let mut run = RunningSweep::new(self, topic, group, &sweep, operation, until, progress);
        // The failure limit compares with all messages that died again since the beginning.
        run.before = row.taken;
        let after = match &sweep.action {
            // Before the cursor may be dead letters whose publish failed.
            SweepAction::Publish(_) => None,
            SweepAction::Redrive | SweepAction::Purge => row.cursor,
        };
        run.finish(after).await
    }
}

impl<'a> RunningSweep<'a> {
    fn new(
        dead_letters: &'a DeadLetters,
        topic: &'a Topic,
        group: &'a Group,
        sweep: &'a Sweep,
        operation: Uuid,
        until: Option<EntryId>,
        report: &'a (dyn Fn(SweepProgress) + Send + Sync),
    ) -> Self {
        let now = Instant::now();
        Self {
            dead_letters,
            topic,
            group,
            sweep,
            operation,
            until,
            began: now,
            before: 0,
            progress: SweepProgress {
                operation,
                ..SweepProgress::default()
            },
            report,
            looked: until,
            next_look: now,
            refused: None,
        }
    }

    async fn finish(mut self, after: Option<EntryId>) -> Result<SweepReport, Error> {
        (self.report)(self.progress);
        let ended = match &self.sweep.selection {
            Selection::Ids(ids) => self.take_in_portions(ids, &[]).await?,
            Selection::Matching(filter) => self.search(filter, after).await?,
        };
        let SweepProgress {
            taken,
            skipped,
            missing,
            died_again,
            ..
        } = self.progress;
        let mut result = match ended {
            SweepEnd::Done => "done".to_owned(),
            SweepEnd::Stopped => {
                let all = self.before + taken;
                format!("stopped: {died_again} of {all} died again")
            }
        };
        result.push_str(&format!(
            "; {taken} taken, {skipped} skipped, {missing} missing"
        ));
        if let Some(refused) = &self.refused {
            result.push_str(&format!("; {refused}"));
        }
        let (topic, group, operation) = (self.topic, self.group, self.operation);
        tracing::info!(%topic, %group, %operation, result, "sweep of dead letters ended");
        metrics::counter!("redstart_sweeps_total",
            "topic" => topic.to_string(), "group" => group.to_string(),
            "action" => self.sweep.action.to_string(),
            "ended" => ended.as_str())
        .increment(1);
        self.dead_letters
            .port()
            .end_operation(&GroupAt::of(topic, group), operation, &result)
            .await?;
        Ok(SweepReport {
            operation,
            ended,
            progress: self.progress,
        })
    }

    /// Takes the matching dead letters after an id, up to the watermark.
    async fn search(
        &mut self,
        filter: &DeadLetterFilter,
        after: Option<EntryId>,
    ) -> Result<SweepEnd, Error> {
        let port = self.dead_letters.port();
        let mut rest = range_of(filter, after, self.until);
        while let Some(range) = rest {
            let found = port
                .search(&GroupAt::of(self.topic, self.group), range, filter, PAGE)
                .await?;
            let wanted: Vec<EntryId> = found
                .items
                .iter()
                .filter(|(_, summary)| self.sweep.wants(summary).is_ok())
                .map(|(id, _)| *id)
                .collect();
            self.progress.skipped += found.looked - wanted.len() as u64;
            if self.take_in_portions(&wanted, &found.items).await? == SweepEnd::Stopped {
                return Ok(SweepEnd::Stopped);
            }
            (self.report)(self.progress);
            rest = found.next().and_then(|id| range.beyond(id));
        }
        Ok(SweepEnd::Done)
    }

    /// Takes dead letters by id, in portions and at the sweep's pace.
    async fn take_in_portions(
        &mut self,
        ids: &[EntryId],
        known: &[(EntryId, DeadLetterSummary)],
    ) -> Result<SweepEnd, Error> {
        let pace = self.sweep.pace();
        let portion = pace.map_or(MAX_BATCH, |pace| pace.portion(MAX_BATCH));
        for ids in ids.chunks(portion) {
            if let Some(pace) = pace {
                let gone = self.progress.taken + self.progress.missing;
                sleep_until(self.began + pace.due(gone)).await;
            }
            if self.exceeds_failure_limit().await? {
                return Ok(SweepEnd::Stopped);
            }
            let (taken, left) = self.take(ids, known).await?;
            self.progress.taken += taken;
            self.progress.skipped += left;
            self.progress.missing += (ids.len() as u64).saturating_sub(taken + left);
            (self.report)(self.progress);
        }
        Ok(SweepEnd::Done)
    }

    /// Returns how many it took, and how many it left because they cannot be published.
    async fn take(
        &mut self,
        ids: &[EntryId],
        known: &[(EntryId, DeadLetterSummary)],
    ) -> Result<(u64, u64), Error> {
        let (topic, group, operation) = (self.topic, self.group, Some(self.operation));
        let mut portion = PublishedPortion::default();
        let (ids, disposition) = match &self.sweep.action {
            SweepAction::Redrive => (ids, Disposition::Requeue),
            SweepAction::Purge => (ids, Disposition::Discard),
            SweepAction::Publish(to) => {
                portion = self.dead_letters.publish(topic, group, ids, to).await?;
                (&portion.published[..], Disposition::Discard)
            }
        };
        let taken = self
            .dead_letters
            .move_all(topic, group, ids, known, disposition, operation)
            .await?;
        if let Some((id, error)) = portion.refused.first() {
            self.refused.get_or_insert_with(|| {
                let error: String = describe(error).chars().take(LONGEST_REFUSAL).collect();
                format!("{id} was refused: {error}")
            });
        }
        match portion.failed {
            Some(error) => Err(error),
            None => Ok((taken.len() as u64, portion.refused.len() as u64)),
        }
    }

    /// Whether more redriven messages died again than the failure limit allows.
    async fn exceeds_failure_limit(&mut self) -> Result<bool, Error> {
        if self.sweep.failure_limit.is_none() || Instant::now() < self.next_look {
            return Ok(false);
        }
        self.next_look = Instant::now() + LOOK;
        let port = self.dead_letters.port();
        let again = DeadLetterFilter::default().with_redriven(true);
        loop {
            let range = IdRange::after(self.looked);
            let found = port
                .search(&GroupAt::of(self.topic, self.group), range, &again, PAGE)
                .await?;
            let by_this = |summary: &DeadLetterSummary| summary.redriven_by == Some(self.operation);
            let died = found.items.iter().filter(|(_, summary)| by_this(summary));
            self.progress.died_again += died.count() as u64;
            self.looked = found.last.or(self.looked);
            if !found.more {
                break;
            }
        }
        let SweepProgress {
            taken, died_again, ..
        } = self.progress;
        Ok(self.sweep.is_failing(self.before + taken, died_again))
    }
}
