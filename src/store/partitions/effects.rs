//! Effects over partitions: messages go to the partitions of their keys, and a delivery's effects are
//! written in its partition's session.

use super::{Partitioned, bare_delivery, by_partition, half_done, member_at, numbered, route};
use crate::domain::{BoxFuture, Error};
use crate::store::source::{Member, Partition};
use crate::store::{Effect, EffectCommit, EffectFate, EffectStore, Refusal, Session};

/// Effects on single partitions.
struct Routed {
    effects: Vec<Effect>,
    /// For each of them, which effect of the caller it stands for.
    origins: Vec<usize>,
    /// The partition of each message.
    numbers: Vec<u16>,
    /// For each of them, the partition to name in an error; `None` if the topic has a single one.
    named: Vec<Option<u16>>,
}

impl Routed {
    /// The fate as the caller knows the effects.
    fn fate(&self, fate: EffectFate) -> EffectFate {
        let origin = |place: usize| self.origins.get(place).copied().unwrap_or(place);
        match fate {
            EffectFate::Done(mut appended) => {
                for (one, number) in appended.iter_mut().zip(&self.numbers) {
                    one.id = one.id.in_partition(*number);
                }
                EffectFate::Done(appended)
            }
            EffectFate::Differs(place) => EffectFate::Differs(origin(place)),
            EffectFate::Refused(place, why) => {
                let why = match why {
                    Refusal::LaterFull { .. } => {
                        let partition = self.named.get(place).copied().flatten();
                        Refusal::LaterFull { partition }
                    }
                    why => why,
                };
                EffectFate::Refused(origin(place), why)
            }
            other => other,
        }
    }
}

impl Partitioned {
    /// Whether all effects go to topics that have one partition.
    fn are_single(&self, effects: &[Effect]) -> bool {
        effects.iter().all(|effect| match effect {
            Effect::Publish { at, .. }
            | Effect::Schedule { at, .. }
            | Effect::Cancel { at, .. } => self.is_single(at),
            _ => true,
        })
    }

    /// Effects on the partitions of their messages. Messages without a key stay in the partition of the
    /// delivery, where they go to its topic.
    async fn routed(
        &self,
        effects: &[Effect],
        delivery: Option<&Partition>,
    ) -> Result<Routed, Error> {
        let mut routed = Routed {
            effects: Vec::with_capacity(effects.len()),
            origins: Vec::with_capacity(effects.len()),
            numbers: Vec::new(),
            named: Vec::with_capacity(effects.len()),
        };
        for (origin, effect) in effects.iter().enumerate() {
            let mut push = |effect, named| {
                routed.effects.push(effect);
                routed.origins.push(origin);
                routed.named.push(named);
            };
            match effect {
                Effect::Publish { at, entry, window } => {
                    let beside = delivery.filter(|delivery| delivery.topic() == at.topic());
                    let number = match (entry.slot, window, beside) {
                        _ if !at.is_whole() => at.number(),
                        (None, None, Some(beside)) => beside.number(),
                        _ => route(
                            self.count(at.topic()).await?,
                            entry.slot,
                            entry.id.as_bytes(),
                        ),
                    };
                    let effect = Effect::Publish {
                        at: numbered(at, number),
                        entry: entry.clone(),
                        window: *window,
                    };
                    push(effect, None);
                    routed.numbers.push(number);
                }
                Effect::Schedule { at, message } => {
                    let id = message.id.as_str().as_bytes();
                    let count = self.count(at.topic()).await?;
                    let number = match at.is_whole() {
                        true => route(count, message.slot, id),
                        false => at.number(),
                    };
                    let effect = Effect::Schedule {
                        at: numbered(at, number),
                        message: message.clone(),
                    };
                    push(effect, (count > 1).then_some(number));
                }
                Effect::Cancel { at, id } => {
                    for at in self.partitions_meant(at).await? {
                        let id = id.clone();
                        push(Effect::Cancel { at, id }, None);
                    }
                }
                other => push(other.clone(), None),
            }
        }
        Ok(routed)
    }

