//! Sweeps: survey, begin, go on in portions, stop, end.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::api::{Preview, PublishOptions, SweepEnd, SweepProgress, SweepReport};
use crate::domain::{
    DeadLetterFilter, DeadLetterSummary, EntryId, Error, ErrorKind, Group, Selection, SkipReason,
    Sweep, SweepAction, Topic,
};
use crate::operate::dead_letters::journal::Order;
use crate::operate::dead_letters::{DeadLetterDesk, place};
use crate::store::{Disposition, IdRange, MAX_BATCH};

/// How many heads are held at once.
const PAGE: usize = 1000;

/// How often a sweep looks at what has died again.
const LOOK: Duration = Duration::from_millis(200);

/// For how long a topic remembers which dead letters it was given.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The part of a span that a filter's times leave, up to a watermark; nothing where there is none:
/// there were no dead letters then.
fn within(
    filter: &DeadLetterFilter,
    after: Option<EntryId>,
    watermark: Option<EntryId>,
) -> Option<IdRange> {
    let (since, until) = filter.bounds();
    Some(IdRange {
        after: after.max(since),
        until: Some(watermark?.min(until.unwrap_or(watermark?))),
    })
}

/// A sweep under way.
struct Run<'a> {
    graveyard: &'a DeadLetterDesk,
    topic: &'a Topic,
    group: &'a Group,
    sweep: &'a Sweep,
    operation: Uuid,
    /// The newest dead letter that it is about.
    until: Option<EntryId>,
    began: Instant,
    /// How many it had taken before it was cut off.
    before: u64,
    progress: SweepProgress,
    report: &'a (dyn Fn(SweepProgress) + Send + Sync),
    /// Dead letters that came since are looked through up to here.
    looked: Option<EntryId>,
    next_look: Instant,
}

impl DeadLetterDesk {
    pub(super) async fn look_over(
        &self,
        topic: &Topic,
        group: &Group,
        sweep: &Sweep,
    ) -> Result<Preview, Error> {
        sweep.validate()?;
        let mut survey = Preview::default();
        let mut enter = |id: EntryId, wanted: Result<(), SkipReason>| match wanted {
            Ok(()) => {
                survey.matching += 1;
                let (oldest, newest) = survey.span.get_or_insert((id, id));
                (*oldest, *newest) = ((*oldest).min(id), (*newest).max(id));
            }
            Err(left) => *survey.skipped.entry(left).or_default() += 1,
        };
        match &sweep.selection {
            Selection::Ids(ids) => {
                let mut found = 0;
                for ids in ids.chunks(MAX_BATCH) {
                    for (id, _) in self.dead_letters().find(topic, group, ids).await? {
                        found += 1;
                        enter(id, Ok(()));
                    }
                }
                survey.missing = ids.len() as u64 - found;
            }
            Selection::Matching(filter) => {
                let until = self.dead_letters().newest(topic, group).await?;
                let mut rest = within(filter, None, until);
                let mut looked = 0;
                while let Some(span) = rest {
                    let found = self
                        .dead_letters()
                        .search(topic, group, span, filter, PAGE)
                        .await?;
                    looked += found.looked;
                    for (id, head) in &found.items {
                        enter(*id, sweep.wants(head));
                    }
                    let next = found.next();
                    rest = next.map(|after| IdRange {
                        after: Some(after),
                        ..span
                    });
                }
                let matching = survey.matching + survey.skipped.values().sum::<u64>();
                if looked > matching {
                    survey
                        .skipped
                        .insert(SkipReason::NotMatching, looked - matching);
                }
            }
        }
        Ok(survey)
    }

    pub(super) async fn begin_sweep(
        &self,
        topic: &Topic,
        group: &Group,
        sweep: Sweep,
        report: &(dyn Fn(SweepProgress) + Send + Sync),
    ) -> Result<SweepReport, Error> {
        sweep.validate()?;
        // The watermark: what dies from now on is not part of it.
        let until = self.dead_letters().newest(topic, group).await?;
        let operation = Uuid::now_v7();
        let order = Order::of(&sweep, until, self.store.clock().now());
        self.dead_letters()
            .begin_operation(topic, group, operation, order.encode())
            .await?;
        tracing::info!(
            %topic, %group, %operation, by = sweep.by,
            action = %sweep.action, selection = %sweep.selection,
            "a sweep of dead letters begins",
        );
        let run = Run::new(self, topic, group, &sweep, operation, until, report);
        run.finish(None).await
    }

    pub(super) async fn resume_sweep(
        &self,
        topic: &Topic,
        group: &Group,
        operation: Uuid,
        report: &(dyn Fn(SweepProgress) + Send + Sync),
    ) -> Result<SweepReport, Error> {
        let failed = |kind, rule: String| {
            Error::new(kind, "resume sweep", rule)
                .on(format!("{} {operation}", place(topic, group)))
        };
        let rows = self.dead_letters().journal(topic, group).await?;
        let Some(row) = rows.into_iter().find(|row| row.id == operation) else {
            let rule = "the journal has no such operation";
            return Err(failed(ErrorKind::NotFound, rule.to_owned()));
        };
        if let Some(result) = row.result {
            let rule = format!("it has ended: {result}");
            return Err(failed(ErrorKind::Invalid, rule));
        }
        let order = Order::decode(&row.order);
        let Some((order, sweep)) = order.and_then(|order| Some((order.clone(), order.sweep()?)))
        else {
            let rule = "the journal does not have all of its order; begin a new one".to_owned();
            return Err(failed(ErrorKind::Invalid, rule));
        };
        let until = order.until();
        tracing::info!(%topic, %group, %operation, "a sweep of dead letters goes on");
        let mut run = Run::new(self, topic, group, &sweep, operation, until, report);
        // Those that died again are counted from the beginning, and so must be what was taken.
        run.before = row.taken;
        run.finish(row.cursor).await
    }
}

