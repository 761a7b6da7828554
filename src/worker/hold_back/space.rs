//! How much a subscription holds back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most messages.
pub(crate) const MESSAGES: usize = 1024;
/// The most bytes, of their entries and their history.
const BYTES: usize = 8 * 1024 * 1024;

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    messages: usize,
    bytes: usize,
}

/// The space of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Space(Mutex<Used>);

/// The space of one message; dropping it frees the space.
#[derive(Debug)]
pub(crate) struct Taken {
    space: Arc<Space>,
    bytes: usize,
}

impl Space {
    fn used(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the space of one message; `None` where that is more than is left.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let mut used = self.used();
        if used.messages == MESSAGES || bytes > BYTES - used.bytes {
            return None;
        }
        used.messages += 1;
        used.bytes += bytes;
        let space = Arc::clone(self);
        Some(Taken { space, bytes })
    }

    /// How many messages are held back.
    pub(crate) fn messages(&self) -> usize {
        self.used().messages
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut used = self.space.used();
        used.messages -= 1;
        used.bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_bytes_are_bounded_and_freed_again() {
        let space = Arc::<Space>::default();
        let taken: Vec<_> = (0..MESSAGES).map(|_| space.take(10).unwrap()).collect();
        assert!(space.take(0).is_none());
        drop(taken);
        assert_eq!(space.messages(), 0);
        let heavy = space.take(BYTES - 1).unwrap();
        assert!(space.take(2).is_none());
        let last = space.take(1);
        assert!(last.is_some() && space.take(1).is_none());
        drop((heavy, last));
        assert!(space.take(BYTES + 1).is_none() && space.take(BYTES).is_some());
    }
}
