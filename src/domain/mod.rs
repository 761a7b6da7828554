//! The vocabulary of the bus: names, envelopes, policies, errors. Knows nothing else.

pub(crate) mod as_text;
mod clock;
mod codec;
mod dead_filter;
mod dead_letter;
mod dead_letter_retention;
mod duration;
mod entry_id;
mod envelope;
mod error;
mod fingerprint;
mod future;
mod migration;
mod moved;
pub(crate) mod msgpack;
mod names;
mod outcome;
mod pace;
mod panic;
mod payload;
mod retention;
mod retry;
mod sweep;
mod text;
mod text_match;
mod timestamp;
mod verdict;

pub use clock::{Clock, SystemClock};
pub use codec::Codec;
pub use dead_filter::DeadLetterFilter;
pub(crate) use dead_letter::HeadView;
pub use dead_letter::{
    Cause, CountBy, DeadLetter, DeadLetterSummary, DeliveryHistory, FailedAttempt, Reason,
};
pub use dead_letter_retention::DeadLetterRetention;
pub(crate) use duration::{parse_duration, ttl_millis, whole_millis};
pub use entry_id::EntryId;
pub use envelope::Envelope;
pub use error::{Error, ErrorKind};
pub(crate) use fingerprint::fingerprint;
pub use future::BoxFuture;
pub use migration::{Migration, MigrationState};
pub(crate) use migration::{layout_problem, unfinished};
pub use moved::Moved;
pub use names::{ConsumerName, Group, Namespace, Topic};
pub(crate) use outcome::describe;
pub use outcome::{IntoOutcome, IntoOutcomes, Outcome};
pub(crate) use panic::{panic_text, panic_text_of};
pub(crate) use payload::Portable;
pub use payload::RawPayload;
pub use retention::{Retention, TopicSettings};
pub use retry::RetryPolicy;
pub use sweep::{Selection, SkipReason, Sweep, SweepAction};
pub use timestamp::Timestamp;
pub(crate) use timestamp::hour_name;
pub(crate) use verdict::Verdict;
