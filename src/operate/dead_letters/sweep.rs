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
    parts: Vec<Part>,
    began: Instant,
    /// How many the sweep took before an interruption.
    before: u64,
    progress: SweepProgress,
    report: &'a (dyn Fn(SweepProgress) + Send + Sync),
    next_look: Instant,
    /// The first dead letter that could not be published, and the error.
    refused: Option<String>,
}

/// How far a sweep goes on one partition. The ids of a partition follow the clock of its server.
struct Part {
    at: GroupAt,
    /// The last dead letter that the sweep reached before an interruption.
    after: Option<EntryId>,
    /// The watermark: the newest dead letter that the sweep may take.
    until: Option<EntryId>,
    /// The newest dead letter among which the sweep looked for messages that died again.
    looked: Option<EntryId>,
}

impl Part {
    fn new(at: GroupAt, after: Option<EntryId>, until: Option<EntryId>) -> Self {
        let looked = until;
        Self {
            at,
            after,
            until,
            looked,
        }
    }
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
        let mut parts = Vec::new();
        for at in self.parts(topic, group).await? {
            let until = self.watermark(&at, &sweep).await?;
            parts.push(Part::new(at, None, until));
        }
        let (operation, now) = (Uuid::now_v7(), self.store.now());
        for part in &parts {
            let order = Order::of(&sweep, part.until, now).encode();
            let begun = self.port().begin_operation(&part.at, operation, &order);
            begun.await?;
        }
        tracing::info!(
            %topic, %group, %operation, operator = sweep.operator,
            action = %sweep.action, selection = %sweep.selection,
            "sweep of dead letters begins",
        );
        let run = RunningSweep::new(self, topic, group, &sweep, operation, parts, progress);
        run.finish().await
    }

    /// The newest dead letter that a sweep may take when it begins now; `None` where there is none.
    pub(super) async fn watermark(
        &self,
        at: &GroupAt,
        sweep: &Sweep,
    ) -> Result<Option<EntryId>, Error> {
        let number = at.partition.number();
        let newest = match &sweep.newest {
            Some(all) => all.iter().copied().find(|id| id.partition() == number),
            None => self.port().newest(at).await?,
        };
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
        let (mut rows, mut found) = (Vec::new(), None);
        for at in self.parts(topic, group).await? {
            let journal = self.port().journal(&at).await?;
            let row = journal.into_iter().find(|row| row.id == operation);
            found = found.or_else(|| row.clone());
            rows.push((at, row));
        }
        let Some(found) = found else {
            let rule = "the journal does not have this operation";
            return Err(failed(ErrorKind::NotFound, rule.to_owned()));
        };
        let mut results = rows
            .iter()
            .filter_map(|(_, row)| row.as_ref()?.result.as_ref());
        if let Some(result) = results.next() {
            let rule = format!("the operation has ended: {result}");
            return Err(failed(ErrorKind::Invalid, rule));
        }
        let order = Order::decode(&found.order);
        let Some((order, sweep)) = order.and_then(|order| Some((order.clone(), order.sweep()?)))
        else {
            let rule = "the journal keeps only a part of this order; begin a new operation";
            return Err(failed(ErrorKind::Invalid, rule.to_owned()));
        };
        let mut taken = 0;
        let parts = rows.into_iter().map(|(at, row)| {
            // The beginning may have been interrupted before it came to this partition.
            let own = row.as_ref().and_then(|row| Order::decode(&row.order));
            let until = own.as_ref().unwrap_or(&order).until();
            taken += row.as_ref().map_or(0, |row| row.taken);
            let cursor = row.and_then(|row| row.cursor);
            let after = match &sweep.action {
                // Before the cursor may be dead letters whose publish failed.
                SweepAction::Publish(_) => None,
                SweepAction::Redrive | SweepAction::Purge => cursor,
            };
            Part::new(at, after, until)
        });
        let parts = parts.collect();
        tracing::info!(%topic, %group, %operation, "sweep of dead letters resumes");
        let mut run = RunningSweep::new(self, topic, group, &sweep, operation, parts, progress);
        // The failure limit compares with all messages that died again since the beginning.
        run.before = taken;
        run.finish().await
    }
}

