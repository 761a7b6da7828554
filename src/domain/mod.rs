//! The vocabulary of the bus: names, envelopes, policies, errors. Knows nothing else.

mod codec;
mod envelope;
mod error;
pub(crate) mod msgpack;
mod names;
mod payload;
mod retry;
mod timestamp;

pub use codec::Codec;
pub use envelope::Envelope;
pub use error::{Error, ErrorKind};
pub use names::{ConsumerName, Group, Namespace, Topic};
pub use payload::Payload;
pub use retry::{LONGEST_DELAY, RetryPolicy};
pub use timestamp::Timestamp;
