//! The tracks of a subscription: each partition of a shared group is read, extended and settled by itself,
//! so that a partition whose server is away holds up no other.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use crate::store::{DeliveryId, GroupAt, Member, Partition, Reading, Store};
use crate::worker::fault::Faults;
use crate::worker::intake::in_flight::InFlight;
use crate::worker::intake::lease::GroupLease;
use crate::worker::intake::unseen::Unseen;
use crate::worker::meters::Meters;
use crate::worker::services::lease_keeper::LeaseKeeper;
use crate::worker::stir::Stir;

/// What one track keeps for itself.
pub(crate) struct Track {
    /// The partition of the track; `None` for the only track of a subscription, which is for the whole topic.
    pub(crate) partition: Option<u16>,
    /// The subscription's member, on the track's partition.
    pub(crate) member: Arc<Member>,
    pub(crate) faults: Faults,
    /// Held by whichever claims deliveries: recovery or a reclaim.
    pub(crate) claiming: Mutex<()>,
    /// The store may have handed this consumer deliveries whose answer was lost.
    pub(crate) unseen: Unseen,
    /// What gives the track's jobs something to do.
    pub(crate) stir: Arc<Stir>,
    pub(crate) keeper: Arc<LeaseKeeper>,
}

/// What the lease keepers of all tracks share.
pub(crate) struct Shared<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) member: &'a Arc<Member>,
    pub(crate) in_flight: &'a Arc<InFlight>,
    pub(crate) meters: &'a Arc<Meters>,
    pub(crate) lease: &'a Arc<GroupLease>,
    /// Of the whole topic.
    pub(crate) stir: &'a Arc<Stir>,
    pub(crate) faults: &'a Faults,
}

impl Track {
    fn new(partition: Option<u16>, of: &Shared<'_>) -> Self {
        let (member, stir, faults) = match partition {
            None => (
                Arc::clone(of.member),
                Arc::clone(of.stir),
                of.faults.clone(),
            ),
            Some(number) => {
                let at = GroupAt {
                    partition: Partition::numbered(of.member.topic(), number),
                    group: of.member.group().clone(),
                };
                let stir = Stir::new(of.store.bell(&at));
                let consumer = of.member.consumer.clone();
                let member = Member { at, consumer };
                (
                    Arc::new(member),
                    Arc::new(stir),
                    of.faults.of_another_track(),
                )
            }
        };
        let keeper = LeaseKeeper {
            partition,
            store: Arc::clone(of.store),
            member: Arc::clone(&member),
            in_flight: Arc::clone(of.in_flight),
            meters: Arc::clone(of.meters),
            lease: Arc::clone(of.lease),
            fault: faults.extending.clone(),
            stir: Arc::clone(&stir),
        };
        Self {
            partition,
            member,
            faults,
            claiming: Mutex::default(),
            unseen: Unseen::default(),
            stir,
            keeper: Arc::new(keeper),
        }
    }

    /// Whether the track works on a delivery.
    pub(crate) fn has(&self, id: DeliveryId) -> bool {
        self.partition
            .is_none_or(|number| number == id.id.partition())
    }
}

/// The tracks of a subscription, in the order of their partitions; at least one.
#[derive(Clone)]
pub(crate) struct Tracks(Vec<Arc<Track>>);

impl Tracks {
    /// One track for the whole topic, or one for each of several partitions.
    pub(crate) fn new(partitions: u16, of: &Shared<'_>) -> Self {
        Self(match partitions {
            0 | 1 => vec![Arc::new(Track::new(None, of))],
            count => {
                let numbers = (0..count).map(Some);
                numbers
                    .map(|number| Arc::new(Track::new(number, of)))
                    .collect()
            }
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn first(&self) -> &Arc<Track> {
        &self.0[0]
    }

    /// Lets the only track hear another bell.
    #[cfg(test)]
    pub(crate) fn set_stir(&mut self, settling: &mut Self, stir: &Arc<Stir>) {
        settling.0.clear();
        let track = Arc::get_mut(&mut self.0[0]).expect("nobody has the track yet");
        track.stir = Arc::clone(stir);
        settling.clone_from(self);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Track>> + Clone {
        self.0.iter()
    }

    /// The track that works on a delivery.
    pub(crate) fn of(&self, id: DeliveryId) -> &Track {
        &self.0[track_of(id, self.0.len())]
    }

    /// Which connection the tracks read on. Several tracks share one where they may choose.
    pub(crate) fn reading(&self, asked: Reading) -> Reading {
        match asked {
            Reading::Automatic if self.0.len() > 1 => Reading::Shared,
            asked => asked,
        }
    }
}

fn track_of(id: DeliveryId, count: usize) -> usize {
    usize::from(id.id.partition()) % count
}

/// The ends of one channel to each track.
#[derive(Debug)]
pub(crate) struct Senders<T>(Vec<mpsc::Sender<T>>);

impl<T> Senders<T> {
    /// The channel for a delivery.
    pub(crate) fn of(&self, id: DeliveryId) -> &mpsc::Sender<T> {
        &self.0[track_of(id, self.0.len())]
    }
}

#[cfg(test)]
impl<T> Senders<T> {
    pub(crate) async fn send(&self, item: T) -> Result<(), mpsc::error::SendError<T>> {
        self.0[0].send(item).await
    }
}

/// A bounded channel to each track.
pub(crate) fn channels<T>(tracks: usize, capacity: usize) -> (Senders<T>, Vec<mpsc::Receiver<T>>) {
    let channels = (0..tracks).map(|_| mpsc::channel(capacity));
    let (senders, receivers) = channels.unzip();
    (Senders(senders), receivers)
}
