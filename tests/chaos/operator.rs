//! Operators, who look at dead letters and redrive them: two at once, on the same ones.

use std::collections::BTreeSet;
use std::time::Duration;

use redstart::{
    Container, Group, Topic,
    dead_letters::{DeadLetter, DeadLetterFilter},
};

use crate::history::{Event, Letter, now};
use crate::nature::{Message, Nature, ORDERS};
use crate::support::{group, topic};
use crate::worker::{Work, calm};

/// How many an operator moves at once.
const SOME: usize = 8;

pub(crate) fn redrive(work: &Work) {
    for operator in 0..2 {
        let mut random = fastrand::Rng::with_seed(work.spec.seed ^ (operator << 8));
        let work = work.clone();
        tokio::spawn(async move {
            let mut known = Known::new();
            while !calm(work.journal.path()).exists() {
                tokio::time::sleep(Duration::from_millis(random.u64(50..500))).await;
                let of = group(if random.bool() { "billing" } else { "audit" });
                // Where curing has not begun they die again.
                let cured = work.is_cured();
                redrive_some(&work, &topic(ORDERS), &of, SOME, &mut known, |_| {
                    cured || random.u8(0..8) == 0
                })
                .await;
            }
        });
    }
}

/// The dead letters that an operator has written to the history, by group and record.
pub(crate) type Known = BTreeSet<(String, String, String)>;

/// A dead letter, for the history.
pub(crate) fn told(letter: &DeadLetter) -> Letter {
    Letter {
        record: letter.id.to_string(),
        n: message(letter),
        entry: letter.history.origin.to_string(),
        reason: letter.reason.to_string(),
        attempts: letter.attempts,
        redriven: letter.history.redriven,
    }
}

/// A record's message, where it has one.
fn message(letter: &DeadLetter) -> Option<u64> {
    let envelope = letter.envelope().ok()?;
    Some(envelope.payload::<Message>().ok()?.n)
}

/// All dead letters of a group.
pub(crate) async fn list(
    container: &Container,
    of: &Topic,
    group: &Group,
) -> Result<Vec<DeadLetter>, redstart::Error> {
    let dead = container.dead_letters();
    let (filter, mut after) = (DeadLetterFilter::default(), None);
    let mut all = Vec::new();
    loop {
        let page = dead.list(of, group, &filter, after, 500).await?;
        let ids: Vec<_> = page.items.iter().map(|(id, _)| *id).collect();
        all.extend(dead.get(of, group, &ids).await?);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

/// Redrives up to `most` dead letters and returns how many it redrove.
pub(crate) async fn redrive_some(
    work: &Work,
    of: &Topic,
    group: &Group,
    most: usize,
    known: &mut Known,
    mut choose: impl FnMut(u64) -> bool,
) -> usize {
    let since = now();
    let Ok(letters) = list(&work.container, of, group).await else {
        return usize::MAX;
    };
    let (topic, group_name) = (of.to_string(), group.to_string());
    let new: Vec<Letter> = letters
        .iter()
        .filter(|letter| known.insert((topic.clone(), group_name.clone(), letter.id.to_string())))
        .map(told)
        .collect();
    if !new.is_empty() {
        work.journal.write(Event::Listed {
            topic: topic.clone(),
            group: group_name.clone(),
            since,
            letters: new,
        });
    }
    let targets: Vec<_> = letters
        .iter()
        .filter_map(|letter| Some((letter.id, message(letter)?)))
        .filter(|(_, n)| Nature::of(&topic, *n).may_recover() && choose(*n))
        .take(most)
        .collect();
    if targets.is_empty() {
        return 0;
    }
    let call = work.numbers.next();
    work.journal.write(Event::Redrive {
        topic,
        group: group_name,
        call,
        records: targets.iter().map(|(id, n)| (id.to_string(), *n)).collect(),
    });
    let ids: Vec<_> = targets.iter().map(|(id, _)| *id).collect();
    let result = work.container.dead_letters().redrive(of, group, &ids).await;
    // After an error some may have been moved.
    let done = result.ok().map(|redriven| {
        let ids = redriven.moved.iter().map(ToString::to_string);
        ids.collect()
    });
    work.journal.write(Event::Moved { call, done });
    targets.len()
}
