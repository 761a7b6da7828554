//! The vocabulary of the bus: names, envelopes, policies, errors. Knows nothing else.

mod clock;
mod codec;
mod dead_letter;
mod duration;
mod entry_id;
mod envelope;
mod error;
pub(crate) mod msgpack;
mod names;
mod outcome;
mod payload;
mod retention;
mod retry;
mod text;
mod timestamp;
mod verdict;

pub use clock::{Clock, SystemClock};
pub use codec::Codec;
pub(crate) use dead_letter::fingerprint;
pub use dead_letter::{Attempt, DeadLetter, Reason, Trail};
pub(crate) use duration::{ttl_millis, whole_millis};
pub use entry_id::EntryId;
pub use envelope::Envelope;
pub use error::{Error, ErrorKind};
pub use names::{ConsumerName, Group, Namespace, Topic};
pub(crate) use outcome::describe;
pub use outcome::{IntoOutcome, Outcome};
pub use payload::Payload;
pub use retention::{Retention, TopicSettings};
pub use retry::{LONGEST_DELAY, RetryPolicy};
pub use timestamp::Timestamp;
pub(crate) use verdict::{Verdict, after_crash, decide};
