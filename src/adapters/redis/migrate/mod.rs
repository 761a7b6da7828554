//! Migrations of a namespace: numbered scripts, each applied once.

mod stored;

use std::time::Duration;

use redis::{RedisError, Script};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::keys::Keys;
use super::net::{Access, Connection, Net, missing_right};
use super::resp::reply;
use super::scripts;
use crate::domain::{
    Error, ErrorKind, Migration, MigrationState, Namespace, Placement, layout_problem, unfinished,
};
use stored::{Known, Schema, is_final, is_locked, known, placement_of, states};

pub(super) use stored::{OWNED_GROUPS, PARTITIONS};

/// How long a migration may take before another process may take the lock.
const LOCK: Duration = Duration::from_secs(60);
/// How long to wait for another process that is applying migrations.
const PATIENCE: Duration = Duration::from_secs(30);

/// The migrations of a namespace.
#[derive(Clone, Debug)]
pub struct Migrations {
    net: Net,
    /// The names of the schema and of the registry, which every placement has.
    keys: Keys,
    namespace: Option<Namespace>,
    /// The placement that the caller asks for; `None` takes the one that the namespace has.
    wanted: Option<Placement>,
}

impl Migrations {
    /// Prepares to look at a namespace's migrations.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the URL cannot be parsed.
    pub fn new(url: &str, namespace: Option<Namespace>) -> Result<Self, Error> {
        Self::with_access(url, &Access::default(), namespace, None)
    }

    pub(crate) fn with_access(
        url: &str,
        access: &Access,
        namespace: Option<Namespace>,
        wanted: Option<Placement>,
    ) -> Result<Self, Error> {
        Placement::check(wanted, namespace.as_ref())?;
        let net = Net::new(url, access, namespace.as_ref())?;
        Ok(Self::on(net, namespace, wanted))
    }

    pub(super) fn on(net: Net, namespace: Option<Namespace>, wanted: Option<Placement>) -> Self {
        Self {
            net,
            keys: Keys::new(namespace.clone(), Placement::Spread),
            namespace,
            wanted,
        }
    }

    /// All migrations, known or applied, by number.
    ///
    /// # Errors
    ///
    /// The kinds of the connection, and [`ErrorKind::Layout`] for a placement of a newer version.
    pub async fn status(&self) -> Result<Vec<Migration>, Error> {
        let operation = "migration status";
        let schema = self.schema(operation).await?;
        Ok(states(&schema, self.placement_in(&schema, operation)?))
    }

    /// Where the keys of the namespace lie; `None` for a namespace that is not set up.
    ///
    /// # Errors
    ///
    /// As [`status`](Self::status).
    pub async fn placement(&self) -> Result<Option<Placement>, Error> {
        self.placement_for("placement").await
    }

    /// The same as a part of another operation, which an error names.
    pub(super) async fn placement_for(
        &self,
        operation: &'static str,
    ) -> Result<Option<Placement>, Error> {
        placement_of(&self.schema(operation).await?, operation)
    }

    /// The same for a user that may lack the right to read the schema.
    pub(super) async fn placement_shown(
        &self,
        operation: &'static str,
    ) -> Result<PlacementShown, Error> {
        let key = self.keys.schema();
        let asked = self.net.run(operation, &key, async |connection| {
            match read_schema(connection, &key).await {
                // The server has answered the command itself, so the user is logged in.
                Err(cause) if missing_right(&cause).is_some() => Ok(None),
                read => read.map(Some),
            }
        });
        Ok(match asked.await? {
            Some(schema) => PlacementShown::Is(placement_of(&schema, operation)?),
            None => PlacementShown::Denied,
        })
    }

    async fn schema(&self, operation: &'static str) -> Result<Schema, Error> {
        let key = self.keys.schema();
        let read = async || {
            self.net
                .run(operation, &key, async |connection| {
                    read_schema(connection, &key).await
                })
                .await
        };
        match read().await {
            // A primary that becomes a replica closes its connections. Reading changes nothing.
            Err(error) if error.is_outcome_unknown() => read().await,
            schema => schema,
        }
    }

