//! Settings of all commands: the server, the namespace, the output.

use std::io;

use clap::Args as ClapArgs;
use redstart::{Container, Namespace, container::ContainerBuilder};
use tracing_subscriber::filter::LevelFilter;

use crate::args::format::ForeignFormat;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// How a command uses its namespace; decides what connecting may do to the layout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NamespaceAccess {
    /// Reads only; connecting writes nothing.
    Read,
    /// Changes what exists. Connecting migrates an older layout where the settings allow it, but
    /// never creates a namespace: a misspelt name would create one.
    Change,
    /// Adds something; connecting creates a missing namespace.
    Create,
}

#[derive(ClapArgs, Clone)]
#[command(next_help_heading = "Settings")]
pub(crate) struct Settings {
    /// The server's URL; put one with a password into the variable
    ///
    /// redis://[user:password@]host[:port][/database] or unix:///path [default:
    /// redis://127.0.0.1:6379]. Every user of the machine can read a command line: put a URL with
    /// a password into the variable.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "REDSTART_REDIS_URL",
        hide_env_values = true
    )]
    pub(crate) redis_url: Option<String>,
    /// The prefix of all keys
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "REDSTART_NAMESPACE",
        hide_env_values = true
    )]
    pub(crate) namespace: Option<String>,
    /// Also read entries that other programs write in this format: debezium, cloudevents, plain:TYPE
    ///
    /// Debezium: as the Redis sink of Debezium Server writes them. Cloudevents: CloudEvents 1.0 as JSON,
    /// in a field with any name. Plain: one text for each field, as a message of the type. Several
    /// formats stand with commas between them.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "REDSTART_FOREIGN",
        hide_env_values = true,
        value_delimiter = ',',
        value_parser = ForeignFormat::parse
    )]
    pub(crate) foreign: Vec<ForeignFormat>,
    /// Write results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The lowest level of log events: off, error, warn, info, debug, trace
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "REDSTART_LOG",
        default_value = "error",
        hide_env_values = true
    )]
    pub(crate) log: LevelFilter,
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("namespace", &self.namespace)
            .field("json", &self.json)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// The server's URL, where one is set. An empty variable counts as unset.
    pub(crate) fn redis_url(&self) -> Option<&str> {
        self.redis_url.as_deref().filter(|url| !url.is_empty())
    }

    /// A builder with the settings of the environment, overridden by the command line.
    pub(crate) fn builder(&self) -> Result<ContainerBuilder, Failure> {
        let mut builder = ContainerBuilder::from_env().map_err(Failure::of_settings)?;
        if let Some(url) = self.redis_url() {
            builder = builder.with_redis_url(url);
        }
        if let Some(name) = self.namespace.as_deref().filter(|name| !name.is_empty()) {
            builder = builder.with_namespace(Namespace::new(name).map_err(Failure::of_settings)?);
        }
        for format in &self.foreign {
            builder = format.add_to(builder);
        }
        Ok(builder)
    }

    /// A [`builder`](Self::builder) for a command with this access.
    pub(crate) fn builder_for(&self, access: NamespaceAccess) -> Result<ContainerBuilder, Failure> {
        let builder = self
            .builder()?
            .with_namespace_creation(access == NamespaceAccess::Create);
        Ok(match access {
            NamespaceAccess::Read => builder.with_migrate_on_connect(false),
            NamespaceAccess::Change | NamespaceAccess::Create => builder,
        })
    }

    /// Connects, for a command with this access.
    pub(crate) async fn connect_for(&self, access: NamespaceAccess) -> Result<Container, Failure> {
        self.builder_for(access)?
            .connect()
            .await
            .map_err(Failure::of_settings)
    }

    pub(crate) fn start_logging(&self) {
        tracing_subscriber::fmt()
            .with_max_level(self.log)
            .with_writer(io::stderr)
            .with_ansi(false)
            .init();
    }

    /// Warns of a password on the command line.
    pub(crate) fn warn_of_a_password(&self, terminal: &mut Terminal<'_>) {
        let Some(url) = self.redis_url() else { return };
        let from_variable = std::env::var("REDSTART_REDIS_URL").is_ok_and(|value| value == url);
        if !from_variable && holds_password(url) {
            terminal.remark(
                "warning: every user of this machine can read a password on a command line; \
                 set REDSTART_REDIS_URL instead",
            );
        }
    }
}

fn holds_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let in_authority = authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'));
    in_authority || rest.contains("pass=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_recognised_in_a_url() {
        for url in ["redis://:p@h/", "redis://u:p@h:1/0", "unix:///s?pass=p"] {
            assert!(holds_password(url), "{url}");
        }
        for url in ["redis://h:6379/", "redis://u@h:1", "unix:///a@b:c"] {
            assert!(!holds_password(url), "{url}");
        }
    }

    #[test]
    fn settings_never_show_the_url() {
        let settings = Settings {
            redis_url: Some("redis://:canary@h/".to_owned()),
            namespace: None,
            foreign: Vec::new(),
            json: false,
            log: LevelFilter::OFF,
        };
        assert!(!format!("{settings:?}").contains("canary"));
    }
}
