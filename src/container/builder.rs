//! The builder: the settings of a container, and `connect`.

use std::env::VarError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Container, Coordinator, Parts};
use crate::adapters::memory::MemoryStore;
use crate::adapters::redis::{Migrations, RedisAdapter, TlsSettings};
#[cfg(feature = "testing")]
use crate::api::observe::Observer;
use crate::api::overrides::Overrides;
use crate::api::{PublishHook, PublishHooks, PublishOptions, StoreKv};
use crate::domain::{Codec, Error, ErrorKind, Group, Namespace, parse_duration};
use crate::operate::doctor::Doctor;
use crate::store::Store;
use crate::wire::Limits;

/// Where the container stores everything.
enum Carrier {
    /// A Redis server, found by the URL.
    Redis,
    Memory(MemoryStore),
    Other(Arc<dyn Store>),
}

/// Builds a [`Container`]. Every setting has a default.
///
/// Create one with [`Container::builder`] or from the environment with [`from_env`](Self::from_env),
/// then call [`connect`](Self::connect).
#[must_use]
pub struct ContainerBuilder {
    url: String,
    tls: TlsSettings,
    carrier: Carrier,
    /// Unvalidated: `connect` reports a bad name.
    namespace: Option<String>,
    service: Option<String>,
    codec: Codec,
    limits: Limits,
    deduplication: Option<Duration>,
    setup: bool,
    migrate: bool,
    editing: bool,
    read_only: bool,
    coordinators: Vec<Arc<dyn Coordinator>>,
    pub(super) overrides: Overrides,
    hooks: PublishHooks,
    #[cfg(feature = "testing")]
    observer: Option<Arc<dyn Observer>>,
}

impl fmt::Debug for ContainerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("ContainerBuilder")
            .field("namespace", &self.namespace)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Default for ContainerBuilder {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            tls: TlsSettings::new(),
            carrier: Carrier::Redis,
            namespace: None,
            service: None,
            codec: Codec::default(),
            limits: Limits::default(),
            deduplication: None,
            setup: true,
            migrate: false,
            editing: false,
            read_only: false,
            coordinators: Vec::new(),
            overrides: Overrides::default(),
            hooks: PublishHooks::default(),
            #[cfg(feature = "testing")]
            observer: None,
        }
    }
}

