//! The builder: the settings of a container, and `connect`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Container, Coordinator, Parts};
use crate::adapters::memory::MemoryStore;
use crate::adapters::redis::{Access, Migrations, TlsSettings, address_of, connect, unplaced};
#[cfg(feature = "testing")]
use crate::api::observe::Observer;
use crate::api::overrides::Overrides;
use crate::api::propagator::Telemetry;
use crate::api::{Propagator, PublishHook, PublishHooks, PublishOptions, StoreKv};
use crate::domain::{
    Codec, Durability, Error, ErrorKind, Group, Namespace, NativeCommands, Placement,
};
use crate::operate::doctor::Doctor;
use crate::store::{Partitioned, Store};
use crate::wire::Limits;
use crate::wire::foreign::{Foreign, ForeignAnswer, ForeignEntry};

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
    pub(super) url: String,
    pub(super) access: Access,
    carrier: Carrier,
    /// Unvalidated: `connect` reports a bad name.
    pub(super) namespace: Option<String>,
    pub(super) service: Option<String>,
    pub(super) codec: Codec,
    /// Unvalidated: `connect` reports an empty source.
    events: Option<Arc<str>>,
    pub(super) limits: Limits,
    pub(super) deduplication: Option<Duration>,
    durability: Durability,
    pub(super) placement: Option<Placement>,
    setup: bool,
    pub(super) migrate: bool,
    pub(super) editing: bool,
    read_only: bool,
    coordinators: Vec<Arc<dyn Coordinator>>,
    propagator: Option<Arc<dyn Propagator>>,
    pub(super) overrides: Overrides,
    hooks: PublishHooks,
    foreign: Foreign,
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
            access: Access::default(),
            carrier: Carrier::Redis,
            namespace: None,
            service: None,
            codec: Codec::default(),
            events: None,
            limits: Limits::default(),
            deduplication: None,
            durability: Durability::Accepted,
            placement: None,
            setup: true,
            migrate: false,
            editing: false,
            read_only: false,
            coordinators: Vec::new(),
            propagator: None,
            overrides: Overrides::default(),
            hooks: PublishHooks::default(),
            foreign: Foreign::default(),
            #[cfg(feature = "testing")]
            observer: None,
        }
    }
}

impl ContainerBuilder {
    /// Sets the server's URL; by default `redis://127.0.0.1:6379`.
    ///
    /// | Form | Connects |
    /// |---|---|
    /// | `redis://[user:password@]host[:port][/database]` | in plain text |
    /// | `rediss://…` | by TLS; needs feature `tls` |
    /// | `unix:///path[?user=…&pass=…&db=…]` | through a unix socket |
    /// | `redis+cluster://[user:password@]host[:port],…`, `rediss+cluster://…` | to a [Redis Cluster](crate::docs::cluster), of which it names some nodes |
    /// | `redis+sentinel://[user:password@]sentinel[:port],…/service[/database]`, `rediss+sentinel://…` | to the primary that [sentinels](crate::docs::sentinel) name; user and password are those of the servers |
    ///
    /// Percent-encode symbols in the user name and the password. [`connect`](Self::connect) refuses
    /// every other part, such as `?db=` after a host, and a user without a password.
    pub fn with_redis_url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// Sets the [native commands](crate::docs::servers) to use at servers that have them; by default
    /// none. Replaces the ones that were set before.
    ///
    /// Each server is asked which ones it has when a connection to it is made. At a server that lacks one, or
    /// that does not let this user ask, Redstart works as it does without it.
    ///
    /// ```
    /// use redstart::{Container, container::NativeCommand};
    ///
    /// let builder = Container::builder().with_native(NativeCommand::XaddIdmp);
    /// # let _ = builder;
    /// ```
    pub fn with_native(mut self, commands: impl Into<NativeCommands>) -> Self {
        self.access.native = commands.into();
        self
    }

    /// Sets the trusted authorities and the client certificate for a `rediss://` server; by default
    /// [`TlsSettings::new`].
    ///
    /// [`connect`](Self::connect) refuses other settings with a plain-text URL: they would be
    /// ignored, and the connection would not be encrypted.
    pub fn with_tls(mut self, tls: TlsSettings) -> Self {
        self.access.tls = tls;
        self
    }

