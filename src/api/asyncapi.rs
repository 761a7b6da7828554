//! AsyncAPI documents: the topics and messages of a service, for readers and for tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::handler::Message;
use super::router::Router;
use super::schema::{SchemaOf, schema_of};
use crate::domain::{Codec, Error, ErrorKind, Topic};

/// The version of AsyncAPI.
const VERSION: &str = "3.1.0";

/// Where the schemas are in the document, as a JSON pointer without its last part.
const SCHEMAS: &str = "/components/schemas";

/// An [AsyncAPI](https://www.asyncapi.com) document of a service: the topics that it reads and writes,
/// their messages, and the JSON Schemas of the payloads.
///
/// A channel is a topic. [`receives`](Self::receives) takes the types of messages from a router, and
/// their schemas from [`Router::describe`]; [`sends`](Self::sends) and [`describe`](Self::describe) say
/// the same of a published type. A message without a schema is in the document by its type alone.
///
/// The schema of a payload says which values a reader of the type accepts, in either
/// [codec](crate::envelope::Codec). The document depends on these calls only, and not on their order.
///
/// # Example
///
/// ```
/// use redstart::asyncapi::AsyncApi;
/// use redstart::{Message, Router, Topic};
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
///
/// const ORDERS: Topic = Topic::from_static("orders");
/// const INVOICES: Topic = Topic::from_static("invoices");
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Placed {
///     id: u32,
/// }
///
/// impl Message for Placed {
///     const TYPE: &'static str = "order.placed";
/// }
///
/// #[derive(Serialize, JsonSchema)]
/// struct Invoice {
///     order: u32,
/// }
///
/// impl Message for Invoice {
///     const TYPE: &'static str = "invoice";
/// }
///
/// async fn bill(order: Placed) {
///     println!("order {}", order.id);
/// }
///
/// let router = Router::new().on(bill).describe::<Placed>();
/// let document = AsyncApi::new("billing", "1.4.0")
///     .receives(&ORDERS, &router)
///     .sends::<Invoice>(&INVOICES)
///     .describe::<Invoice>(&INVOICES)
///     .document()?;
/// assert_eq!(document["channels"]["orders"]["address"], "orders");
/// assert_eq!(document["components"]["schemas"]["Placed"]["required"][0], "id");
/// # Ok::<(), redstart::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "it does nothing until `document` is called"]
pub struct AsyncApi {
    title: String,
    version: String,
    description: Option<String>,
    codec: Codec,
    channels: BTreeMap<Topic, Channel>,
}

/// The messages of a topic.
#[derive(Clone, Debug, Default)]
struct Channel {
    received: BTreeSet<&'static str>,
    /// Whether a handler takes messages of every other type.
    receives_others: bool,
    sent: BTreeSet<&'static str>,
    schemas: Vec<(&'static str, SchemaOf)>,
}

impl fmt::Debug for AsyncApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncApi")
            .field("title", &self.title)
            .field("version", &self.version)
            .field("topics", &self.channels.keys())
            .finish_non_exhaustive()
    }
}

