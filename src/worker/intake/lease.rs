//! The lease of the group, which the consumers of a group share.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{Error, describe};
use crate::store::{Member, Store};

/// How often a consumer with a shorter lease asks whether it may hold now.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The lease that holds, as far as this consumer knows, and the one that its options ask for.
#[derive(Debug)]
pub(crate) struct GroupLease {
    asked: Duration,
    held: watch::Sender<Duration>,
}

impl GroupLease {
    pub(crate) fn new(asked: Duration) -> Self {
        let held = watch::Sender::new(asked);
        Self { asked, held }
    }

    pub(crate) fn get(&self) -> Duration {
        *self.held.borrow()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Duration> {
        self.held.subscribe()
    }

    /// Asks the store to set the lease of the options, and notes the lease that holds.
    pub(crate) async fn set(&self, store: &dyn Store, member: &Member) -> Result<(), Error> {
        let held = store.topics().set_lease(member, self.asked).await?;
        self.note(held, member);
        Ok(())
    }

    fn note(&self, held: Duration, member: &Member) {
        let changed = self.held.send_if_modified(|known| {
            let changed = *known != held;
            *known = held;
            changed
        });
        if changed && held != self.asked {
            tracing::warn!(
                subscription = %member,
                lease = ?held,
                asked = ?self.asked,
                "the group has another lease than this consumer asks for",
            );
        }
    }

    /// Follows the lease that a claim has found. Raises it where the group lost it or has a shorter
    /// one; asks now and then where the group has a longer one.
    pub(crate) async fn follow(
        &self,
        found: Duration,
        last_asked: &mut Instant,
        store: &dyn Store,
        member: &Member,
    ) {
        if found == self.asked {
            self.note(found, member);
            return;
        }
        if found > self.asked {
            self.note(found, member);
            if last_asked.elapsed() < ASK_AGAIN {
                return;
            }
        }
        *last_asked = Instant::now();
        if let Err(error) = self.set(store, member).await {
            tracing::debug!(subscription = %member, error = %describe(&error), "the lease was not set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::fixture::Fixture;

    #[tokio::test]
    async fn a_longer_lease_of_the_group_holds_at_once() {
        let fixture = Fixture::new().await;
        let (asked, longer) = (Duration::from_secs(1), Duration::from_secs(30));
        let lease = GroupLease::new(asked);
        let mut changes = lease.changes();
        // Asked a moment ago, so the store is not asked again.
        let mut last_asked = Instant::now();
        fixture.script.calls();
        lease
            .follow(longer, &mut last_asked, &*fixture.store, &fixture.member)
            .await;
        assert_eq!(lease.get(), longer);
        assert!(changes.has_changed().unwrap());
        assert_eq!(*changes.borrow_and_update(), longer);
        assert_eq!(fixture.script.calls(), [""; 0]);
        lease
            .follow(asked, &mut last_asked, &*fixture.store, &fixture.member)
            .await;
        assert_eq!(lease.get(), asked);
    }
}
