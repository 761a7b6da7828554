//! A message with its metadata.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::codec::Codec;
use super::crc16::crc16;
use super::error::Error;
use super::payload::RawPayload;
use super::timestamp::Timestamp;

/// A message with its metadata.
///
/// Stored envelopes name the fields in camelCase and leave out absent ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    pub(crate) id: Uuid,
    pub(crate) message_type: String,
    pub(crate) created_at: Timestamp,
    pub(crate) correlation: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) payload: RawPayload,
    pub(crate) failed_attempts: u32,
    pub(crate) last_error: Option<String>,
    /// Fields that this version does not know. They are kept when the envelope is stored again.
    pub(crate) unknown: BTreeMap<String, RawPayload>,
    pub(crate) inherited: InheritedTrace,
}

/// Whether an envelope has the trace of the message that it follows from, and none of its own. Says
/// nothing about the message, so it counts for no comparison.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InheritedTrace(pub(crate) bool);

impl PartialEq for InheritedTrace {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The header that names the trace.
pub(crate) const TRACE: &str = "traceparent";

impl Envelope {
    /// Wraps a payload. Sets a fresh UUIDv7 as id, the current time, and a fresh correlation id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](super::ErrorKind::Encode) if the payload cannot be encoded.
    ///
    /// # Example
    ///
    /// ```
    /// use redstart::Envelope;
    ///
    /// let envelope = Envelope::new("order.placed", &42)?.with_tenant("shop-1");
    /// assert_eq!(envelope.payload::<u32>()?, 42);
    /// assert_eq!(envelope.failed_attempts(), 0);
    /// # Ok::<(), redstart::Error>(())
    /// ```
    pub fn new<T: Serialize + ?Sized>(
        message_type: impl Into<String>,
        payload: &T,
    ) -> Result<Self, Error> {
        Ok(Self {
            id: Uuid::now_v7(),
            message_type: message_type.into(),
            created_at: Timestamp::now(),
            correlation: Some(Uuid::new_v4().to_string()),
            tenant: None,
            key: None,
            headers: BTreeMap::new(),
            payload: RawPayload::encode(Codec::MessagePack, payload)?,
            failed_attempts: 0,
            last_error: None,
            unknown: BTreeMap::new(),
            inherited: InheritedTrace::default(),
        })
    }

    /// Wraps the payload of a message that follows from this one. Copies the correlation id, the
    /// tenant, and the `traceparent` and `tracestate` headers. A container with a
    /// [propagator](crate::ports::Propagator) puts its current span in the place of the copied trace.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](super::ErrorKind::Encode) if the payload cannot be encoded.
    pub fn follow_up_as<T: Serialize + ?Sized>(
        &self,
        message_type: impl Into<String>,
        payload: &T,
    ) -> Result<Self, Error> {
        Ok(Self::new(message_type, payload)?.caused_by(self))
    }

    /// Copies the metadata of the message that this one follows from. A tenant and a trace of its own
    /// stay.
    pub(crate) fn caused_by(mut self, cause: &Self) -> Self {
        if cause.correlation.is_some() {
            self.correlation.clone_from(&cause.correlation);
        }
        if self.tenant.is_none() {
            self.tenant.clone_from(&cause.tenant);
        }
        if !self.headers.contains_key(TRACE) {
            for name in [TRACE, "tracestate"] {
                if let Some(value) = cause.headers.get(name) {
                    self.headers.insert(name.to_owned(), value.clone());
                }
            }
            self.inherited = InheritedTrace(self.headers.contains_key(TRACE));
        }
        self
    }

    /// Sets the message's id; by default a fresh UUIDv7.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Sets the correlation id, which related messages share; by default a fresh UUID.
    #[must_use]
    pub fn with_correlation(mut self, correlation: impl Into<String>) -> Self {
        self.correlation = Some(correlation.into());
        self
    }

    /// Sets the tenant; by default none.
    #[must_use]
    pub fn with_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Sets the ordering key; by default none.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header, or replaces the one with this name. `traceparent` is a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set_header(name, value);
        self
    }

    /// Adds a header, or replaces the one with this name, as [`with_header`](Self::with_header) does.
    pub fn set_header(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        if name == TRACE {
            self.inherited = InheritedTrace(false);
        }
        self.headers.insert(name, value.into());
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The message's type; `type` in stored envelopes.
    #[must_use]
    pub fn message_type(&self) -> &str {
        &self.message_type
    }

    /// When the envelope was created; `ts` in stored envelopes.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// The correlation id; `corrId` in stored envelopes.
    #[must_use]
    pub fn correlation(&self) -> Option<&str> {
        self.correlation.as_deref()
    }

    /// The tenant; `tenantId` in stored envelopes.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The slot of the ordering key: its CRC-16. It decides the message's partition.
    pub(crate) fn slot(&self) -> Option<u16> {
        self.key.as_deref().map(|key| crc16(key.as_bytes()))
    }

    /// The ordering key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// The number of failed attempts; 0 for a new message. `attempts` in stored envelopes.
    #[must_use]
    pub fn failed_attempts(&self) -> u32 {
        self.failed_attempts
    }

    /// The error text of the last failed attempt.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Decodes the payload.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](super::ErrorKind::Decode) if it does not have the shape of `T`.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.payload.decode()
    }

    /// The payload in its encoded form.
    #[must_use]
    pub fn raw_payload(&self) -> &RawPayload {
        &self.payload
    }

    /// Resets the failed attempts and the last error, as if no attempt had been made.
    pub(crate) fn reset_attempts(&mut self) {
        self.failed_attempts = 0;
        self.last_error = None;
    }
}
