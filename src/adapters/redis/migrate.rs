//! Migrations of a namespace: numbered scripts, each applied once.

use std::collections::HashMap;
use std::time::Duration;

use redis::Script;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::keys::Keys;
use super::net::{Access, Net};
use super::resp::reply;
use super::scripts;
use crate::domain::{
    Error, ErrorKind, Migration, MigrationState, Namespace, Timestamp, layout_problem, unfinished,
};

/// How long a migration may take before another process may take the lock.
const LOCK: Duration = Duration::from_secs(60);
/// How long to wait for another process that is applying migrations.
const PATIENCE: Duration = Duration::from_secs(30);

struct Known {
    number: u32,
    name: &'static str,
    text: &'static str,
}

/// All migrations that this version knows, in their order.
const KNOWN: [Known; 2] = [
    Known {
        number: 1,
        name: "layout",
        text: include_str!("../../../migrations/0001_layout.lua"),
    },
    Known {
        number: 2,
        name: "claims",
        text: include_str!("../../../migrations/0002_claims.lua"),
    },
];

impl Known {
    /// The checksum by which a script is told from a changed one: its SHA-1, as Redis names it.
    fn checksum(&self) -> String {
        Script::new(self.text).get_hash().to_owned()
    }

    fn id(&self) -> String {
        format!("{:04}", self.number)
    }
}

/// The migrations of a namespace.
#[derive(Clone, Debug)]
pub struct Migrations {
    net: Net,
    keys: Keys,
}

impl Migrations {
    /// Prepares to look at a namespace's migrations.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the URL cannot be parsed.
    pub fn new(url: &str, namespace: Option<Namespace>) -> Result<Self, Error> {
        Self::with_access(url, &Access::default(), namespace)
    }

    pub(crate) fn with_access(
        url: &str,
        access: &Access,
        namespace: Option<Namespace>,
    ) -> Result<Self, Error> {
        let net = Net::new(url, access, namespace.as_ref())?;
        Ok(Self::on(net, Keys::new(namespace)))
    }

    pub(super) fn on(net: Net, keys: Keys) -> Self {
        Self { net, keys }
    }

    /// All migrations, known or applied, by number.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn status(&self) -> Result<Vec<Migration>, Error> {
        self.status_for("migration status").await
    }

    /// The same as a part of another operation, which an error names.
    async fn status_for(&self, operation: &'static str) -> Result<Vec<Migration>, Error> {
        let key = self.keys.schema();
        let held: HashMap<String, String> = self
            .net
            .run(operation, &key, async |connection| {
                redis::cmd("HGETALL")
                    .arg(&key)
                    .query_async(connection)
                    .await
            })
            .await?;
        let dirty = held.get("dirty").and_then(|id| id.parse().ok());
        let mut all: Vec<Migration> = KNOWN
            .iter()
            .map(|known| {
                let id = known.id();
                let state = match held.get(&format!("applied:{id}")) {
                    Some(checksum) if *checksum != known.checksum() => MigrationState::Changed,
                    Some(_) => MigrationState::Applied(applied_at(&held, &id)),
                    None if dirty == Some(known.number) => MigrationState::Dirty,
                    None => MigrationState::Pending,
                };
                Migration {
                    number: known.number,
                    name: known.name.to_owned(),
                    state,
                }
            })
            .collect();
        for number in held
            .keys()
            .filter_map(|field| field.strip_prefix("applied:")?.parse().ok())
            .chain(dirty)
        {
            if all.iter().all(|migration| migration.number != number) {
                all.push(Migration {
                    number,
                    name: String::new(),
                    state: MigrationState::Unknown,
                });
            }
        }
        all.sort_by_key(|migration| migration.number);
        Ok(all)
    }

    /// Applies what is pending, and returns the numbers of what was applied.
    ///
    /// Waits while another process does the same. With `repair` a migration that was begun
    /// and not finished is applied again, which every migration allows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Layout`] when a migration is dirty and `repair` is not set, when the
    /// namespace was migrated by a newer version, or when another process takes too long.
    ///
    /// # Cancel safety
    ///
    /// The migration that was under way may be left dirty when the future is dropped.
    pub async fn up(&self, repair: bool) -> Result<Vec<u32>, Error> {
        let operation = "migrate";
        let refuse = |rule: String| Err(Error::new(ErrorKind::Layout, operation, rule));
        let mut all = self.status_for(operation).await?;
        all.retain(is_final);
        if let Some(rule) = layout_problem(&all) {
            return refuse(rule);
        }
        let token = Uuid::new_v4().to_string();
        let patience = Instant::now() + PATIENCE;
        let mut applied = Vec::new();
        for known in &KNOWN {
            loop {
                let action = if repair { "repair" } else { "begin" };
                match self.mark(action, &token, known).await?.as_str() {
                    "ok" => {
                        self.apply(known).await?;
                        match self.mark("finish", &token, known).await?.as_str() {
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
            .arg(action)
            .arg(token)
            .arg(known.id())
            .arg(known.checksum())
            .arg(LOCK.as_millis() as u64);
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

    /// Makes sure that the namespace has the layout that this version works on.
    ///
    /// A namespace without any is new and gets it, unless `set_up` is not set; an older one only when
    /// `migrate` is set.
    pub(crate) async fn ensure(&self, set_up: bool, migrate: bool) -> Result<(), Error> {
        let operation = "connect";
        let all = self.status_for(operation).await?;
        let is_applied = |m: &Migration| matches!(m.state, MigrationState::Applied(_));
        if all.iter().all(is_applied) {
            return Ok(());
        }
        let is_new = !all.iter().any(is_applied);
        let may_apply = (is_new && set_up) || migrate;
        // A dirty state may be another process that is at it: `up` tells the two apart.
        if may_apply && !all.iter().any(is_final) && (set_up || !is_new) {
            return self.up(false).await.map(|_| ());
        }
        match layout_problem(&all) {
            Some(rule) => Err(Error::new(ErrorKind::Layout, operation, rule)),
            None => Ok(()),
        }
    }
}

/// Whether no migration of this version can help.
fn is_final(migration: &Migration) -> bool {
    let state = &migration.state;
    matches!(state, MigrationState::Unknown | MigrationState::Changed)
}

fn applied_at(held: &HashMap<String, String>, id: &str) -> Timestamp {
    let millis = held
        .get(&format!("appliedAt:{id}"))
        .and_then(|text| text.parse().ok());
    let epoch = || Timestamp::from_millis(0).ok();
    millis
        .and_then(|millis| Timestamp::from_millis(millis).ok())
        .or_else(epoch)
        .unwrap_or_else(Timestamp::now)
}
