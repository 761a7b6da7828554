//! The command line of `console`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use crate::duration;

/// Serve the operators' page: topics, groups, dead letters, retries and the doctor in a browser.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    long_about = "\
Serve the operators' page until SIGTERM or ctrl-c: topics, groups, dead letters, retries, operations and
the doctor, in a browser. The pages work without JavaScript and load nothing from other hosts. Each
shows the command that does the same.

Without a log-in the page is for this machine only: the command refuses other addresses, and answers
only requests for localhost, 127.0.0.1, [::1] and each --allowed-host. For a team, give --users-file, or
put a proxy in front that logs visitors in and give --user-header with --trusted-proxy. Visitors are
viewers, who see everything, or operators, who also change it; the journal has an operator's name. The
endpoint has no TLS: let a proxy add it.

With --read-only the page has no action at all. The rights of the role `viewer` of `print acl` are
then enough.",
    after_help = "\
Examples:
  redstart console
  redstart console --read-only --listen 127.0.0.1:9000
  redstart console hash-password < password.txt
  redstart console --listen 0.0.0.0:8087 --users-file /etc/redstart/users
  redstart console --listen 0.0.0.0:8087 --base-path /redstart --user-header X-Forwarded-User \\
    --groups-header X-Forwarded-Groups --operator-group ops --trusted-proxy 10.0.0.0/8

A line of the users file is name:role:hash, with the role operator or viewer and a hash of
`console hash-password`, or name:role:bearer:sha256 for a program with a token.

Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage."
)]
pub(crate) struct ConsoleArgs {
    #[command(subcommand)]
    pub(crate) action: Option<ConsoleAction>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConsoleAction {
    /// Read a password from stdin and print its hash, for a users file
    HashPassword,
}

/// How the console is served.
#[derive(Debug, ClapArgs)]
pub(crate) struct ServeArgs {
    /// Answer on this IP address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "REDSTART_CONSOLE_LISTEN", hide_env_values = true, default_value = "127.0.0.1:8087", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// The path of the page behind a proxy, such as /redstart
    #[arg(
        long,
        value_name = "PATH",
        env = "REDSTART_CONSOLE_BASE_PATH",
        hide_env_values = true,
        default_value = ""
    )]
    pub(crate) base_path: String,
    /// Offer no action that changes anything
    #[arg(long, env = "REDSTART_CONSOLE_READ_ONLY", hide_env_values = true)]
    pub(crate) read_only: bool,
    /// Show or hide payloads and headers of messages
    #[arg(long, value_enum, default_value = "show")]
    pub(crate) payloads: Payloads,
    /// Add pages of the key-value store: viewers list keys and see values, operators change them
    #[arg(long)]
    pub(crate) kv: bool,
    /// Log visitors in with the users of this file
    #[arg(
        long,
        value_name = "FILE",
        env = "REDSTART_CONSOLE_USERS_FILE",
        hide_env_values = true,
        conflicts_with = "user_header"
    )]
    pub(crate) users_file: Option<PathBuf>,
    /// A header in which the proxy names the visitor
    #[arg(long, value_name = "NAME", requires = "trusted_proxy")]
    pub(crate) user_header: Option<String>,
    /// A header in which the proxy lists the visitor's groups, with commas between them
    #[arg(
        long,
        value_name = "NAME",
        requires = "user_header",
        requires = "operator_group"
    )]
    pub(crate) groups_header: Option<String>,
    /// The group whose members are operators
    #[arg(long, value_name = "NAME", requires = "groups_header")]
    pub(crate) operator_group: Option<String>,
    /// An address or a network from which the proxy connects; repeat for several
    #[arg(long, value_name = "CIDR", requires = "user_header")]
    pub(crate) trusted_proxy: Vec<String>,
    /// A host name by which visitors without log-in may address the page; repeat for several
    #[arg(long, value_name = "NAME")]
    pub(crate) allowed_host: Vec<String>,
    /// Link messages to their traces at this address, in which {trace_id} stands for the trace's id
    #[arg(long, value_name = "URL")]
    pub(crate) trace_url: Option<String>,
    /// The number of pages that may have live figures at once
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) max_clients: usize,
    /// How long a page searches dead letters before it shows what it has found; the search goes on
    /// while the page is open
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = duration::parse)]
    pub(crate) search_time: Duration,
}

/// Whether payloads are shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Payloads {
    Show,
    Hide,
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "must be an IP address and a port, such as 127.0.0.1:8087 or [::1]:8087")
}