impl ContainerBuilder {
    /// Reads settings from the environment. An empty variable counts as not set.
    ///
    /// | Variable | Setting | Default |
    /// |---|---|---|
    /// | `REDSTART_REDIS_URL` | [`with_redis_url`](Self::with_redis_url) | `redis://127.0.0.1:6379` |
    /// | `REDSTART_TLS_CA_FILE` | [`with_tls`](Self::with_tls): [`TlsSettings::with_ca_file`] | the authorities of the machine |
    /// | `REDSTART_TLS_CERT_FILE`, `REDSTART_TLS_KEY_FILE` | [`with_tls`](Self::with_tls): [`TlsSettings::with_client_files`] | none |
    /// | `REDSTART_NAMESPACE` | [`with_namespace`](Self::with_namespace) | none |
    /// | `REDSTART_SERVICE` | [`with_service`](Self::with_service) | `redstart` |
    /// | `REDSTART_CODEC` | [`with_codec`](Self::with_codec): `msgpack` or `json` | `msgpack` |
    /// | `REDSTART_MAX_MESSAGE_BYTES` | [`with_max_message_bytes`](Self::with_max_message_bytes): the largest envelope in bytes | 1048576 |
    /// | `REDSTART_DEDUPLICATION` | [`with_deduplication`](Self::with_deduplication): the window, such as `10m` | off |
    /// | `REDSTART_MIGRATE_ON_CONNECT` | [`with_migrate_on_connect`](Self::with_migrate_on_connect): `true` or `false` | `false` |
    /// | `REDSTART_DEAD_LETTER_EDITING` | [`with_dead_letter_editing`](Self::with_dead_letter_editing): `true` or `false` | `false` |
    ///
    /// Operators choose the settings of subscriptions by `REDSTART_SUB_<SETTING>` for all, and by
    /// `REDSTART_SUB_<TOPIC>_<SETTING>` for those of a topic: its name in upper case, with `_` for every
    /// character that is not a letter or a digit. The settings are `CONCURRENCY`, `PREFETCH`, `LEASE`,
    /// `HANDLER_TIMEOUT` and `MAX_ATTEMPTS`. They win over code and over
    /// [`with_config`](Self::with_config), and subscribing logs each.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] names the variable and the rule that its value breaks. It never quotes
    /// the value of `REDSTART_REDIS_URL`.
    pub fn from_env() -> Result<Self, Error> {
        let mut builder = Self::from_lookup(|name| std::env::var(name))?;
        let variables = std::env::vars_os();
        let text = variables.filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            // Text that is not UTF-8 breaks the rule of every setting.
            Some((name, value.to_string_lossy().into_owned()))
        });
        builder.overrides.read_variables(text)?;
        Ok(builder)
    }

    fn from_lookup(lookup: impl Fn(&str) -> Result<String, VarError>) -> Result<Self, Error> {
        let get = |name: &'static str| match lookup(name) {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(invalid(name, "must be UTF-8")),
        };
        let mut builder = Self::default();
        if let Some(url) = get("REDSTART_REDIS_URL")? {
            builder = builder.with_redis_url(url);
        }
        let mut tls = TlsSettings::new();
        if let Some(path) = get("REDSTART_TLS_CA_FILE")? {
            tls = tls.with_ca_file(path);
        }
        match (
            get("REDSTART_TLS_CERT_FILE")?,
            get("REDSTART_TLS_KEY_FILE")?,
        ) {
            (Some(certificate), Some(key)) => tls = tls.with_client_files(certificate, key),
            (None, None) => {}
            (Some(_), None) => return Err(invalid("REDSTART_TLS_KEY_FILE", "is missing")),
            (None, Some(_)) => return Err(invalid("REDSTART_TLS_CERT_FILE", "is missing")),
        }
        builder = builder.with_tls(tls);
        if let Some(name) = get("REDSTART_NAMESPACE")? {
            let namespace = Namespace::new(name)
                .map_err(|e| invalid("REDSTART_NAMESPACE", "not a valid namespace").because(e))?;
            builder = builder.with_namespace(namespace);
        }
        if let Some(name) = get("REDSTART_SERVICE")? {
            let service = Group::new(name)
                .map_err(|e| invalid("REDSTART_SERVICE", "not a valid group name").because(e))?;
            builder = builder.with_service(service);
        }
        if let Some(codec) = get("REDSTART_CODEC")? {
            let codec: Codec = codec
                .parse()
                .map_err(|_| invalid("REDSTART_CODEC", "must be msgpack or json"))?;
            builder = builder.with_codec(codec);
        }
        if let Some(bytes) = get("REDSTART_MAX_MESSAGE_BYTES")? {
            let bytes = bytes
                .parse()
                .map_err(|_| invalid("REDSTART_MAX_MESSAGE_BYTES", "must be a number of bytes"))?;
            builder = builder.with_max_message_bytes(bytes);
        }
        if let Some(window) = get("REDSTART_DEDUPLICATION")? {
            let window = parse_duration(&window)
                .ok_or_else(|| invalid("REDSTART_DEDUPLICATION", "must be a time such as 10m"))?;
            builder = builder.with_deduplication(window);
        }
        let switch = |name| {
            let parse = |text: String| {
                text.parse()
                    .map_err(|_| invalid(name, "must be true or false"))
            };
            get(name)?.map(parse).transpose()
        };
        if let Some(migrate) = switch("REDSTART_MIGRATE_ON_CONNECT")? {
            builder = builder.with_migrate_on_connect(migrate);
        }
        if let Some(editing) = switch("REDSTART_DEAD_LETTER_EDITING")? {
            builder = builder.with_dead_letter_editing(editing);
        }
        Ok(builder)
    }

    /// Sets the server's URL; by default `redis://127.0.0.1:6379`.
    ///
    /// | Form | Connects |
    /// |---|---|
    /// | `redis://[user:password@]host[:port][/database]` | in plain text |
    /// | `rediss://…` | by TLS; needs feature `tls` |
    /// | `unix:///path[?user=…&pass=…&db=…]` | through a unix socket |
    ///
    /// Percent-encode symbols in the user name and the password. [`connect`](Self::connect) refuses
    /// every other part, such as `?db=` after a host, and a user without a password.
    pub fn with_redis_url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// Sets the trusted authorities and the client certificate for a `rediss://` server; by default
    /// [`TlsSettings::new`].
    ///
    /// [`connect`](Self::connect) refuses other settings with a plain-text URL: they would be
    /// ignored, and the connection would not be encrypted.
    pub fn with_tls(mut self, tls: TlsSettings) -> Self {
        self.tls = tls;
        self
    }

    /// Uses a store in this process's memory instead of a server. Containers with clones of one store
    /// share it, as processes share a server.
    pub fn with_memory(mut self, store: MemoryStore) -> Self {
        self.carrier = Carrier::Memory(store);
        self
    }

    /// Uses a store of another adapter, or a decorated one. Not covered by semver.
    ///
    /// The store decides about its namespace and its layout, so
    /// [`with_namespace`](Self::with_namespace), [`with_namespace_creation`](Self::with_namespace_creation)
    /// and [`with_migrate_on_connect`](Self::with_migrate_on_connect) have no effect. The conformance suite
    /// of feature `testing` checks whether an adapter keeps the contract.
    pub fn with_store(mut self, store: Arc<dyn Store>) -> Self {
        self.carrier = Carrier::Other(store);
        self
    }

    /// Sets the prefix of all keys, a [`Namespace`] or its text; by default none.
    /// [`connect`](Self::connect) reports a name that breaks the rule.
    pub fn with_namespace(mut self, namespace: impl AsRef<str>) -> Self {
        self.namespace = Some(namespace.as_ref().to_owned());
        self
    }

    /// Sets the service's name, a [`Group`] or its text: the group of every subscription that
    /// names no other; by default `redstart`. Processes of one service share the work.
    /// [`connect`](Self::connect) reports a name that breaks the rule.
    pub fn with_service(mut self, service: impl AsRef<str>) -> Self {
        self.service = Some(service.as_ref().to_owned());
        self
    }

    pub(crate) fn namespace(&self) -> Result<Option<Namespace>, Error> {
        self.namespace.as_deref().map(Namespace::new).transpose()
    }

    /// Sets the codec of new messages and values; by default MessagePack. Readers understand both.
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sets the largest encoded envelope, in bytes; by default 1 MiB (1,048,576).
    ///
    /// Publishing a larger one fails with [`ErrorKind::TooLarge`]. A larger entry in a topic goes to
    /// the dead letters as `undecodable`.
    pub fn with_max_message_bytes(mut self, bytes: usize) -> Self {
        self.limits = Limits::default().with_max_bytes(bytes);
        self
    }

    /// Sets the deduplication window, 1 millisecond to 30 days; by default there is none.
    ///
    /// Within the window the bus recognises a repeated envelope id and adds no second entry.
    /// [`PublishOptions::with_deduplication`] sets the window for one call and has the details.
    pub fn with_deduplication(mut self, window: Duration) -> Self {
        self.deduplication = Some(window);
        self
    }

    /// Sets whether [`connect`](Self::connect) applies pending migrations; by default they are an
    /// error, because other processes may still run the older version.
    ///
    /// This does not concern a new namespace: see
    /// [`with_namespace_creation`](Self::with_namespace_creation).
    pub fn with_migrate_on_connect(mut self, apply: bool) -> Self {
        self.migrate = apply;
        self
    }

    /// Sets whether [`connect`](Self::connect) creates the layout of a new namespace; by default it
    /// does.
    ///
    /// With `false` a new namespace stays untouched and looks empty. Tools that only read use this,
    /// so that a misspelt name creates nothing.
    pub fn with_namespace_creation(mut self, set_up: bool) -> Self {
        self.setup = set_up;
        self
    }

    /// Sets whether operators may edit dead letters; by default they may not.
    ///
    /// An edited message no longer has the content that its publisher sent.
    pub fn with_dead_letter_editing(mut self, enabled: bool) -> Self {
        self.editing = enabled;
        self
    }

    /// Sets whether this process only reads; by default it does not.
    ///
    /// With `true`, [`Container::health`] asks whether the server answers, not whether it takes
    /// writes. A monitor that connects as a user with read rights only sets this. Nothing else
    /// changes: the server refuses that user's writes.
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Lets an observer see how each delivery ends, those of coordinators included.
    #[cfg(feature = "testing")]
    pub(crate) fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Adds a hook around each publish of the container. The hooks run in the order of adding.
    pub fn with_publish_hook(mut self, hook: impl PublishHook) -> Self {
        self.hooks.add(hook);
        self
    }

    /// Adds a coordinator. The container starts them in the order of these calls and stops them in
    /// reverse.
    pub fn with_coordinator(mut self, coordinator: impl Coordinator) -> Self {
        self.coordinators.push(Arc::new(coordinator));
        self
    }

    /// Returns the migrations of the namespace on the Redis server. Connects nothing yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a bad URL, bad TLS settings or a bad namespace.
    pub fn migrations(&self) -> Result<Migrations, Error> {
        Migrations::with_tls(&self.url, &self.tls, self.namespace()?)
    }

    /// Returns a doctor for this server and namespace. Connects nothing yet and changes nothing.
    ///
    /// It also examines a namespace whose layout [`connect`](Self::connect) refuses.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a bad URL, bad TLS settings or a bad namespace.
    pub fn doctor(self) -> Result<Doctor, Error> {
        let namespace = self.namespace()?;
        let store: Arc<dyn Store> = match self.carrier {
            Carrier::Redis => Arc::new(RedisAdapter::new(&self.url, &self.tls, namespace)?),
            Carrier::Memory(store) => store.store(namespace),
            Carrier::Other(store) => store,
        };
        Ok(Doctor::new(store))
    }

    /// Connects, checks the namespace's layout, and starts the coordinators.
    ///
    /// # Errors
    ///
    /// | Kind | Means |
    /// |---|---|
    /// | [`Invalid`](ErrorKind::Invalid) | a setting breaks a rule: a name, the URL, TLS, the window |
    /// | [`Unavailable`](ErrorKind::Unavailable) | the server cannot be reached or is not ready |
    /// | [`Refused`](ErrorKind::Refused) | the server refused: wrong password, missing permission |
    /// | [`Layout`](ErrorKind::Layout) | the namespace's layout is newer than this version, or older and [`with_migrate_on_connect`](Self::with_migrate_on_connect) is off |
    /// | [`Coordinator`](ErrorKind::Coordinator) | a coordinator failed to start; those before it have been stopped |
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, coordinators that have started stay started.
    pub async fn connect(self) -> Result<Container, Error> {
        let deduplication = PublishOptions::new().window(self.deduplication)?;
        let namespace = self.namespace()?;
        let service = Group::new(self.service.as_deref().unwrap_or("redstart"))?;
        let store: Arc<dyn Store> = match self.carrier {
            Carrier::Redis => {
                let store = RedisAdapter::new(&self.url, &self.tls, namespace)?;
                store.layout().ensure(self.setup, self.migrate).await?;
                Arc::new(store)
            }
            Carrier::Memory(store) => store.store(namespace),
            Carrier::Other(store) => store,
        };
        store.inspect().ping().await?;
        let kv = StoreKv::of(Arc::clone(&store)).with_codec(self.codec);
        let container = Container::new(Parts {
            store,
            kv,
            service,
            codec: self.codec,
            limits: self.limits,
            editing: self.editing,
            deduplication,
            read_only: self.read_only,
            overrides: self.overrides,
            hooks: self.hooks,
        });
        #[cfg(feature = "testing")]
        if let Some(observer) = self.observer {
            container.observe(observer);
        }
        container.start(self.coordinators).await?;
        Ok(container)
    }
}

