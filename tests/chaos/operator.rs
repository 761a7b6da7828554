//! Operators, who look at dead letters and redrive them: two at once, on the same ones.

use std::time::Duration;

use redstart::{
    Container, Group, Topic,
    dead_letters::{DeadLetter, DeadLetterFilter},
};

use crate::history::{Event, now};
use crate::nature::Message;
use crate::nature::Nature;
use crate::support::{group, topic};
use crate::worker::{Work, calm};

/// How many an operator moves at once.
const SOME: usize = 8;

pub(crate) fn redrive(work: &Work) {
    for operator in 0..2 {
        let mut random = fastrand::Rng::with_seed(work.spec.seed ^ (operator << 8));
        let work = work.clone();
        tokio::spawn(async move {
            while !calm(work.journal.path()).exists() {
                tokio::time::sleep(Duration::from_millis(random.u64(50..500))).await;
                let of = group(if random.bool() { "billing" } else { "audit" });
                // Where curing has not begun they die again.
                let cured = work.is_cured();
                redrive_some(&work, &topic("orders"), &of, SOME, |_| {
                    cured || random.u8(0..8) == 0
                })
                .await;
            }
        });
    }
}

/// A record and its message, where it has one.
pub(crate) fn message(letter: &DeadLetter) -> Option<u64> {
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
    mut choose: impl FnMut(u64) -> bool,
) -> usize {
    let since = now();
    let Ok(letters) = list(&work.container, of, group).await else {
        return usize::MAX;
    };
    let known: Vec<_> = letters
        .iter()
        .filter_map(|letter| Some((letter.id, message(letter)?)))
        .collect();
    let told = |records: &[(redstart::envelope::EntryId, u64)]| {
        let named = records.iter().map(|(id, n)| (id.to_string(), *n));
        named.collect::<Vec<_>>()
    };
    let (topic, group_name) = (of.to_string(), group.to_string());
    work.journal.write(Event::Listed {
        topic: topic.clone(),
        group: group_name.clone(),
        since,
        records: told(&known),
    });
    let targets: Vec<_> = known
        .into_iter()
        .filter(|(_, n)| Nature::of(*n) != Nature::Hopeless && choose(*n))
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
        records: told(&targets),
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
