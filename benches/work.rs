//! The work that both sides do.

/// The message that is published and handled.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub(crate) struct Order {
    pub(crate) id: u64,
    customer: String,
    note: String,
}

impl redstart::Message for Order {
    const TYPE: &'static str = "order.placed";
}

impl Order {
    /// An order that takes about `size` bytes encoded.
    pub(crate) fn new(id: u64, size: usize) -> Self {
        Self {
            id,
            customer: "customer-4711".to_owned(),
            note: "n".repeat(size.saturating_sub(60)),
        }
    }
}

/// The usual size of a payload, in bytes.
pub(crate) const SIZE: usize = 200;

/// How many messages of a size are put into one batch.
pub(crate) fn batch_of(size: usize) -> u64 {
    if size > 10_000 { 16 } else { 500 }
}

/// One kind of operation on values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Get,
    Set,
    Incr,
    Cas,
    Once,
}
