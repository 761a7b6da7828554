//! What the next attempt at a message needs of the last one.

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::DeliveryHistory;
use crate::store::Fields;
use crate::worker::hold_back::space::Taken;

/// The last attempt at a message that this process tries again from memory.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) history: DeliveryHistory,
    /// How many attempts have failed, crashes included.
    pub(crate) failed: u32,
    /// The error of the last one.
    pub(crate) error: String,
    /// Since when the message waits for a worker.
    pub(crate) queued: Option<Instant>,
    /// The message's space, free when its handler begins.
    pub(crate) _space: Taken,
}

/// What a message takes besides its fields and errors.
const OVERHEAD: usize = 512;

/// About how many bytes a message takes while it waits.
pub(crate) fn weight(fields: &Fields, history: &DeliveryHistory, error: &str) -> usize {
    let fields = fields.iter().map(|(name, value)| name.len() + value.len());
    let errors = history.failures.iter().map(|failure| failure.error.len());
    fields.chain(errors).sum::<usize>() + 2 * error.len() + OVERHEAD
}

/// Copies fields: those of a read are slices of one large reply, which would stay in memory as a
/// whole.
pub(crate) fn compact(fields: &Fields) -> Fields {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let fields = fields.iter();
    fields
        .map(|(name, value)| (copy(name), copy(value)))
        .collect()
}
