//! The command line of `print`.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

/// Print files that help to run Redstart.
#[derive(Debug, ClapArgs)]
pub(crate) struct PrintArgs {
    #[command(subcommand)]
    pub(crate) what: PrintWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PrintWhat {
    Acl(AclArgs),
}

/// Print the access rules of the roles, for Redis's ACL file or ACL SETUSER.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Print the access rules of the roles in a namespace, one line for each: for Redis's ACL file, or
without the word `user` for ACL SETUSER. The lines are switched off and have no password: add one
(`>` and the password, or `#` and its SHA-256), and replace `off` by `on`. Needs no server.",
    after_help = "\
Examples:
  redstart print acl --namespace shop
  redstart print acl viewer operator --namespace shop >> users.acl

With --json: one object, the lines by role.

Exit codes: 0 printed, 2 wrong usage, or no namespace is set."
)]
pub(crate) struct AclArgs {
    /// The roles [default: all]
    #[arg(value_enum)]
    pub(crate) roles: Vec<Role>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(crate) enum Role {
    /// Publishes
    Producer,
    /// Handles messages, and uses values
    Consumer,
    /// Inspects, redrives and purges dead letters, manages topics, migrates
    Operator,
    /// Inspects
    Viewer,
}
