//! The command line of `kv`.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};

use super::number;
use crate::duration;

/// Read and write values of the key-value store.
#[derive(Debug, ClapArgs)]
#[command(long_about = "\
Read and write values of the key-value store. The tool shows and takes values as JSON, whatever
their codec, and stores them in the codec of REDSTART_CODEC.")]
pub(crate) struct KvArgs {
    #[command(subcommand)]
    pub(crate) action: KvAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KvAction {
    #[command(visible_alias = "ls")]
    List(KvListArgs),
    Get(GetArgs),
    Set(SetArgs),
    #[command(visible_alias = "del")]
    Delete(DeleteArgs),
    Cas(CasArgs),
}

/// List keys with their values.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart kv list
  redstart kv list --prefix charge: --max 1000
  redstart kv list --prefix cache: --json | jq -r .key

Lists keys in no order. A key that exists during the whole listing is in it; one that is written or
deleted meanwhile may be missing. The command reads through the names of all keys of the server with
SCAN, in small steps, and needs the right to run it.
With --json, one line for each key: {\"key\",\"form\",\"bytes\",\"expiresInMs\",\"value\"}; `value` is null
where the value is longer than 1024 bytes, or JSON cannot express it. A key of `once` has \"once\" too.")]
pub(crate) struct KvListArgs {
    /// List keys that begin with this text [default: all keys]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = prefix, allow_hyphen_values = true)]
    pub(crate) prefix: String,
    /// Stop after N
    #[arg(long, short = 'n', visible_alias = "limit", value_name = "N", default_value_t = 100, value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: usize,
}

/// Show a value.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart kv get stock
  redstart kv get blob --raw > blob.bin

--raw writes the stored bytes; a terminal gets them in hexadecimal.
A key of `once` shows as `once: claimed`, `begun` or `done`, with the result of a completed run.
With --json: {\"key\",\"value\"}, with --raw {\"key\",\"hex\"}, of `once` {\"key\",\"once\",\"result\"}.

Exit codes: 0 shown, 1 the key does not exist, or its value is neither JSON nor MessagePack nor
text, 2 wrong usage.")]
pub(crate) struct GetArgs {
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: String,
    /// Write the stored bytes
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

Without --ttl the new value has no time to live, even if the old one had one.")]
pub(crate) struct SetArgs {
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: String,
    /// The value, as JSON [default: read from stdin]
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: Option<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// Delete keys.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart kv delete stock greeting

With --json: {\"deleted\",\"absent\"}, both lists of keys.

Exit codes: 0 all deleted, 1 a key was absent, 2 wrong usage.")]
pub(crate) struct DeleteArgs {
    /// The keys
    #[arg(required = true, value_name = "KEY", value_parser = key)]
    pub(crate) keys: Vec<String>,
}

/// Replace a value if it equals the expected one.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart kv cas stock 41 --expect 40
  redstart kv cas leader '\"node-1\"' --expect-absent --ttl 30s

The comparison decodes both values: their codecs do not matter. Without --ttl the new value has no
time to live. With --json: {\"swapped\"}.

Exit codes: 0 replaced, 1 the value differs from the expected one, 2 wrong usage.")]
pub(crate) struct CasArgs {
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: String,
    /// The new value, as JSON
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
    /// The expected value, as JSON
    #[arg(
        long,
        value_name = "VALUE",
        allow_hyphen_values = true,
        required_unless_present = "expect_absent"
    )]
    pub(crate) expect: Option<String>,
    /// Expect that the key does not exist
    #[arg(long, conflicts_with = "expect")]
    pub(crate) expect_absent: bool,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Form {
    /// Time to live, such as 30s, 15m, 2h, 7d [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) ttl: Option<Duration>,
    /// Take values as plain text, not as JSON
    #[arg(long)]
    pub(crate) text: bool,
}

/// Applies the store's rule for the beginning of keys.
fn prefix(text: &str) -> Result<String, &'static str> {
    if text.starts_with('{') {
        return Err("a key may not begin with `{`, so no key has this prefix");
    }
    Ok(text.to_owned())
}

/// Applies the store's rule before the command deletes the first of several keys.
fn key(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.starts_with('{') {
        return Err("a key may not be empty or begin with `{`");
    }
    Ok(text.to_owned())
}
