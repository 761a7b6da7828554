//! The schemas of a router's messages, for AsyncAPI documents.

use schemars::JsonSchema;

use super::builder::Router;
use crate::api::handler::Message;
use crate::api::schema::{SchemaOf, schema_of};

impl<S: Send + Sync + 'static> Router<S> {
    /// Adds the schema of a message to the router, for an
    /// [AsyncAPI document](crate::asyncapi::AsyncApi). It changes nothing for handlers.
    ///
    /// `on` asks for no schema, so that a message without one can be handled whether or not the feature
    /// `schema` is on.
    pub fn describe<T: Message + JsonSchema>(mut self) -> Self {
        self.schemas.push((T::TYPE, schema_of::<T>()));
        self
    }

    /// Whether a handler takes messages of all other types.
    pub(in crate::api) fn takes_others(&self) -> bool {
        self.otherwise.is_some()
    }

    pub(in crate::api) fn schemas(&self) -> impl Iterator<Item = (&'static str, SchemaOf)> {
        self.schemas.iter().copied()
    }
}