impl<'a> Run<'a> {
    fn new(
        graveyard: &'a DeadLetterDesk,
        topic: &'a Topic,
        group: &'a Group,
        sweep: &'a Sweep,
        operation: Uuid,
        until: Option<EntryId>,
        report: &'a (dyn Fn(SweepProgress) + Send + Sync),
    ) -> Self {
        let now = Instant::now();
        Self {
            graveyard,
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
        }
    }

    async fn finish(mut self, after: Option<EntryId>) -> Result<SweepReport, Error> {
        (self.report)(self.progress);
        let ended = match &self.sweep.selection {
            Selection::Ids(ids) => self.go_through(ids, &[]).await?,
            Selection::Matching(filter) => self.search(filter, after).await?,
        };
        let SweepProgress {
            taken,
            skipped: left,
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
        result.push_str(&format!("; {taken} taken, {left} left, {missing} missing"));
        let (topic, group, operation) = (self.topic, self.group, self.operation);
        tracing::info!(%topic, %group, %operation, result, "a sweep of dead letters has ended");
        metrics::counter!("redstart_sweeps_total",
            "topic" => topic.to_string(), "group" => group.to_string(),
            "action" => self.sweep.action.to_string(),
            "ended" => if ended == SweepEnd::Done { "done" } else { "stopped" })
        .increment(1);
        let dead_letters = self.graveyard.dead_letters();
        dead_letters
            .end_operation(topic, group, operation, result)
            .await?;
        Ok(SweepReport {
            operation,
            ended,
            progress: self.progress,
        })
    }

    /// Takes what matches after an id, up to the watermark.
    async fn search(
        &mut self,
        filter: &DeadLetterFilter,
        after: Option<EntryId>,
    ) -> Result<SweepEnd, Error> {
        let dead_letters = self.graveyard.dead_letters();
        let mut rest = within(filter, after, self.until);
        while let Some(span) = rest {
            let found = dead_letters
                .search(self.topic, self.group, span, filter, PAGE)
                .await?;
            let wanted: Vec<EntryId> = found
                .items
                .iter()
                .filter(|(_, head)| self.sweep.wants(head).is_ok())
                .map(|(id, _)| *id)
                .collect();
            self.progress.skipped += found.looked - wanted.len() as u64;
            if self.go_through(&wanted, &found.items).await? == SweepEnd::Stopped {
                return Ok(SweepEnd::Stopped);
            }
            (self.report)(self.progress);
            let next = found.next();
            rest = next.map(|after| IdRange {
                after: Some(after),
                ..span
            });
        }
        Ok(SweepEnd::Done)
    }

    /// Takes dead letters by id, in portions and at the pace that was asked for.
    async fn go_through(
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
            if self.died_too_often().await? {
                return Ok(SweepEnd::Stopped);
            }
            let taken = self.take(ids, known).await?;
            self.progress.taken += taken;
            self.progress.missing += ids.len() as u64 - taken;
            (self.report)(self.progress);
        }
        Ok(SweepEnd::Done)
    }

    async fn take(
        &self,
        ids: &[EntryId],
        known: &[(EntryId, DeadLetterSummary)],
    ) -> Result<u64, Error> {
        let (graveyard, operation) = (self.graveyard, Some(self.operation));
        let (topic, group) = (self.topic, self.group);
        let onward = match &self.sweep.action {
            SweepAction::Redrive => Disposition::Requeue,
            SweepAction::Purge => Disposition::Discard,
            SweepAction::Publish(to) => {
                self.publish(to, ids).await?;
                Disposition::Discard
            }
        };
        let taken = graveyard
            .take_to(topic, group, ids, known, onward, operation)
            .await?;
        Ok(taken.len() as u64)
    }

    /// Publishes before anything is taken out, so that nothing is lost where this is cut off. The topic
    /// remembers which dead letters it was given: neither a resumed sweep nor another operator publishes
    /// one again, and an envelope that it had before is no reason to leave one out.
    async fn publish(&self, to: &Topic, ids: &[EntryId]) -> Result<(), Error> {
        let letters = self.graveyard.find(self.topic, self.group, ids).await?;
        let mut messages = Vec::with_capacity(letters.len());
        for letter in letters {
            let mut envelope = letter.envelope()?;
            envelope.reset_attempts();
            let instance = format!("{}/{}/{}", self.topic, self.group, letter.id);
            let instance = Uuid::new_v5(&Uuid::NAMESPACE_URL, instance.as_bytes());
            messages.push((envelope, instance));
        }
        let published = messages.iter().map(|(envelope, instance)| {
            let options = PublishOptions::new().with_instance(*instance, REMEMBERED);
            self.graveyard.bus.publish_with(to, envelope, options)
        });
        for published in join_all(published).await {
            published?;
        }
        Ok(())
    }

    /// Whether more of the redriven have died again than may.
    async fn died_too_often(&mut self) -> Result<bool, Error> {
        if self.sweep.stop_share.is_none() || Instant::now() < self.next_look {
            return Ok(false);
        }
        self.next_look = Instant::now() + LOOK;
        let dead_letters = self.graveyard.dead_letters();
        let again = DeadLetterFilter::default().with_redriven(true);
        loop {
            let span = IdRange::after(self.looked);
            let found = dead_letters
                .search(self.topic, self.group, span, &again, PAGE)
                .await?;
            let by_this = |head: &DeadLetterSummary| head.redriven_by == Some(self.operation);
            let died = found.items.iter().filter(|(_, head)| by_this(head));
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
