//! A configuration that serde reads.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::builder::ContainerBuilder;
use crate::api::SubscriptionConfig;
use crate::api::overrides::{Overrides, time};
use crate::domain::{Codec, Error, ErrorKind, Group, NativeCommands, Placement, Topic};

/// The settings of a container, as a configuration file has them. Every field is optional; serde
/// refuses unknown ones. Times are text, such as `"10m"`.
///
/// [`ContainerBuilder::with_config`] uses it. Redstart reads no file itself: any format of serde or any
/// crate that layers configurations can. [`from_env`](Self::from_env) reads the environment.
///
/// # Example
///
/// A file, whose values the environment replaces:
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
/// let builder = Container::builder()
///     .with_config(config)?
///     .with_config(Config::from_env()?)?;
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
    /// [`with_tls`](ContainerBuilder::with_tls): the file of
    /// [`with_ca_file`](super::TlsSettings::with_ca_file).
    pub tls_ca_file: Option<PathBuf>,
    /// [`with_tls`](ContainerBuilder::with_tls): the first file of
    /// [`with_client_files`](super::TlsSettings::with_client_files).
    pub tls_cert_file: Option<PathBuf>,
    /// [`with_tls`](ContainerBuilder::with_tls): the second file of
    /// [`with_client_files`](super::TlsSettings::with_client_files).
    pub tls_key_file: Option<PathBuf>,
    /// [`with_sentinel_user`](ContainerBuilder::with_sentinel_user).
    pub sentinel_user: Option<String>,
    /// [`with_sentinel_password`](ContainerBuilder::with_sentinel_password).
    pub sentinel_password: Option<String>,
    /// [`with_native`](ContainerBuilder::with_native): `none`, `all`, or names with commas between them.
    pub native: Option<String>,
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
    /// [`with_placement`](ContainerBuilder::with_placement): `spread` or `together`.
    pub placement: Option<String>,
    /// [`with_migrate_on_connect`](ContainerBuilder::with_migrate_on_connect).
    pub migrate_on_connect: Option<bool>,
    /// [`with_dead_letter_editing`](ContainerBuilder::with_dead_letter_editing).
    pub dead_letter_editing: Option<bool>,
    /// All subscriptions. Wins over code.
    pub subscribe: SubscriptionConfig,
    /// Single subscriptions, by topic or by `topic/group`. Wins over code and over `subscribe`.
    pub subscriptions: BTreeMap<String, SubscriptionConfig>,
    /// Subscriptions, by the variables of [`from_env`](Self::from_env). Wins over everything.
    #[serde(skip)]
    pub(super) variables: Overrides,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Config")
            .field("namespace", &self.namespace)
            .field("service", &self.service)
            .field("subscribe", &self.subscribe)
            .field("subscriptions", &self.subscriptions)
            .field("variables", &self.variables)
            .finish_non_exhaustive()
    }
}

impl ContainerBuilder {
    /// Sets everything that a configuration has; the rest stays as it is.
    ///
    /// A later `with_…`, or a later configuration, wins over it. The settings of subscriptions win over
    /// code. Of those, the most specific one wins:
    ///
    /// 1. `REDSTART_SUB_<TOPIC>_<SETTING>`, then `REDSTART_SUB_<SETTING>`, if the configuration comes from
    ///    [`Config::from_env`];
    /// 2. [`subscriptions`](Config::subscriptions) by `topic/group`, then by topic;
    /// 3. [`subscribe`](Config::subscribe);
    /// 4. the options in code.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for an unknown codec, placement or native command, for a certificate without
    /// its key or a key without its certificate, and for a subscription whose name cannot be a topic or
    /// `topic/group`. [`connect`](Self::connect) and subscribing check the other
    /// values; the error of a subscription names the setting and its source.
    pub fn with_config(mut self, config: Config) -> Result<Self, Error> {
        if let Some(codec) = config.codec {
            self = self.with_codec(codec.parse::<Codec>()?);
        }
        if let Some(placement) = config.placement {
            self = self.with_placement(placement.parse::<Placement>()?);
        }
        if let Some(commands) = config.native {
            self = self.with_native(commands.parse::<NativeCommands>()?);
        }
        if let Some(url) = config.redis_url {
            self = self.with_redis_url(url);
        }
        if let Some(path) = config.tls_ca_file {
            self.access.tls = self.access.tls.with_ca_file(path);
        }
        match (config.tls_cert_file, config.tls_key_file) {
            (Some(certificate), Some(key)) => {
                self.access.tls = self.access.tls.with_client_files(certificate, key);
            }
            (None, None) => {}
            (Some(_), None) => return Err(missing("tls_key_file")),
            (None, Some(_)) => return Err(missing("tls_cert_file")),
        }
        if let Some(user) = config.sentinel_user {
            self = self.with_sentinel_user(user);
        }
        if let Some(password) = config.sentinel_password {
            self = self.with_sentinel_password(password);
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
        config.subscriptions.keys().try_for_each(check_name)?;
        let mut settings = config.variables;
        settings.all = config.subscribe;
        settings.named = config.subscriptions;
        self.overrides.extend(settings);
        Ok(self)
    }
}

/// Refuses a name that no subscription can have: its settings would silently not hold.
fn check_name(name: &String) -> Result<(), Error> {
    let (topic, group) = match name.split_once('/') {
        Some((topic, group)) => (topic, Some(group)),
        None => (name.as_str(), None),
    };
    let checked = Topic::new(topic).and_then(|_| group.map(Group::new).transpose());
    checked.map(drop).map_err(|error| {
        let rule = "the name of a subscription is a topic, or topic/group";
        Error::new(ErrorKind::Invalid, "configuration", rule)
            .on(format!("subscriptions.{name}"))
            .because(error)
    })
}

fn missing(field: &str) -> Error {
    Error::new(ErrorKind::Invalid, "configuration", "is missing").on(field)
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
        for bad in [
            r#"{"codec": "xml"}"#,
            r#"{"placement": "apart"}"#,
            r#"{"native": "xadd"}"#,
        ] {
            let config = read(bad).unwrap();
            assert!(ContainerBuilder::default().with_config(config).is_err());
        }
        for name in ["a b", "orders/", "/billing", "orders/billing/x"] {
            let named = format!(r#"{{"subscriptions": {{"{name}": {{"concurrency": 8}}}}}}"#);
            let error = ContainerBuilder::default().with_config(read(&named).unwrap());
            let error = error.unwrap_err().to_string();
            assert!(error.contains(&format!("subscriptions.{name}")), "{error}");
        }
        let certificate = read(r#"{"tls_cert_file": "cert.pem"}"#).unwrap();
        let error = ContainerBuilder::default().with_config(certificate);
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "configuration \"tls_key_file\": is missing");
    }

    #[test]
    fn a_later_configuration_wins_where_it_sets_a_value() {
        let read = |text: &str| serde_json::from_str::<Config>(text).unwrap();
        let file =
            r#"{"namespace": "shop", "service": "billing", "subscribe": {"concurrency": 8}}"#;
        let builder = ContainerBuilder::default()
            .with_config(read(file))
            .and_then(|builder| builder.with_config(read(r#"{"service": "mail"}"#)))
            .unwrap();
        assert_eq!(builder.namespace.as_deref(), Some("shop"));
        assert_eq!(builder.service.as_deref(), Some("mail"));
        assert_eq!(builder.overrides.all.concurrency, Some(8));
    }
}
