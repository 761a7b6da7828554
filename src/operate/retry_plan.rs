//! Running or cancelling retries: planned, confirmed, run.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use crate::domain::{Error, Group, Topic};
use crate::operate::dead_letters::counted;
use crate::operate::plan::{Confirmed, Plan};
use crate::operate::retries::{Retries, ScheduledRetry};
use crate::store::{DeliveryId, MAX_BATCH};

/// The scheduled retries that an operation takes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RetrySelection {
    /// The retries with these ids.
    Ids(Vec<DeliveryId>),
    /// All retries that are scheduled when the operation is planned.
    All,
}

/// What an operation does to scheduled retries.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum RetryAction {
    /// Runs them before they are due.
    RunNow,
    /// Removes them for good.
    Cancel,
}

/// What a planned operation on retries will do. [`Display`](fmt::Display) says it in one line for
/// each fact.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedRetries {
    /// The topic.
    pub topic: Topic,
    /// The group.
    pub group: Group,
    /// What the operation does.
    pub action: RetryAction,
    /// How many scheduled retries the operation will take.
    pub matching: u64,
    /// How many of the selected ids are not scheduled.
    pub missing: u64,
    /// The retries that the operation will take.
    #[serde(skip)]
    pub ids: Vec<DeliveryId>,
    #[serde(skip)]
    named: bool,
}

impl fmt::Display for PlannedRetries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, group) = (&self.topic, &self.group);
        let retries = counted(self.matching, "scheduled retry", "scheduled retries");
        match self.action {
            RetryAction::RunNow => write!(f, "will run {retries} of {topic}/{group} now")?,
            RetryAction::Cancel => {
                write!(
                    f,
                    "will cancel {retries} of {topic}/{group}: remove them for good"
                )?;
            }
        }
        if self.missing > 0 {
            let ids = counted(self.missing, "id is", "ids are");
            write!(f, "\n{ids} not scheduled")?;
        }
        Ok(())
    }
}

/// What an operation did to scheduled retries.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RetriesReport {
    /// What the operation did.
    pub action: RetryAction,
    /// How many retries it moved or removed.
    pub moved: u64,
    /// How many of the selected ids were not scheduled.
    pub missing: u64,
}

impl Retries {
    /// Plans to run or cancel retries. A cancellation asks for the count of retries.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn plan(
        &self,
        topic: &Topic,
        group: &Group,
        action: RetryAction,
        selection: RetrySelection,
    ) -> Result<Plan<PlannedRetries>, Error> {
        let wanted: Option<HashSet<DeliveryId>> = match selection {
            RetrySelection::Ids(ids) => Some(ids.into_iter().collect()),
            RetrySelection::All => None,
        };
        // A retry that fails again meanwhile can be on a second page.
        let (mut ids, mut seen) = (Vec::new(), HashSet::new());
        let mut last: Option<ScheduledRetry> = None;
        // The store has no lookup by id: the list ends early once every id is found.
        while wanted
            .as_ref()
            .is_none_or(|wanted| ids.len() < wanted.len())
        {
            let page = self.list(topic, group, last.as_ref(), MAX_BATCH).await?;
            let is_wanted =
                |id: &DeliveryId| wanted.as_ref().is_none_or(|wanted| wanted.contains(id));
            let found = page.iter().map(|retry| retry.id).filter(is_wanted);
            ids.extend(found.filter(|id| seen.insert(*id)));
            last = page.into_iter().next_back();
            if last.is_none() {
                break;
            }
        }
        let missing = wanted.as_ref().map_or(0, |wanted| wanted.len() - ids.len()) as u64;
        let asks = action == RetryAction::Cancel && !ids.is_empty();
        let confirmation = asks.then(|| ids.len().to_string());
        let planned = PlannedRetries {
            topic: topic.clone(),
            group: group.clone(),
            action,
            matching: ids.len() as u64,
            missing,
            ids,
            named: wanted.is_some(),
        };
        Ok(Plan::new(planned, confirmation))
    }

    /// Runs a confirmed plan, see [`run_now`](Self::run_now) and [`cancel`](Self::cancel).
    ///
    /// A retry that becomes due between plan and run counts as missing where its id was selected.
    ///
    /// # Errors
    ///
    /// The kinds of the connection. Some retries may have moved.
    pub async fn run(&self, plan: Confirmed<PlannedRetries>) -> Result<RetriesReport, Error> {
        let plan = plan.into_plan();
        let result = match plan.action {
            RetryAction::RunNow => self.run_now(&plan.topic, &plan.group, &plan.ids).await?,
            RetryAction::Cancel => self.cancel(&plan.topic, &plan.group, &plan.ids).await?,
        };
        let gone = if plan.named { result.missing.len() } else { 0 };
        Ok(RetriesReport {
            action: plan.action,
            moved: result.moved.len() as u64,
            missing: plan.missing + gone as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::domain::{BoxFuture, Timestamp};
    use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use crate::store::{ScheduleAnswer, ScheduleOp, Scheduled, ScheduledPage};

    /// A retry that fails again, and is scheduled for later, while an operator reads the pages.
    #[derive(Debug)]
    struct Moves;

    impl Decorator for Moves {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut to: Next<'a>,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            Box::pin(async move {
                let Op::Schedule(ScheduleOp::List { after, .. }) = op else {
                    return to.run(op).await;
                };
                let at = |millis| Timestamp::from_millis(millis).unwrap();
                let retry = |due: i64, id: &str| Scheduled {
                    receipt: id.parse().unwrap(),
                    due: at(due),
                    redelivery: "".into(),
                };
                let entries = match after.map_or(0, |(due, _)| due.as_millis()) {
                    0 => vec![retry(1, "1-1")],
                    1 => vec![retry(5, "1-1"), retry(6, "2-1"), retry(7, "3-1")],
                    _ => Vec::new(),
                };
                let now = at(0);
                let page = ScheduledPage { now, entries };
                Ok(Answer::Schedule(ScheduleAnswer::List(page)))
            })
        }
    }

    #[tokio::test]
    async fn a_retry_on_two_pages_counts_once() {
        let inner = MemoryStore::new().store(None);
        let retries = Retries::new(Arc::new(Decorated::new(Arc::new(Moves), inner)));
        let (topic, group) = ("orders".parse().unwrap(), "billing".parse().unwrap());
        let ids = |all: &[&str]| all.iter().map(|id| id.parse().unwrap()).collect();
        for (selection, matching, missing) in [
            (RetrySelection::Ids(ids(&["1-1", "3-1"])), 2, 0),
            (RetrySelection::Ids(ids(&["1-1", "9-1"])), 1, 1),
            (RetrySelection::All, 3, 0),
        ] {
            let action = RetryAction::Cancel;
            let plan = retries.plan(&topic, &group, action, selection);
            let plan = plan.await.unwrap();
            let planned = plan.preview();
            assert_eq!((planned.matching, planned.missing), (matching, missing));
        }
    }

    #[test]
    fn a_plan_says_what_will_happen() {
        let planned = |action, matching, missing| PlannedRetries {
            topic: Topic::new("orders").unwrap(),
            group: Group::new("billing").unwrap(),
            action,
            matching,
            missing,
            ids: Vec::new(),
            named: true,
        };
        assert_eq!(
            planned(RetryAction::RunNow, 1, 0).to_string(),
            "will run 1 scheduled retry of orders/billing now"
        );
        assert_eq!(
            planned(RetryAction::Cancel, 3, 2).to_string(),
            "will cancel 3 scheduled retries of orders/billing: remove them for good\n\
             2 ids are not scheduled"
        );
    }
}
