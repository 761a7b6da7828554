//! Holding back: a message that fails and waits for a short time stays with its consumer.
//!
//! Moving a message through the store a second time is most of what a failure costs. A failure with
//! a short delay is therefore only noted in the store, under the delivery that the consumer keeps,
//! and a local timer runs the handler again.
//!
//! - `space` bounds how many messages wait so, and their bytes.
//! - `again` is what the next attempt needs of the last one.
//! - `waiting` holds the messages until they are due.
//! - `note` tells the store of the failures, and gives everything back at a shutdown.
//! - `timer` queues due messages for the workers.

pub(crate) mod again;
pub(crate) mod note;
pub(crate) mod space;
pub(crate) mod timer;
pub(crate) mod waiting;