fn invalid(variable: &'static str, rule: &str) -> Error {
    Error::new(ErrorKind::Invalid, "environment", rule).on(variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<ContainerBuilder, Error> {
        ContainerBuilder::from_lookup(|name| {
            pairs
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
                .ok_or(VarError::NotPresent)
        })
    }

    #[test]
    fn an_empty_environment_is_the_default() {
        let builder = from(&[]).unwrap();
        assert_eq!(builder.url, "redis://127.0.0.1:6379");
        assert_eq!(builder.namespace, None);
        assert!(!builder.migrate);
    }

    #[test]
    fn every_variable_is_read() {
        let builder = from(&[
            ("REDSTART_REDIS_URL", "unix:///r.sock"),
            ("REDSTART_TLS_CA_FILE", "ca.pem"),
            ("REDSTART_TLS_CERT_FILE", "cert.pem"),
            ("REDSTART_TLS_KEY_FILE", "key.pem"),
            ("REDSTART_NAMESPACE", "shop"),
            ("REDSTART_SERVICE", "billing"),
            ("REDSTART_CODEC", "json"),
            ("REDSTART_MAX_MESSAGE_BYTES", "4096"),
            ("REDSTART_DEDUPLICATION", "10m"),
            ("REDSTART_MIGRATE_ON_CONNECT", "true"),
        ])
        .unwrap();
        assert_eq!(builder.url, "unix:///r.sock");
        let tls = TlsSettings::new().with_ca_file("ca.pem");
        assert_eq!(builder.tls, tls.with_client_files("cert.pem", "key.pem"));
        assert_eq!(builder.namespace.as_deref(), Some("shop"));
        assert_eq!(builder.service.as_deref(), Some("billing"));
        assert_eq!(builder.codec, Codec::Json);
        assert_eq!(builder.deduplication, Some(Duration::from_secs(600)));
        assert!(builder.migrate);
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        for (name, value) in [
            ("REDSTART_NAMESPACE", "a b"),
            ("REDSTART_SERVICE", "{x}"),
            ("REDSTART_CODEC", "xml"),
            ("REDSTART_MAX_MESSAGE_BYTES", "1k"),
            ("REDSTART_DEDUPLICATION", "600"),
            ("REDSTART_MIGRATE_ON_CONNECT", "yes"),
        ] {
            let error = from(&[(name, value)]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let builder = ContainerBuilder::default().with_redis_url("redis://:canary@h/");
        assert!(!format!("{builder:?}").contains("canary"));
    }
}
