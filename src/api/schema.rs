//! The schema of a message, for AsyncAPI documents.

use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Makes the schema of one message.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The maker of the schema of `T`.
pub(super) fn schema_of<T: JsonSchema>() -> SchemaOf {
    |generator| generator.subschema_for::<T>()
}
