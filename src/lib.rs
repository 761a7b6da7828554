//! Redstart: a durable message bus and key-value store for Rust services, on Redis Streams.
//!
//! This version holds the domain and the wire format: names, envelopes, both codecs
//! with their limits, and the retry policy. The bus itself is being built on them;
//! the README says what is there.

pub mod codec;
mod domain;

pub use domain::{
    Codec, ConsumerName, Envelope, Error, ErrorKind, Group, LONGEST_DELAY, Namespace, Payload,
    RetryPolicy, Timestamp, Topic,
};
