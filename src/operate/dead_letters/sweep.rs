//! Sweeps: survey, begin, go on in portions, stop, end.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::api::{Ended, Progress, PublishOptions, Survey, Swept};
use crate::domain::{
    Action, DeadLetterFilter, DeadLetterHead, EntryId, Error, ErrorKind, Group, Left, Selection,
    Sweep, Topic,
};
use crate::operate::dead_letters::journal::Order;
use crate::operate::dead_letters::{Graveyard, place};
use crate::store::{MAX_BATCH, Onward, Span};

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
) -> Option<Span> {
    let (since, until) = filter.bounds();
    Some(Span {
        after: after.max(since),
        until: Some(watermark?.min(until.unwrap_or(watermark?))),
    })
}

/// A sweep under way.
struct Run<'a> {
    graveyard: &'a Graveyard,
    topic: &'a Topic,
    group: &'a Group,
    sweep: &'a Sweep,
    operation: Uuid,
    /// The newest dead letter that it is about.
    until: Option<EntryId>,
    began: Instant,
    /// How many it had taken before it was cut off.
    before: u64,
    progress: Progress,
    report: &'a (dyn Fn(Progress) + Send + Sync),
    /// Dead letters that came since are looked through up to here.
    looked: Option<EntryId>,
    next_look: Instant,
}

impl Graveyard {
    pub(super) async fn look_over(
        &self,
        topic: &Topic,
        group: &Group,
        sweep: &Sweep,
    ) -> Result<Survey, Error> {
        sweep.check()?;
        let mut survey = Survey::default();
        let mut enter = |id: EntryId, wanted: Result<(), Left>| match wanted {
            Ok(()) => {
                survey.matching += 1;
                let (oldest, newest) = survey.span.get_or_insert((id, id));
                (*oldest, *newest) = ((*oldest).min(id), (*newest).max(id));
            }
            Err(left) => *survey.left.entry(left).or_default() += 1,
        };
        match &sweep.selection {
            Selection::Ids(ids) => {
                let mut found = 0;
                for ids in ids.chunks(MAX_BATCH) {
                    for (id, _) in self.graves().find(topic, group, ids).await? {
                        found += 1;
                        enter(id, Ok(()));
                    }
                }
                survey.missing = ids.len() as u64 - found;
            }
            Selection::Matching(filter) => {
                let until = self.graves().last(topic, group).await?;
                let mut rest = within(filter, None, until);
                let mut looked = 0;
                while let Some(span) = rest {
                    let found = self
                        .graves()
                        .search(topic, group, span, filter, PAGE)
                        .await?;
                    looked += found.looked;
                    for (id, head) in &found.letters {
                        enter(*id, sweep.wants(head));
                    }
                    let next = found.next();
                    rest = next.map(|after| Span {
                        after: Some(after),
                        ..span
                    });
                }
                let matching = survey.matching + survey.left.values().sum::<u64>();
                if looked > matching {
                    survey.left.insert(Left::NotMatching, looked - matching);
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
        report: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Swept, Error> {
        sweep.check()?;
        // The watermark: what dies from now on is not part of it.
        let until = self.graves().last(topic, group).await?;
        let operation = Uuid::now_v7();
        let order = Order::of(&sweep, until, self.backend.clock().now());
        self.graves()
            .begin(topic, group, operation, order.encode())
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
        report: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Swept, Error> {
        let failed = |kind, rule: String| {
            Error::new(kind, "resume sweep", rule)
                .on(format!("{} {operation}", place(topic, group)))
        };
        let rows = self.graves().journal(topic, group).await?;
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
        graveyard: &'a Graveyard,
        topic: &'a Topic,
        group: &'a Group,
        sweep: &'a Sweep,
        operation: Uuid,
        until: Option<EntryId>,
        report: &'a (dyn Fn(Progress) + Send + Sync),
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
            progress: Progress {
                operation,
                ..Progress::default()
            },
            report,
            looked: until,
            next_look: now,
        }
    }

    async fn finish(mut self, after: Option<EntryId>) -> Result<Swept, Error> {
        (self.report)(self.progress);
        let ended = match &self.sweep.selection {
            Selection::Ids(ids) => self.go_through(ids, &[]).await?,
            Selection::Matching(filter) => self.search(filter, after).await?,
        };
        let Progress {
            taken,
            left,
            missing,
            died_again,
            ..
        } = self.progress;
        let mut result = match ended {
            Ended::Done => "done".to_owned(),
            Ended::Stopped => {
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
            "ended" => if ended == Ended::Done { "done" } else { "stopped" })
        .increment(1);
        let graves = self.graveyard.graves();
        graves.end(topic, group, operation, result).await?;
        Ok(Swept {
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
    ) -> Result<Ended, Error> {
        let graves = self.graveyard.graves();
        let mut rest = within(filter, after, self.until);
        while let Some(span) = rest {
            let found = graves
                .search(self.topic, self.group, span, filter, PAGE)
                .await?;
            let wanted: Vec<EntryId> = found
                .letters
                .iter()
                .filter(|(_, head)| self.sweep.wants(head).is_ok())
                .map(|(id, _)| *id)
                .collect();
            self.progress.left += found.looked - wanted.len() as u64;
            if self.go_through(&wanted, &found.letters).await? == Ended::Stopped {
                return Ok(Ended::Stopped);
            }
            (self.report)(self.progress);
            let next = found.next();
            rest = next.map(|after| Span {
                after: Some(after),
                ..span
            });
        }
        Ok(Ended::Done)
    }

    /// Takes dead letters by id, in portions and at the pace that was asked for.
    async fn go_through(
        &mut self,
        ids: &[EntryId],
        known: &[(EntryId, DeadLetterHead)],
    ) -> Result<Ended, Error> {
        let pace = self.sweep.pace();
        let portion = pace.map_or(MAX_BATCH, |pace| pace.portion(MAX_BATCH));
        for ids in ids.chunks(portion) {
            if let Some(pace) = pace {
                let gone = self.progress.taken + self.progress.missing;
                sleep_until(self.began + pace.due(gone)).await;
            }
            if self.died_too_often().await? {
                return Ok(Ended::Stopped);
            }
            let taken = self.take(ids, known).await?;
            self.progress.taken += taken;
            self.progress.missing += ids.len() as u64 - taken;
            (self.report)(self.progress);
        }
        Ok(Ended::Done)
    }

    async fn take(
        &self,
        ids: &[EntryId],
        known: &[(EntryId, DeadLetterHead)],
    ) -> Result<u64, Error> {
        let (graveyard, operation) = (self.graveyard, Some(self.operation));
        let (topic, group) = (self.topic, self.group);
        let onward = match &self.sweep.action {
            Action::Redrive => Onward::Redo,
            Action::Purge => Onward::Away,
            Action::Publish(to) => {
                self.publish(to, ids).await?;
                Onward::Away
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
            envelope.forget_attempts();
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
        let graves = self.graveyard.graves();
        let again = DeadLetterFilter::default().with_redriven(true);
        loop {
            let span = Span::after(self.looked);
            let found = graves
                .search(self.topic, self.group, span, &again, PAGE)
                .await?;
            let by_this = |head: &DeadLetterHead| head.redriven_by == Some(self.operation);
            let died = found.letters.iter().filter(|(_, head)| by_this(head));
            self.progress.died_again += died.count() as u64;
            self.looked = found.last.or(self.looked);
            if !found.more {
                break;
            }
        }
        let Progress {
            taken, died_again, ..
        } = self.progress;
        Ok(self.sweep.is_failing(self.before + taken, died_again))
    }
}