impl<'a> RunningSweep<'a> {
    fn new(
        dead_letters: &'a DeadLetters,
        topic: &'a Topic,
        group: &'a Group,
        sweep: &'a Sweep,
        operation: Uuid,
        parts: Vec<Part>,
        report: &'a (dyn Fn(SweepProgress) + Send + Sync),
    ) -> Self {
        let now = Instant::now();
        Self {
            dead_letters,
            topic,
            group,
            sweep,
            operation,
            parts,
            began: now,
            before: 0,
            progress: SweepProgress {
                operation,
                ..SweepProgress::default()
            },
            report,
            next_look: now,
            refused: None,
        }
    }

    async fn finish(mut self) -> Result<SweepReport, Error> {
        (self.report)(self.progress);
        let ended = match &self.sweep.selection {
            Selection::Ids(ids) => self.take_in_portions(ids, &[]).await?,
            Selection::Matching(filter) => self.search(filter).await?,
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

    /// Takes the matching dead letters of each partition, up to its watermark.
    async fn search(&mut self, filter: &DeadLetterFilter) -> Result<SweepEnd, Error> {
        let port = self.dead_letters.port();
        for part in 0..self.parts.len() {
            let Part {
                at, after, until, ..
            } = &self.parts[part];
            let (at, mut rest) = (at.clone(), range_of(filter, *after, *until));
            while let Some(range) = rest {
                let found = port.search(&at, range, filter, PAGE).await?;
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
        for part in &mut self.parts {
            loop {
                let range = IdRange::after(part.looked);
                let found = port.search(&part.at, range, &again, PAGE).await?;
                let by_this =
                    |summary: &DeadLetterSummary| summary.redriven_by == Some(self.operation);
                let died = found.items.iter().filter(|(_, summary)| by_this(summary));
                self.progress.died_again += died.count() as u64;
                part.looked = found.last.or(part.looked);
                if !found.more {
                    break;
                }
            }
        }
        let SweepProgress {
            taken, died_again, ..
        } = self.progress;
        Ok(self.sweep.is_failing(self.before + taken, died_again))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::container::Container;
    use crate::domain::{Reason, SkipReason, TopicSettings};
    use crate::store::{MAX_BATCH, Record, Restoring, StartFrom};

    /// A dead letter in a partition, the number of which says its type.
    fn restoring(partition: u16, n: u64) -> Restoring {
        let head = DeadLetterSummary {
            reason: Reason::Rejected,
            fingerprint: "no".to_owned(),
            message_type: if n.is_multiple_of(5) { "b" } else { "a" }.to_owned(),
            tenant: None,
            correlation: None,
            message_id: None,
            error: "no".to_owned(),
            attempts: 1,
            redriven: 0,
            redriven_by: None,
            imported_from: None,
        };
        Restoring {
            identity: format!("{partition}/{n}"),
            own: Some(EntryId::new(1, n).in_partition(partition)),
            record: Record {
                head,
                body: Bytes::new(),
            },
        }
    }

    #[tokio::test]
    async fn each_dead_letter_of_several_partitions_is_counted_once() {
        let container = Container::in_memory().await.unwrap();
        let (orders, billing) = (
            Topic::new("orders").unwrap(),
            Group::new("billing").unwrap(),
        );
        let settings = TopicSettings::default().with_partitions(3);
        container.topics().create(&orders, settings).await.unwrap();
        let (store, at) = (container.store(), GroupAt::of(&orders, &billing));
        let start = StartFrom::Beginning;
        store.topics().create_group(&at, start).await.unwrap();
        // More than a page matches on each partition.
        let of = |partition| (0..1500).map(move |n| restoring(partition, n));
        let all: Vec<Restoring> = (0..3).flat_map(of).collect();
        for some in all.chunks(MAX_BATCH) {
            store
                .dead_letters()
                .restore(&at, some, false)
                .await
                .unwrap();
        }
        let dead = container.dead_letters();
        let filter = DeadLetterFilter::default().with_message_type("a");
        let sweep = Sweep::purge(filter).with_operator("ann");
        let preview = dead.preview(&orders, &billing, &sweep).await.unwrap();
        assert_eq!(preview.matching, 3600);
        assert_eq!(preview.skipped[&SkipReason::NotMatching], 900);
        let report = dead.sweep(&orders, &billing, sweep, &|_| {}).await.unwrap();
        assert_eq!(
            (report.progress.taken, report.progress.skipped),
            (3600, 900)
        );
        let journal = dead.journal(&orders, &billing).await.unwrap();
        assert_eq!((journal.len(), journal[0].taken), (1, 3600));
    }
}
