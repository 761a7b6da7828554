//! `context`: servers by name.

use redstart::Namespace;
use serde::Serialize;

use crate::args::{AddContextArgs, ContextAction, ContextArgs, UseContextArgs};
use crate::context::{self, Context, Contexts, holds_password};
use crate::failure::Failure;
use crate::terminal::Terminal;

const HEADER: [&str; 5] = ["", "name", "namespace", "server", "password command"];

pub(super) fn run(args: &ContextArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let path = context::path()?;
    let mut all = context::load(&path)?;
    let done = match &args.action {
        ContextAction::List => return list(&all, terminal),
        ContextAction::Add(args) => add(args, &mut all)?,
        ContextAction::Use(args) => choose(args, &mut all)?,
        ContextAction::Remove(args) => {
            all.get(&args.name)?;
            all.contexts.remove(&args.name);
            all.current = all.current.filter(|name| *name != args.name);
            format!("removed context {}", args.name)
        }
    };
    context::save(&path, &all)?;
    terminal.remark(done);
    Ok(())
}

fn add(args: &AddContextArgs, all: &mut Contexts) -> Result<String, Failure> {
    if holds_password(&args.server) {
        return Err(Failure::usage(
            "the file of contexts keeps no password; leave it out of --server and give \
             --password-command",
        ));
    }
    if !args.server.contains("://") {
        let rule = "--server must be a URL such as redis://127.0.0.1:6379";
        return Err(Failure::usage(rule));
    }
    if let Some(name) = &args.prefix {
        Namespace::new(name).map_err(Failure::of_settings)?;
    }
    let context = Context {
        redis_url: Some(args.server.clone()),
        namespace: args.prefix.clone(),
        password_command: args.password_command.clone(),
        tls_ca_file: args.tls_ca_file.clone(),
        tls_cert_file: args.tls_cert_file.clone(),
        tls_key_file: args.tls_key_file.clone(),
    };
    let replaced = all.contexts.insert(args.name.clone(), context).is_some();
    let done = if replaced { "replaced" } else { "added" };
    if args.make_current {
        all.current = Some(args.name.clone());
    }
    let use_it = match all.current.as_deref() == Some(&args.name) {
        true => "; it is the current one".to_owned(),
        false => format!(
            "; `redstart context use {}` makes it the current one",
            args.name
        ),
    };
    Ok(format!("{done} context {}{use_it}", args.name))
}

fn choose(args: &UseContextArgs, all: &mut Contexts) -> Result<String, Failure> {
    let Some(name) = &args.name else {
        all.current = None;
        return Ok("no context is in use".to_owned());
    };
    all.get(name)?;
    all.current = Some(name.clone());
    Ok(format!("using context {name}"))
}

/// A context in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    name: &'a str,
    current: bool,
    redis_url: Option<&'a str>,
    namespace: Option<&'a str>,
    password_command: Option<&'a str>,
}

fn list(all: &Contexts, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let listed = all.contexts.iter().map(|(name, context)| Listed {
        name,
        current: all.current.as_ref() == Some(name),
        redis_url: context.redis_url.as_deref(),
        namespace: context.namespace.as_deref(),
        password_command: context.password_command.as_deref(),
    });
    let listed: Vec<Listed<'_>> = listed.collect();
    if terminal.is_json() {
        return Ok(terminal.json(&listed)?);
    }
    if listed.is_empty() {
        terminal.remark("no contexts; `redstart context add` adds one");
        return Ok(());
    }
    let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let row = |one: &Listed<'_>| {
        vec![
            if one.current { "*" } else { " " }.to_owned(),
            one.name.to_owned(),
            text(one.namespace),
            text(one.redis_url),
            text(one.password_command),
        ]
    };
    let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
    Ok(terminal.table(&HEADER, &rows, 0..0)?)
}
