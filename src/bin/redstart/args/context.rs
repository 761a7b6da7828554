//! The command line of `context`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use crate::candidates;
use crate::context::name;

/// Name servers, and choose one of them.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Name servers, and choose one of them.

A context has a server, a namespace, and how to log in. It applies where neither --redis-url nor
REDSTART_REDIS_URL names a server; --context and REDSTART_CONTEXT choose one for a single command.
`demo` uses none. A command that changes something says on a terminal which context it uses.

The file, ~/.config/redstart/contexts.toml or $REDSTART_CONTEXTS, keeps no password: it names a command
that writes the password.",
    after_help = "\
Examples:
  redstart context add staging --server redis://ann@staging:6379 --prefix shop \\
      --password-command 'pass show redis/staging'
  redstart context use staging
  redstart context list
  redstart --context production doctor"
)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    pub(crate) action: ContextAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextAction {
    Add(AddContextArgs),
    Use(UseContextArgs),
    /// List the contexts; `*` marks the current one.
    #[command(after_help = "\
With --json: one array of {\"name\",\"current\",\"redisUrl\",\"namespace\",\"passwordCommand\"}.")]
    List,
    Remove(RemoveContextArgs),
}

/// Add a context, or replace it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart context add local --server redis://127.0.0.1:6379 --use
  redstart context add production --server rediss://ann@redis.example.org:6380 --prefix shop \\
      --password-command 'op read op://ops/redis/password'")]
pub(crate) struct AddContextArgs {
    /// The name of the context
    #[arg(value_parser = name, add = ArgValueCompleter::new(candidates::contexts))]
    pub(crate) name: String,
    /// The server's URL, without a password
    #[arg(long, value_name = "URL")]
    pub(crate) server: String,
    /// The namespace: the prefix of all keys
    #[arg(long, value_name = "NAME")]
    pub(crate) prefix: Option<String>,
    /// A command for `sh` that writes the password; it runs at each connection
    #[arg(long, value_name = "COMMAND")]
    pub(crate) password_command: Option<String>,
    /// A file with the certificates of the authorities to trust
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca_file: Option<PathBuf>,
    /// A file with the certificate of this client
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// A file with the key of this client
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub(crate) tls_key_file: Option<PathBuf>,
    /// Make it the current context
    #[arg(long = "use")]
    pub(crate) make_current: bool,
}

/// Choose the current context, or none.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart context use staging
  redstart context use --none")]
pub(crate) struct UseContextArgs {
    /// The name of the context
    #[arg(required_unless_present = "none", conflicts_with = "none", value_parser = name, add = ArgValueCompleter::new(candidates::contexts))]
    pub(crate) name: Option<String>,
    /// Use no context from now on
    #[arg(long)]
    pub(crate) none: bool,
}

/// Remove a context. The server stays as it is.
#[derive(Debug, ClapArgs)]
pub(crate) struct RemoveContextArgs {
    /// The name of the context
    #[arg(value_parser = name, add = ArgValueCompleter::new(candidates::contexts))]
    pub(crate) name: String,
}
