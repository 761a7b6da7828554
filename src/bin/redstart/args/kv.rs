//! The command line of `kv`.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};

use crate::duration;

/// Read and write values of the key-value store.
#[derive(Debug, ClapArgs)]
#[command(long_about = "\
Read and write values of the key-value store. Values are JSON here, whatever form they are stored
in; they are written in the form that REDSTART_CODEC names.")]
pub(crate) struct KvArgs {
    #[command(subcommand)]
    pub(crate) action: KvAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KvAction {
    Get(GetArgs),
    Set(SetArgs),
    Del(DelArgs),
    Cas(CasArgs),
}

/// Show a value.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart kv get stock
  redstart kv get blob --raw > blob.bin

--raw gives the bytes as they are stored, and on a terminal a view of them in hexadecimal.
With --json: {\"key\",\"value\"}, with --raw {\"key\",\"hex\"}.

Exit codes: 0 shown, 1 the key is absent, or its value is neither JSON nor MessagePack nor text,
2 wrong usage.")]
pub(crate) struct GetArgs {
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: String,
    /// Its bytes, as they are stored
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Store a value.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart kv set stock 40 --ttl 1h
  redstart kv set greeting 'hello there' --text
  redstart kv set order < order.json

Without --ttl the value stays, also where the older one had a time to live.")]
pub(crate) struct SetArgs {
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: String,
    /// The value, as JSON [default: the standard input]
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: Option<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// Remove values.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
With --json: {\"deleted\",\"absent\"}, both lists of keys.

Exit codes: 0 all were removed, 1 one of them was absent, 2 wrong usage.")]
pub(crate) struct DelArgs {
    /// The keys
    #[arg(required = true, value_name = "KEY", value_parser = key)]
    pub(crate) keys: Vec<String>,
}

/// Replace a value where it is what is expected.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart kv cas stock 41 --expect 40
  redstart kv cas leader '\"node-1\"' --expect-absent --ttl 30s

Values are compared as values, whatever form they are stored in. The new value has the time to live
that is given, or none. With --json: {\"swapped\"}.

Exit codes: 0 replaced, 1 it is not what was expected, 2 wrong usage.")]
pub(crate) struct CasArgs {
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: String,
    /// The new value, as JSON
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
    /// The value that it must have, as JSON
    #[arg(
        long,
        value_name = "VALUE",
        allow_hyphen_values = true,
        required_unless_present = "expect_absent"
    )]
    pub(crate) expect: Option<String>,
    /// The key must be absent
    #[arg(long, conflicts_with = "expect")]
    pub(crate) expect_absent: bool,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Form {
    /// How long it stays, such as 30s, 15m, 2h, 7d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,
    /// Values are text as it is, not JSON
    #[arg(long)]
    pub(crate) text: bool,
}

/// The store's own rule, before the first of several keys is removed.
fn key(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.starts_with('{') {
        return Err("a key may not be empty or begin with `{`");
    }
    Ok(text.to_owned())
}