impl AsyncApi {
    /// A document with the service's title and version. The version is that of the interface, not that
    /// of AsyncAPI.
    pub fn new(title: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            version: version.into(),
            description: None,
            codec: Codec::default(),
            channels: BTreeMap::new(),
        }
    }

    /// Sets the description; by default none. It may contain Markdown.
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Sets the codec of the messages, which gives their content type; by default MessagePack, as for a
    /// [container](crate::container::ContainerBuilder::with_codec).
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Adds the messages that the service handles with this router, which it subscribes to the topic.
    ///
    /// Several routers of a topic, each with its own group, are one operation of the document.
    pub fn receives<S: Send + Sync + 'static>(mut self, topic: &Topic, router: &Router<S>) -> Self {
        let channel = self.channels.entry(topic.clone()).or_default();
        channel.received.extend(router.message_types());
        channel.receives_others |= router.takes_others();
        channel.schemas.extend(router.schemas());
        self
    }

    /// Adds a type of messages that the service publishes to the topic. [`describe`](Self::describe)
    /// adds its schema.
    pub fn sends<T: Message>(mut self, topic: &Topic) -> Self {
        let channel = self.channels.entry(topic.clone()).or_default();
        channel.sent.insert(T::TYPE);
        self
    }

    /// Adds the schema of a type of messages of the topic.
    pub fn describe<T: Message + JsonSchema>(mut self, topic: &Topic) -> Self {
        let channel = self.channels.entry(topic.clone()).or_default();
        channel.schemas.push((T::TYPE, schema_of::<T>()));
        self
    }

    /// The messages without a schema, each with its topic, sorted: a test can require that there are
    /// none.
    #[must_use]
    pub fn undescribed(&self) -> Vec<(Topic, &'static str)> {
        let mut missing = Vec::new();
        for (topic, channel) in &self.channels {
            let described: BTreeSet<_> = channel.schemas.iter().map(|(name, _)| *name).collect();
            let bare = channel
                .types()
                .into_iter()
                .filter(|name| !described.contains(name));
            missing.extend(bare.map(|name| (topic.clone(), name)));
        }
        missing
    }

    /// Makes the document: AsyncAPI 3.1, with schemas of JSON Schema draft 7.
    ///
    /// Add what this crate does not know, such as `servers`, to the returned value.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) names the topic and the type when the service neither
    /// receives nor sends a described type there, or when a type has two different schemas.
    pub fn document(&self) -> Result<Value, Error> {
        let settings = SchemaSettings::draft07().with(|settings| {
            settings.definitions_path = SCHEMAS.into();
            settings.meta_schema = None;
        });
        let mut generator = settings.into_generator();
        let mut channels = Map::new();
        let mut operations = Map::new();
        for (topic, channel) in &self.channels {
            let channel = channel.clone().with_described();
            let schemas = channel.payloads(topic, &mut generator)?;
            let keys = keys(channel.types());
            let messages: Map<String, Value> = keys
                .iter()
                .map(|(name, key)| (key.clone(), message(name, schemas.get(name))))
                .collect();
            channels.insert(
                topic.to_string(),
                json!({ "address": topic.to_string(), "messages": messages }),
            );
            for (action, types, others) in [
                ("receive", &channel.received, channel.receives_others),
                ("send", &channel.sent, false),
            ] {
                if types.is_empty() && !others {
                    continue;
                }
                let references = types.iter().map(
                    |name| json!({ "$ref": format!("#/channels/{topic}/messages/{}", keys[name]) }),
                );
                let mut operation = json!({
                    "action": action,
                    "channel": { "$ref": format!("#/channels/{topic}") },
                    "messages": references.collect::<Vec<_>>(),
                });
                if others {
                    operation["description"] =
                        "A handler takes messages of every other type, too.".into();
                }
                operations.insert(format!("{action}-{topic}"), operation);
            }
        }
        let mut info = json!({ "title": self.title, "version": self.version });
        if let Some(description) = &self.description {
            info["description"] = description.as_str().into();
        }
        Ok(json!({
            "asyncapi": VERSION,
            "info": info,
            "defaultContentType": match self.codec {
                Codec::Json => "application/json",
                Codec::MessagePack => "application/msgpack",
            },
            "channels": channels,
            "operations": operations,
            "components": { "schemas": generator.take_definitions(true) },
        }))
    }
}

impl Channel {
    fn types(&self) -> BTreeSet<&'static str> {
        &self.received | &self.sent
    }

    /// A handler of all other types takes the described types that no other handler takes.
    fn with_described(mut self) -> Self {
        if self.receives_others {
            let described = self.schemas.iter().map(|(name, _)| *name);
            self.received
                .extend(described.filter(|name| !self.sent.contains(name)));
        }
        self
    }

    /// The schema of each described type.
    fn payloads(
        &self,
        topic: &Topic,
        generator: &mut SchemaGenerator,
    ) -> Result<BTreeMap<&'static str, Schema>, Error> {
        let invalid = |name: &str, rule: &str| {
            let rule = format!("type {name:?} {rule}");
            Error::new(ErrorKind::Invalid, "describe", rule).on(topic.as_str())
        };
        let types = self.types();
        let mut sorted: Vec<_> = self.schemas.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        let mut payloads = BTreeMap::new();
        for (name, schema_of) in sorted {
            if !types.contains(name) {
                return Err(invalid(name, "is neither received nor sent"));
            }
            let schema = schema_of(generator);
            let other = payloads.insert(*name, schema.clone());
            if other.is_some_and(|other| other != schema) {
                return Err(invalid(name, "has two different schemas"));
            }
        }
        Ok(payloads)
    }
}

fn message(name: &str, schema: Option<&Schema>) -> Value {
    let mut message = json!({ "name": name });
    if let Some(schema) = schema {
        message["payload"] = schema.clone().to_value();
    }
    message
}

