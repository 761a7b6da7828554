//! Settings of all commands: the server, the namespace, the output.

use std::io;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args as ClapArgs};
use clap_complete::engine::ArgValueCompleter;
use redstart::container::{ContainerBuilder, TlsSettings};
use redstart::{Container, Namespace, Placement};
use tracing_subscriber::filter::LevelFilter;

use crate::args::format::ForeignFormat;
use crate::candidates;
use crate::context::{self, Context, holds_password, with_password};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// The server where nothing else is set.
pub(crate) const DEFAULT_URL: &str = "redis://127.0.0.1:6379";

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
    /// The server's URL; put a URL with a password into REDSTART_REDIS_URL
    ///
    /// redis://[user:password@]host[:port][/database], unix:///path, redis+cluster://host:port,… or
    /// redis+sentinel://host:port,…/service; rediss in place of redis for TLS [default:
    /// redis://127.0.0.1:6379]. Every user of the machine can read a command line: put a URL with
    /// a password into the variable REDSTART_REDIS_URL.
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
    /// Where the keys lie in a cluster: spread or together; the command that sets the namespace up fixes it
    ///
    /// Spread: each topic and each value in a slot of its own. Together: all keys in one slot, so that a
    /// handler's effects reach every topic and value. The tool refuses a namespace with the other
    /// placement [default: that of the namespace; spread for a new one].
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "REDSTART_PLACEMENT",
        hide_env_values = true
    )]
    pub(crate) placement: Option<String>,
    /// Also read entries that other programs write in this format: debezium, cloudevents, plain:TYPE
    ///
    /// Debezium: entries as the Redis sink of Debezium Server writes them. Cloudevents: CloudEvents 1.0
    /// as JSON, in a field with any name. Plain: one text in each field; the message has the type TYPE.
    /// Separate several formats with commas.
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
    /// Use the server and the namespace of this context, see `redstart context`
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "REDSTART_CONTEXT",
        hide_env_values = true,
        add = ArgValueCompleter::new(candidates::contexts)
    )]
    pub(crate) context: Option<String>,
    /// The context in force, with its name.
    #[arg(skip)]
    in_force: Option<(String, Context)>,
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
            .field("context", &self.context_name())
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

    /// Looks which context is in force. An option wins over the environment, and the environment over
    /// the current context. A context counts as a whole: its password must not reach another server.
    pub(crate) fn resolve(&mut self, parsed: &ArgMatches) -> Result<(), Failure> {
        let is_option = |id| parsed.value_source(id) == Some(ValueSource::CommandLine);
        let wanted = self.context.as_deref().filter(|name| !name.is_empty());
        let named = is_option("context") && wanted.is_some();
        if named && is_option("redis_url") {
            let rule = "--context and --redis-url both name a server; give one of them";
            return Err(Failure::usage(rule));
        }
        if self.redis_url().is_some() && !named {
            return Ok(());
        }
        let all = match context::path() {
            Ok(path) => context::load(&path)?,
            // Without a home there is no file, and nobody asks for a context.
            Err(_) if wanted.is_none() => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let Some(name) = wanted.or(all.current.as_deref()) else {
            return Ok(());
        };
        let found = all.get(name)?.clone();
        if found.namespace.is_some() && !is_option("namespace") {
            let of_environment = self.namespace.as_deref().is_some_and(|one| !one.is_empty());
            if named || !of_environment {
                self.namespace.clone_from(&found.namespace);
            }
        }
        self.redis_url = None;
        self.in_force = Some((name.to_owned(), found));
        Ok(())
    }

    /// The name of the context in force.
    pub(crate) fn context_name(&self) -> Option<&str> {
        self.in_force.as_ref().map(|(name, _)| name.as_str())
    }

    /// The context in force.
    pub(crate) fn context(&self) -> Option<&Context> {
        self.in_force.as_ref().map(|(_, context)| context)
    }

    fn add_context(&self, mut builder: ContainerBuilder) -> Result<ContainerBuilder, Failure> {
        let Some((name, context)) = &self.in_force else {
            return Ok(builder);
        };
        let url = context.redis_url.as_deref().unwrap_or(DEFAULT_URL);
        builder = builder.with_redis_url(match &context.password_command {
            Some(command) => with_password(url, &context::password(name, command)?),
            None => url.to_owned(),
        });
        let mut tls = TlsSettings::default();
        if let Some(file) = &context.tls_ca_file {
            tls = tls.with_ca_file(file);
        }
        if let (Some(cert), Some(key)) = (&context.tls_cert_file, &context.tls_key_file) {
            tls = tls.with_client_files(cert, key);
        }
        if tls != TlsSettings::default() {
            builder = builder.with_tls(tls);
        }
        Ok(builder)
    }

    /// The placement, where one is set. An empty variable counts as unset.
    pub(crate) fn placement(&self) -> Result<Option<Placement>, Failure> {
        let named = self.placement.as_deref().filter(|name| !name.is_empty());
        let placement = named.map(str::parse).transpose();
        placement.map_err(Failure::of_settings)
    }

    /// A builder with the settings of the environment, overridden by the command line.
    pub(crate) fn builder(&self) -> Result<ContainerBuilder, Failure> {
        let mut builder = ContainerBuilder::from_env().map_err(Failure::of_settings)?;
        if let Some(url) = self.redis_url() {
            builder = builder.with_redis_url(url);
        }
        builder = self.add_context(builder)?;
        if let Some(name) = self.namespace.as_deref().filter(|name| !name.is_empty()) {
            builder = builder.with_namespace(Namespace::new(name).map_err(Failure::of_settings)?);
        }
        if let Some(placement) = self.placement()? {
            builder = builder.with_placement(placement);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_never_show_the_url() {
        let settings = Settings {
            redis_url: Some("redis://:canary@h/".to_owned()),
            namespace: None,
            placement: None,
            foreign: Vec::new(),
            context: None,
            in_force: None,
            json: false,
            log: LevelFilter::OFF,
        };
        assert!(!format!("{settings:?}").contains("canary"));
    }
}
