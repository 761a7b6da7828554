//! Settling: XACK in bulk, everything else by script.

use super::adapter::RedisAdapter;
use super::resp::reply;
use super::scripts;
use crate::domain::{Error, whole_millis};
use crate::store::{Commit, DeliveryId, End, Fate, Lane, MAX_BATCH, Member};
use crate::wire::dead_letter::encode_head;

/// A script's arguments are cut at some 1 MiB: it blocks the server, and it has to get there.
const BATCH_BYTES: usize = 1024 * 1024;

/// Cuts items into batches of a bounded number and weight; a heavy one goes alone.
pub(super) fn batches<T>(items: &[T], weight: impl Fn(&T) -> usize) -> Vec<&[T]> {
    batches_of(items, MAX_BATCH, weight)
}

/// As [`batches`], of at most so many items.
pub(super) fn batches_of<T>(items: &[T], most: usize, weight: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(most).take_while(|item| {
            bytes += weight(item);
            bytes <= BATCH_BYTES
        });
        let (batch, later) = rest.split_at(fits.count().max(1));
        batches.push(batch);
        rest = later;
    }
    batches
}

fn weight(commit: &Commit) -> usize {
    match commit.end() {
        End::Reschedule { redelivery, .. } => redelivery.len(),
        End::DeadLetter(record) => record.body.len(),
        End::Ack | End::Release => 0,
    }
}

pub(super) fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Log => "log",
        Lane::Redelivery => "redo",
    }
}

impl RedisAdapter {
    pub(super) async fn ack(&self, member: &Member, receipts: &[DeliveryId]) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        for lane in [Lane::Log, Lane::Redelivery] {
            let ids: Vec<String> = receipts
                .iter()
                .filter(|receipt| receipt.lane == lane)
                .map(|receipt| receipt.id.to_string())
                .collect();
            for ids in ids.chunks(MAX_BATCH) {
                pipeline
                    .cmd("XACK")
                    .arg(self.keys.lane(member.topic(), member.group(), lane))
                    .arg(member.group().as_str())
                    .arg(ids)
                    .ignore();
            }
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        self.net
            .run(
                "acknowledge",
                &self.keys.log(member.topic()),
                async |connection| pipeline.exec_async(connection).await,
            )
            .await
            .map_err(|e| e.on(member.to_string()))
    }

    /// Settles each run of commits that one script can carry out. A failure ends it.
    pub(super) async fn commit_fenced(
        &self,
        by: &Member,
        commits: &[Commit],
    ) -> Vec<Result<Fate, Error>> {
        let mut fates = Vec::with_capacity(commits.len());
        for run in commits.chunk_by(|one, next| is_release(one) == is_release(next)) {
            for batch in batches(run, weight) {
                let done = if is_release(&batch[0]) {
                    let receipts: Vec<_> = batch.iter().map(Commit::delivery).collect();
                    self.change_leases("release", by, &receipts).await
                } else {
                    self.settle_batch(by, batch).await
                };
                let fate = |held| Ok(if held { Fate::Done } else { Fate::Lost });
                match done {
                    Ok(held) => fates.extend(held.into_iter().map(fate)),
                    Err(error) => {
                        fates.resize_with(commits.len(), || Err(error.clone()));
                        return fates;
                    }
                }
            }
        }
        fates
    }

    async fn settle_batch(&self, by: &Member, batch: &[Commit]) -> Result<Vec<bool>, Error> {
        let (topic, group) = (by.topic(), by.group());
        let mut call = scripts::settle()
            .key(self.keys.log(topic))
            .key(self.keys.redo(topic, group))
            .key(self.keys.retry(topic, group))
            .key(self.keys.retry_body(topic, group))
            .key(self.keys.dead(topic, group))
            .key(self.keys.dead_body(topic, group))
            .key(self.keys.dead_counts(topic, group))
            .key(self.keys.dead_causes(topic, group))
            .arg(group.as_str())
            .arg(by.consumer.as_str());
        for commit in batch {
            let receipt = commit.delivery();
            let name = |call: &mut scripts::Call| {
                call.push(lane_name(receipt.lane));
                call.push(receipt.id.to_string());
            };
            match commit.end() {
                End::Reschedule { delay, redelivery } => {
                    name(&mut call);
                    call.push("reschedule");
                    call.push(whole_millis(*delay));
                    call.push(&redelivery[..]);
                }
                End::DeadLetter(record) => {
                    name(&mut call);
                    call.push("dead-letter");
                    call.push(&encode_head(&record.head)[..]);
                    call.push(&record.body[..]);
                }
                // Other calls carry these out.
                End::Ack | End::Release => {}
            }
        }
        let flags = self.net.call("settle", &call, reply::flags).await;
        flags.map_err(|e| e.on(by.to_string()))
    }
}

fn is_release(commit: &Commit) -> bool {
    matches!(commit.end(), End::Release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_number_and_weight_and_lose_nothing() {
        let sizes = [10, 2_000_000, 600_000, 600_000, 1];
        let cut: Vec<Vec<usize>> = batches(&sizes, |size| *size)
            .into_iter()
            .map(<[usize]>::to_vec)
            .collect();
        assert_eq!(
            cut,
            [vec![10], vec![2_000_000], vec![600_000], vec![600_000, 1]]
        );
        assert_eq!(batches(&[0_usize; 1200], |size| *size).len(), 3);
    }
}
