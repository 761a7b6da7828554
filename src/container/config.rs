//! A configuration that serde reads.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::ContainerBuilder;
use crate::api::SubscriptionConfig;
use crate::api::overrides::time;
use crate::domain::{Codec, Error};

/// The settings of a container, as a configuration file has them. Every field is optional; serde
/// refuses unknown ones. Times are text, such as `"10m"`.
///
/// [`ContainerBuilder::with_config`] uses it. Redstart reads no file itself: any format of serde or any
/// crate that layers configurations can.
///
/// # Example
///
/// ```
/// use redstart::{Container, container::Config};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config: Config = serde_json::from_str(r#"{
///     "redis_url": "redis://cache:6379", "namespace": "shop", "service": "billing",
///     "subscribe": { "concurrency": 8 },
///     "subscriptions": {
///         "clicks": { "lease": "1m 30s" },
///         "orders/billing": { "handler_timeout": "2m" }
///     }
/// }"#)?;
/// let builder = Container::builder().with_config(config)?;
/// # let _ = builder;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// [`with_redis_url`](ContainerBuilder::with_redis_url).
    pub redis_url: Option<String>,
    /// [`with_namespace`](ContainerBuilder::with_namespace).
    pub namespace: Option<String>,
    /// [`with_service`](ContainerBuilder::with_service).
    pub service: Option<String>,
    /// [`with_codec`](ContainerBuilder::with_codec): `msgpack` or `json`.
    pub codec: Option<String>,
    /// [`with_max_message_bytes`](ContainerBuilder::with_max_message_bytes).
    pub max_message_bytes: Option<usize>,
    /// [`with_deduplication`](ContainerBuilder::with_deduplication).
    #[serde(deserialize_with = "time")]
    pub deduplication: Option<Duration>,
    /// [`with_migrate_on_connect`](ContainerBuilder::with_migrate_on_connect).
    pub migrate_on_connect: Option<bool>,
    /// [`with_dead_letter_editing`](ContainerBuilder::with_dead_letter_editing).
    pub dead_letter_editing: Option<bool>,
    /// All subscriptions. Wins over code.
    pub subscribe: SubscriptionConfig,
    /// Single subscriptions, by topic or by `topic/group`. Wins over code and over `subscribe`.
    pub subscriptions: BTreeMap<String, SubscriptionConfig>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Config")
            .field("namespace", &self.namespace)
            .field("service", &self.service)
            .field("subscribe", &self.subscribe)
            .field("subscriptions", &self.subscriptions)
            .finish_non_exhaustive()
    }
}

impl ContainerBuilder {
    /// Sets everything that a configuration has; the rest stays as it is. A later `with_…` wins over
    /// it, except for the settings of subscriptions: those win over code, and the variables of
    /// [`from_env`](Self::from_env) win over them.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for an unknown codec. [`connect`](Self::connect) and
    /// subscribing check the other values.
    pub fn with_config(mut self, config: Config) -> Result<Self, Error> {
        if let Some(codec) = config.codec {
            self = self.with_codec(codec.parse::<Codec>()?);
        }
        if let Some(url) = config.redis_url {
            self = self.with_redis_url(url);
        }
        if let Some(namespace) = config.namespace {
            self = self.with_namespace(namespace);
        }
        if let Some(service) = config.service {
            self = self.with_service(service);
        }
        if let Some(bytes) = config.max_message_bytes {
            self = self.with_max_message_bytes(bytes);
        }
        if let Some(window) = config.deduplication {
            self = self.with_deduplication(window);
        }
        if let Some(migrate) = config.migrate_on_connect {
            self = self.with_migrate_on_connect(migrate);
        }
        if let Some(editing) = config.dead_letter_editing {
            self = self.with_dead_letter_editing(editing);
        }
        self.overrides.all = config.subscribe;
        self.overrides.named = config.subscriptions;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_refused_and_the_url_is_not_shown() {
        let read = |text: &str| serde_json::from_str::<Config>(text);
        let error = read(r#"{"namespaces": "shop"}"#).unwrap_err();
        assert!(error.to_string().contains("namespaces"), "{error}");
        read(r#"{"deduplication": "600"}"#).unwrap_err();
        let config = read(r#"{"redis_url": "redis://:canary@h", "deduplication": "10m"}"#).unwrap();
        assert!(!format!("{config:?}").contains("canary"));
        assert_eq!(config.deduplication, Some(Duration::from_secs(600)));
        let bad = Config {
            codec: Some("xml".to_owned()),
            ..Config::default()
        };
        assert!(ContainerBuilder::default().with_config(bad).is_err());
    }
}