    /// The schema when no other process is at a migration: the first owned group of a running namespace
    /// applies one, and so does its first topic with several partitions.
    async fn schema_at_rest(&self, operation: &'static str) -> Result<Schema, Error> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let schema = self.schema(operation).await?;
            if !is_locked(&schema) || Instant::now() >= patience {
                return Ok(schema);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The placement that decides which migrations count: that of the namespace, or for a new one the
    /// wanted one.
    fn placement_in(&self, schema: &Schema, operation: &'static str) -> Result<Placement, Error> {
        let placement = placement_of(schema, operation)?;
        Ok(placement.or(self.wanted).unwrap_or_default())
    }

    /// The connections and the namespace.
    pub(super) fn place(&self) -> (Net, Option<Namespace>) {
        (self.net.clone(), self.namespace.clone())
    }

    /// The placement for calls while the namespace is not set up.
    pub(super) fn expected(&self) -> Placement {
        self.wanted.unwrap_or_default()
    }

    pub(super) fn agree(&self, placement: Placement) -> Result<(), Error> {
        placement.agree(self.wanted, self.namespace.as_ref())
    }

    /// Applies what is pending, and returns the numbers of what was applied.
    ///
    /// Waits while another process does the same. With `repair` a migration that was begun
    /// and not finished is applied again, which every migration allows. A new namespace gets its
    /// placement: the builder's, or else [`Placement::Spread`].
    ///
    /// # Errors
    ///
    /// | Kind | Means |
    /// |---|---|
    /// | [`ErrorKind::Layout`] | a migration is dirty and `repair` is not set, the namespace was migrated by a newer version, or another process takes too long |
    /// | [`ErrorKind::Invalid`] | the namespace has another placement than the builder asks for |
    ///
    /// # Cancel safety
    ///
    /// The migration that was under way may be left dirty when the future is dropped.
    pub async fn up(&self, repair: bool) -> Result<Vec<u32>, Error> {
        self.apply_all(repair, None).await
    }

    /// Applies the migration for [owned groups](crate::docs::owned_groups), unless the namespace has it.
    /// Versions that do not know such groups refuse the namespace from then on.
    ///
    /// The first owned group of a namespace does the same. Call this as an operator where the services
    /// may not change the layout.
    ///
    /// # Errors
    ///
    /// As [`up`](Self::up).
    ///
    /// # Cancel safety
    ///
    /// As [`up`](Self::up).
    pub async fn allow_owned_groups(&self) -> Result<Vec<u32>, Error> {
        self.demand(OWNED_GROUPS).await
    }

    /// Applies a migration that is applied on demand, unless the namespace has it. Versions that do not
    /// know it refuse the namespace from then on.
    pub(super) async fn demand(&self, name: &'static str) -> Result<Vec<u32>, Error> {
        let all = self.status().await?;
        let is_applied =
            |one: &Migration| one.name == name && matches!(one.state, MigrationState::Applied(_));
        // A user who may read the layout need not be allowed to change it.
        if all.iter().any(is_applied) {
            return Ok(Vec::new());
        }
        self.apply_all(false, Some(name)).await
    }

    /// Applies what is pending, and one migration that is applied on demand.
    async fn apply_all(
        &self,
        repair: bool,
        demanded: Option<&'static str>,
    ) -> Result<Vec<u32>, Error> {
        let operation = "migrate";
        let refuse = |rule: String| Err(Error::new(ErrorKind::Layout, operation, rule));
        let schema = self.schema(operation).await?;
        let placement = self.placement_in(&schema, operation)?;
        self.agree(placement)?;
        let mut all = states(&schema, placement);
        let begun: Vec<u32> = all.iter().map(|one| one.number).collect();
        let is_applied = |one: &&Migration| matches!(one.state, MigrationState::Applied(_));
        let applied_before: Vec<u32> = all
            .iter()
            .filter(is_applied)
            .map(|one| one.number)
            .collect();
        all.retain(is_final);
        if let Some(rule) = layout_problem(&all) {
            return refuse(rule);
        }
        let token = Uuid::new_v4().to_string();
        let patience = Instant::now() + PATIENCE;
        let mut applied = Vec::new();
        let wanted = |known: &&Known| {
            let is_needed =
                !known.on_demand || demanded == Some(known.name) || begun.contains(&known.number);
            is_needed && !applied_before.contains(&known.number)
        };
        let mut wanted = known(placement).filter(wanted).peekable();
        while let Some(known) = wanted.next() {
            let finish = match wanted.peek() {
                Some(_) => "finish-one",
                None => "finish",
            };
            loop {
                let action = if repair { "repair" } else { "begin" };
                match self.mark(action, &token, known).await?.as_str() {
                    "ok" => {
                        self.apply(known).await?;
                        match self.mark(finish, &token, known).await?.as_str() {
                            "ok" => applied.push(known.number),
                            _ => {
                                let rule = format!(
                                    "migration {} took longer than its lock; look at its status",
                                    known.id()
                                );
                                return refuse(rule);
                            }
                        }
                        break;
                    }
                    "applied" => break,
                    "locked" if Instant::now() < patience => {
                        sleep(Duration::from_millis(50)).await;
                    }
                    "locked" => {
                        return refuse("another process is applying migrations".to_owned());
                    }
                    // Another process has set the namespace up meanwhile.
                    "placed" => {
                        let placement = self.placement_for(operation).await?;
                        self.agree(placement.unwrap_or_default())?;
                        return Box::pin(self.apply_all(repair, demanded)).await;
                    }
                    _ => return refuse(unfinished(known.number)),
                }
            }
        }
        Ok(applied)
    }

    async fn mark(
        &self,
        action: &'static str,
        token: &str,
        known: &Known,
    ) -> Result<String, Error> {
        let call = scripts::schema()
            .key(self.keys.schema())
            .key(self.keys.topics())
            .arg(action)
            .arg(token)
            .arg(known.id())
            .arg(known.checksum())
            .arg(LOCK.as_millis() as u64)
            .arg(known.placement.as_str());
        self.net
            .call("migrate", &call, reply::typed)
            .await
            .map_err(|e| e.on(known.id()))
    }

    async fn apply(&self, known: &Known) -> Result<(), Error> {
        let script = Script::new(known.text);
        let mut call = script.prepare_invoke();
        let schema = self.keys.schema();
        call.key(&schema).key(self.keys.topics());
        self.net
            .run("migrate", &schema, async |connection| {
                call.invoke_async::<()>(connection).await
            })
            .await
            .map_err(|e| e.on(format!("{} {}", known.id(), known.name)))
    }

    /// Makes sure that the namespace has the layout that this version works on, and the wanted
    /// placement. Returns its placement; `None` for a new namespace that stays untouched.
    ///
    /// A namespace without any layout is new and gets it, unless `set_up` is not set; an older one only
    /// when `migrate` is set.
    pub(crate) async fn ensure(
        &self,
        set_up: bool,
        migrate: bool,
    ) -> Result<Option<Placement>, Error> {
        let operation = "connect";
        let schema = self.schema_at_rest(operation).await?;
        let found = placement_of(&schema, operation)?;
        let placement = self.placement_in(&schema, operation)?;
        self.agree(placement)?;
        let all = states(&schema, placement);
        let is_applied = |m: &Migration| matches!(m.state, MigrationState::Applied(_));
        if all.iter().all(is_applied) {
            return Ok(Some(placement));
        }
        let is_new = !all.iter().any(is_applied);
        let may_apply = (is_new && set_up) || migrate;
        // A dirty state may be another process that is at it: `up` tells the two apart.
        if may_apply && !all.iter().any(is_final) && (set_up || !is_new) {
            self.up(false).await?;
            // Another process may have set the namespace up with its own placement.
            return self.placement_for(operation).await;
        }
        match layout_problem(&all) {
            Some(rule) => Err(Error::new(ErrorKind::Layout, operation, rule)),
            None => Ok(found),
        }
    }
}

/// What the server says about the placement of a namespace.
#[derive(Debug)]
pub(super) enum PlacementShown {
    /// The placement; `None` for a namespace that is not set up.
    Is(Option<Placement>),
    /// The user lacks the right to read the schema.
    Denied,
}

async fn read_schema(connection: &mut Connection, key: &str) -> Result<Schema, RedisError> {
    redis::cmd("HGETALL").arg(key).query_async(connection).await
}