    /// Sets the password of the sentinels of a `redis+sentinel://` URL; by default they need none. It has
    /// nothing to do with the password of the servers, which stands in the URL.
    ///
    /// [`connect`](Self::connect) refuses it with a URL that names no sentinels.
    pub fn with_sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.access.sentinel.password = Some(password.into());
        self
    }

    /// Sets the user for the log-in at the sentinels, beside
    /// [`with_sentinel_password`](Self::with_sentinel_password); by default the user `default`.
    pub fn with_sentinel_user(mut self, user: impl Into<String>) -> Self {
        self.access.sentinel.user = Some(user.into());
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
    /// [`with_namespace`](Self::with_namespace), [`with_namespace_creation`](Self::with_namespace_creation),
    /// [`with_placement`](Self::with_placement) and
    /// [`with_migrate_on_connect`](Self::with_migrate_on_connect) have no effect. The conformance suite
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

    /// Publishes every message as a CloudEvent 1.0: JSON in structured mode, in the field `cloudevents`.
    /// Every consumer of Redstart reads it, whatever its own setting.
    ///
    /// `source` is a URI reference that names the producer, such as `/shop/orders`; an event that came
    /// from elsewhere keeps its own. [`connect`](Self::connect) reports an empty source. A payload needs
    /// a JSON form, or the publish fails with [`Encode`](crate::ErrorKind::Encode). The codec still holds
    /// for values.
    pub fn with_cloud_events(mut self, source: impl Into<String>) -> Self {
        self.events = Some(source.into().into());
        self
    }

    /// Sets the largest encoded envelope, in bytes; by default 1 MiB (1,048,576).
    ///
    /// Publishing a larger one fails with [`TooLarge`](crate::ErrorKind::TooLarge). A larger entry in a topic goes to
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

    /// Sets what a message must survive before its publish, or its schedule, counts as done; by default
    /// [`Durability::Accepted`]. [`PublishOptions::with_durability`] sets it for one call, and the guide
    /// [durability](crate::docs::durability) says what each level survives and costs.
    ///
    /// [`connect`](Self::connect) asks every server whether it can give the level, and fails if one
    /// cannot: with [`Unsupported`](crate::ErrorKind::Unsupported) if it never can, with
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if replicas are missing.
    pub fn with_durability(mut self, level: Durability) -> Self {
        self.durability = level;
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

    /// Sets where the keys of the namespace lie in a cluster; by default a container takes the placement
    /// that its namespace has, and sets a new one up with [`Placement::Spread`].
    ///
    /// The container that sets the namespace up fixes the placement for ever. [`connect`](Self::connect)
    /// refuses another one with [`Invalid`](crate::ErrorKind::Invalid), and
    /// [`Placement::Together`] without a namespace. The guide [cluster](crate::docs::cluster) says when
    /// to choose which.
    pub fn with_placement(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
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

    /// Adds a reader of foreign entries: entries that a program wrote which does not know Redstart's wire
    /// format. [`foreign`](crate::foreign) has readers for common formats.
    ///
    /// Redstart asks the readers, in the order of adding, before it dead-letters an entry as undecodable.
    /// The first envelope counts. `None` means that the reader does not know the entry; an `Err` that it
    /// does, and why the entry is broken. A reader that panics fails this entry only.
    ///
    /// The message has the same id at each delivery: Redstart calls the reader twice, and an id that
    /// differs gives way to one derived from the topic and the entry's id. A fresh correlation id is
    /// dropped, and the time of the call gives way to that of the entry. Retries and dead letters
    /// hold the envelope and, after it, all fields of the entry.
    ///
    /// # Example
    ///
    /// ```
    /// use redstart::foreign::ForeignEntry;
    /// use redstart::{Container, Envelope};
    ///
    /// let builder = Container::builder()
    ///     .with_foreign(|entry: &ForeignEntry<'_>| {
    ///         let cents: u64 = entry.text("cents")?.parse().ok()?;
    ///         entry.envelope("order.placed", &cents).ok()
    ///     })
    ///     .with_foreign(redstart::foreign::debezium());
    /// # let _ = builder;
    /// ```
    pub fn with_foreign<F, A>(mut self, read: F) -> Self
    where
        F: Fn(&ForeignEntry<'_>) -> A + Send + Sync + 'static,
        A: ForeignAnswer,
    {
        self.foreign.add(read);
        self
    }

    /// Adds a coordinator. The container starts them in the order of these calls and stops them in
    /// reverse.
    pub fn with_coordinator(mut self, coordinator: impl Coordinator) -> Self {
        self.coordinators.push(Arc::new(coordinator));
        self
    }

    /// Sets what carries traces from publishers to handlers; by default nothing does.
    ///
    /// Each publish adds the current span to messages that have no header `traceparent`, and each
    /// attempt at such a message belongs to the same trace: its retries, and those after a redrive,
    /// because the headers stay. The spans then have the names and attributes of OpenTelemetry's
    /// conventions, and a publish has one at level info. Feature `otel` has a propagator,
    /// `redstart::otel::W3c`. The page [observability](crate::docs::observability) shows the setup.
    pub fn with_propagator(mut self, propagator: impl Propagator) -> Self {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// Returns the migrations of the namespace on the Redis server. Connects nothing yet.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a bad URL, bad TLS settings or a bad namespace.
    pub fn migrations(&self) -> Result<Migrations, Error> {
        Migrations::with_access(&self.url, &self.access, self.namespace()?, self.placement)
    }

    /// Returns a doctor for this server and namespace. Connects nothing yet and changes nothing.
    ///
    /// It also examines a namespace whose layout [`connect`](Self::connect) refuses.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a bad URL, bad TLS settings or a bad namespace.
    pub fn doctor(self) -> Result<Doctor, Error> {
        let namespace = self.namespace()?;
        let store: Arc<dyn Store> = match self.carrier {
            // The doctor shows the placement, and refuses none.
            Carrier::Redis => {
                let layout = Migrations::with_access(&self.url, &self.access, namespace, None)?;
                Arc::new(Partitioned::new(unplaced(layout)))
            }
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
    /// | [`Invalid`](crate::ErrorKind::Invalid) | a setting breaks a rule: a name, the URL, TLS, the window, or the placement that the namespace has |
    /// | [`Unavailable`](crate::ErrorKind::Unavailable) | the server cannot be reached or is not ready |
    /// | [`Refused`](crate::ErrorKind::Refused) | the server refused: wrong password, missing permission |
    /// | [`Layout`](crate::ErrorKind::Layout) | the namespace's layout is newer than this version, or older and [`with_migrate_on_connect`](Self::with_migrate_on_connect) is off |
    /// | [`Coordinator`](crate::ErrorKind::Coordinator) | a coordinator failed to start; those before it have been stopped |
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, coordinators that have started stay started.
    pub async fn connect(self) -> Result<Container, Error> {
        let deduplication = PublishOptions::new().window(self.deduplication)?;
        if self.events.as_deref() == Some("") {
            let rule = "the source of CloudEvents is empty, and an event needs one";
            return Err(Error::new(ErrorKind::Invalid, "connect", rule));
        }
        if self.limits == Limits::default().with_max_bytes(0) {
            let rule = "the largest envelope has 0 bytes, so no message could be published or read";
            return Err(Error::new(ErrorKind::Invalid, "connect", rule).on("max_message_bytes"));
        }
        let namespace = self.namespace()?;
        let service = Group::new(self.service.as_deref().unwrap_or("redstart"))?;
        let server = match &self.carrier {
            Carrier::Redis => address_of(&self.url),
            Carrier::Memory(_) | Carrier::Other(_) => None,
        };
        let store: Arc<dyn Store> = match self.carrier {
            Carrier::Redis => {
                let layout =
                    Migrations::with_access(&self.url, &self.access, namespace, self.placement)?;
                let store = connect(layout, self.setup, self.migrate).await?;
                Arc::new(Partitioned::new(store))
            }
            Carrier::Memory(store) => store.connect(namespace, self.placement, self.setup)?,
            Carrier::Other(store) => store,
        };
        store.inspect().ping().await?;
        let durability = self.durability.check()?;
        if durability != Durability::Accepted {
            store.log().can_keep(durability).await?;
        }
        let kv = StoreKv::of(Arc::clone(&store)).with_codec(self.codec);
        let container = Container::new(Parts {
            store,
            kv,
            service,
            codec: self.codec,
            events: self.events,
            limits: self.limits,
            editing: self.editing,
            deduplication,
            durability,
            read_only: self.read_only,
            overrides: self.overrides,
            hooks: self.hooks,
            foreign: self.foreign,
            telemetry: self
                .propagator
                .map(|propagator| Telemetry { propagator, server }),
        });
        #[cfg(feature = "testing")]
        if let Some(observer) = self.observer {
            container.observe(observer);
        }
        container.start(self.coordinators).await?;
        Ok(container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let builder = ContainerBuilder::default().with_redis_url("redis://:canary@h/");
        assert!(!format!("{builder:?}").contains("canary"));
    }

    #[tokio::test]
    async fn a_limit_of_no_bytes_is_refused() {
        let builder = ContainerBuilder::default().with_memory(MemoryStore::new());
        let error = builder.with_max_message_bytes(0).connect().await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("max_message_bytes"), "{error}");
    }
}