    /// Commits one partition after the other. A repeated call gets the remembered answers of the
    /// partitions that have written. A caller that sends one partition at a time learns of a lasting
    /// refusal; of a call that is half done, the outcome stays unknown.
    async fn commit_routed(
        &self,
        (by, token): (&Member, Option<u64>),
        number: u64,
        commits: &[EffectCommit],
    ) -> Result<Vec<EffectFate>, Error> {
        let parts = commits.iter().map(|one| (one.delivery.id.partition(), one));
        let mut fates: Vec<(usize, EffectFate)> = Vec::with_capacity(commits.len());
        for (partition, commits) in by_partition(parts) {
            let by = member_at(by, partition);
            let (mut routes, mut sent) = (Vec::new(), Vec::new());
            for (place, commit) in commits {
                let routed = self.routed(&commit.effects, Some(&by.at.partition)).await;
                let routed = routed.map_err(|error| half_done(error, !fates.is_empty()))?;
                sent.push(EffectCommit {
                    delivery: bare_delivery(commit.delivery),
                    effects: routed.effects.clone(),
                    ..*commit
                });
                routes.push((place, routed));
            }
            let effects = self.inner.effects();
            let answers = match token {
                Some(token) => effects.commit_owned(&by, token, number, &sent).await,
                None => effects.commit(&by, number, &sent).await,
            };
            let answers = answers.map_err(|error| half_done(error, !fates.is_empty()))?;
            for ((place, routed), fate) in routes.into_iter().zip(answers) {
                fates.push((place, routed.fate(fate)));
            }
        }
        fates.sort_by_key(|(place, _)| *place);
        Ok(fates.into_iter().map(|(_, fate)| fate).collect())
    }
}

impl EffectStore for Partitioned {
    fn commit<'a>(
        &'a self,
        by: &'a Member,
        number: u64,
        commits: &'a [EffectCommit],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        let single =
            |one: &EffectCommit| one.delivery.id.partition() == 0 && self.are_single(&one.effects);
        if commits.iter().all(single) {
            return self.inner.effects().commit(by, number, commits);
        }
        Box::pin(self.commit_routed((by, None), number, commits))
    }

    fn commit_owned<'a>(
        &'a self,
        by: &'a Member,
        token: u64,
        number: u64,
        commits: &'a [EffectCommit],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        let single =
            |one: &EffectCommit| one.delivery.id.partition() == 0 && self.are_single(&one.effects);
        if commits.iter().all(single) {
            return self
                .inner
                .effects()
                .commit_owned(by, token, number, commits);
        }
        Box::pin(self.commit_routed((by, Some(token)), number, commits))
    }

    fn apply<'a>(
        &'a self,
        session: Session,
        commits: &'a [Vec<Effect>],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        if commits.iter().all(|effects| self.are_single(effects)) {
            return self.inner.effects().apply(session, commits);
        }
        Box::pin(async move {
            let (mut routes, mut sent) = (Vec::new(), Vec::new());
            for effects in commits {
                let routed = self.routed(effects, None).await?;
                sent.push(routed.effects.clone());
                routes.push(routed);
            }
            let fates = self.inner.effects().apply(session, &sent).await?;
            let fates = routes.into_iter().zip(fates);
            Ok(fates.map(|(routed, fate)| routed.fate(fate)).collect())
        })
    }

    fn rehearse<'a>(&'a self, effects: &'a [Effect]) -> BoxFuture<'a, Result<EffectFate, Error>> {
        if self.are_single(effects) {
            return self.inner.effects().rehearse(effects);
        }
        Box::pin(async move {
            let routed = self.routed(effects, None).await?;
            let fate = self.inner.effects().rehearse(&routed.effects).await?;
            Ok(routed.fate(fate))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::adapters::memory::MemoryStore;
    use crate::domain::{ScheduleId, Topic, TopicSettings, When};
    use crate::store::{Effect, EffectFate, NewLater, Partition, Refusal};

    #[tokio::test]
    async fn a_full_partition_is_named_where_the_topic_has_several() {
        let store = MemoryStore::new().store(None);
        let [many, one] = ["many", "one"].map(|name| Topic::new(name).unwrap());
        for (topic, partitions) in [(&many, 2), (&one, 1)] {
            let settings = TopicSettings::default().with_backlog_limit(1);
            let settings = settings.with_partitions(partitions);
            let made = store.topics().ensure_topic(topic, settings);
            made.await.unwrap();
        }
        let schedule = |topic: &Topic, id: &str| Effect::Schedule {
            at: Partition::of(topic),
            message: NewLater {
                id: ScheduleId::new(id).unwrap(),
                due: When::After(Duration::from_secs(60)),
                keeps: false,
                name: "json",
                value: "1".into(),
                slot: Some(1),
            },
        };
        let full = async |topic: &Topic| {
            let effects = [
                schedule(&many, "first"),
                schedule(topic, "a"),
                schedule(topic, "b"),
            ];
            match store.effects().rehearse(&effects).await.unwrap() {
                EffectFate::Refused(_, Refusal::LaterFull { partition }) => partition,
                fate => panic!("{fate:?}"),
            }
        };
        assert_eq!(full(&many).await, Some(1));
        assert_eq!(full(&one).await, None);
    }
}
