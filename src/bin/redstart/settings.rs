//! What all commands share: where the server is and how to talk.

use std::io;

use clap::Args as ClapArgs;
use redstart::{Container, Namespace, container::ContainerBuilder};
use tracing_subscriber::filter::LevelFilter;

use crate::console::Console;
use crate::failure::Failure;

/// What a command does with its namespace, and so what connecting may do to the layout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NamespaceAccess {
    /// It only looks: nothing is written.
    Look,
    /// It changes what is there: an older layout is brought up to date where the settings say so,
    /// but a namespace that is not there, as one that is misspelt, is not set up.
    Change,
    /// It puts something in, and sets up a new namespace.
    Begin,
}

#[derive(ClapArgs, Clone)]
#[command(next_help_heading = "Settings")]
pub(crate) struct Settings {
    /// The server; a password belongs into the variable
    ///
    /// redis://[user:password@]host[:port][/database] or unix:///path [default:
    /// redis://127.0.0.1:6379]. Every user of the machine can read a command line, so that a
    /// URL with a password belongs into the variable.
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
    /// Write results for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What is logged: off, error, warn, info, debug, trace
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
    /// The server's address, where one was given. An empty variable is none.
    pub(crate) fn redis_url(&self) -> Option<&str> {
        self.redis_url.as_deref().filter(|url| !url.is_empty())
    }

    /// A container in the making: the environment, and what the command line says over it.
    pub(crate) fn builder(&self) -> Result<ContainerBuilder, Failure> {
        let mut builder = ContainerBuilder::from_env().map_err(Failure::of_settings)?;
        if let Some(url) = self.redis_url() {
            builder = builder.with_redis_url(url);
        }
        if let Some(name) = self.namespace.as_deref().filter(|name| !name.is_empty()) {
            builder = builder.with_namespace(Namespace::new(name).map_err(Failure::of_settings)?);
        }
        Ok(builder)
    }

    /// As [`builder`](Self::builder), for a command that does so much with the namespace.
    pub(crate) fn builder_to(&self, touch: NamespaceAccess) -> Result<ContainerBuilder, Failure> {
        let builder = self
            .builder()?
            .with_namespace_creation(touch == NamespaceAccess::Begin);
        Ok(match touch {
            NamespaceAccess::Look => builder.with_migrate_on_connect(false),
            NamespaceAccess::Change | NamespaceAccess::Begin => builder,
        })
    }

    /// Connects, for a command that does so much with the namespace.
    pub(crate) async fn connect_to(&self, touch: NamespaceAccess) -> Result<Container, Failure> {
        self.builder_to(touch)?
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

    /// Says that a password on the command line is no secret.
    pub(crate) fn warn_of_a_password(&self, console: &mut Console<'_>) {
        let Some(url) = self.redis_url() else { return };
        let from_variable = std::env::var("REDSTART_REDIS_URL").is_ok_and(|value| value == url);
        if !from_variable && holds_password(url) {
            console.remark(
                "note: every user of this machine can read a password on a command line; \
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
    fn a_password_is_told_from_a_user_and_a_port() {
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
            json: false,
            log: LevelFilter::OFF,
        };
        assert!(!format!("{settings:?}").contains("canary"));
    }
}