/// The key of each type in its channel: of the symbols that a reference can contain unescaped.
fn keys(types: BTreeSet<&'static str>) -> BTreeMap<&'static str, String> {
    let mut taken = BTreeSet::new();
    let plain = |c: char| match c.is_ascii_alphanumeric() || "._-".contains(c) {
        true => c,
        false => '_',
    };
    let key = |name: &'static str| {
        let base: String = name.chars().map(plain).collect();
        let numbered = (2_u32..).map(|number| format!("{base}_{number}"));
        let mut free = std::iter::once(base.clone()).chain(numbered);
        let key = free.find(|key| taken.insert(key.clone()));
        (name, key.unwrap_or(base))
    };
    types.into_iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    const ORDERS: Topic = Topic::from_static("orders");
    const BILLS: Topic = Topic::from_static("bills");

    #[derive(Deserialize, JsonSchema)]
    struct Item {
        #[expect(dead_code)]
        cents: u64,
    }

    macro_rules! messages {
        ($($name:ident $type:literal { $($field:ident: $of:ty),* })*) => {
            $(
                #[derive(Deserialize, JsonSchema)]
                struct $name {
                    $(#[expect(dead_code)] $field: $of),*
                }

                impl Message for $name {
                    const TYPE: &'static str = $type;
                }
            )*
        };
    }

    messages! {
        Placed "order/placed" { items: Vec<Item> }
        Other "order_placed" { text: String }
        Bill "bill" { item: Item }
        Placed2 "order/placed" { id: u32 }
        Refunded "order.refunded" { id: u32 }
    }

    /// Has the name of another schema.
    #[derive(Deserialize, JsonSchema)]
    #[schemars(rename = "Bill")]
    struct Draft {
        #[expect(dead_code)]
        id: u32,
    }

    impl Message for Draft {
        const TYPE: &'static str = "draft";
    }

    async fn placed(_: Placed) {}
    async fn other(_: Other) {}
    async fn same(_: Placed) {}

    #[test]
    fn messages_of_a_router_and_of_publishers_are_in_the_document() {
        let router = Router::new().on(placed).describe::<Placed>();
        let api = AsyncApi::new("billing", "2")
            .with_codec(Codec::Json)
            .receives(
                &ORDERS,
                &Router::new()
                    .on(other)
                    .otherwise(crate::Outcome::Ack)
                    .merge(router),
            )
            .sends::<Bill>(&BILLS)
            .describe::<Bill>(&BILLS);
        let document = api.document().unwrap();
        assert_eq!(api.undescribed(), [(ORDERS, "order_placed")]);
        assert_eq!(document["defaultContentType"], "application/json");
        let messages = &document["channels"]["orders"]["messages"];
        assert_eq!(
            messages["order_placed"],
            json!({ "name": "order/placed", "payload": { "$ref": "#/components/schemas/Placed" } })
        );
        assert_eq!(
            messages["order_placed_2"],
            json!({ "name": "order_placed" })
        );
        let schemas = &document["components"]["schemas"];
        let item = &schemas["Placed"]["properties"]["items"]["items"];
        assert_eq!(item["$ref"], "#/components/schemas/Item");
        let names: Vec<_> = schemas.as_object().unwrap().keys().collect();
        assert_eq!(names, ["Bill", "Item", "Placed"]);
        let operations = &document["operations"];
        assert_eq!(
            operations["send-bills"]["messages"][0]["$ref"],
            "#/channels/bills/messages/bill"
        );
        let received = &operations["receive-orders"];
        assert_eq!(received["messages"].as_array().unwrap().len(), 2);
        assert!(received["description"].is_string());
        // The handler of all other types takes this one.
        let with_more = api.describe::<Refunded>(&ORDERS).document().unwrap();
        let received = &with_more["operations"]["receive-orders"];
        assert_eq!(received["messages"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn the_document_does_not_depend_on_the_order_of_calls() {
        let router = || Router::new().on(placed).describe::<Placed>();
        let one = AsyncApi::new("a", "1")
            .receives(&ORDERS, &router())
            .sends::<Bill>(&BILLS)
            .describe::<Bill>(&BILLS)
            .sends::<Draft>(&BILLS)
            .describe::<Draft>(&BILLS);
        let two = AsyncApi::new("a", "1")
            .describe::<Draft>(&BILLS)
            .describe::<Bill>(&BILLS)
            .sends::<Draft>(&BILLS)
            .sends::<Bill>(&BILLS)
            .receives(&ORDERS, &router());
        let text = |api: AsyncApi| api.document().unwrap().to_string();
        assert_eq!(text(one), text(two));
    }

    #[test]
    fn contradictions_name_the_topic_and_the_type() {
        let rule = |api: AsyncApi| api.document().unwrap_err().to_string();
        let api = AsyncApi::new("a", "1");
        assert_eq!(
            rule(api.clone().describe::<Bill>(&BILLS)),
            "describe \"bills\": type \"bill\" is neither received nor sent"
        );
        let both = api
            .receives(&ORDERS, &Router::new().on(same).describe::<Placed>())
            .describe::<Placed2>(&ORDERS);
        assert_eq!(
            rule(both),
            "describe \"orders\": type \"order/placed\" has two different schemas"
        );
    }
}
