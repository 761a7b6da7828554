//! `console`: the operators' page.

use std::io::Read as _;

use redstart::console::{Access, ConsoleOptions, ConsoleServer, Login, ProxyLogin, hash_password};
use redstart::container::Signals;

use crate::args::{ConsoleAction, ConsoleArgs, Payloads, ServeArgs};
use crate::failure::Failure;
use crate::settings::{NamespaceAccess, Settings};
use crate::terminal::Terminal;

pub(super) async fn run(
    args: &ConsoleArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if let Some(ConsoleAction::HashPassword) = args.action {
        return hash(terminal);
    }
    if terminal.is_json() {
        return Err(Failure::usage(
            "--json cannot be used with console, which answers in a browser",
        ));
    }
    let args = &args.serve;
    let (options, login) = (options(args, settings)?, login(args)?);
    let mut signals = Signals::listen()?;
    let access = match args.read_only {
        true => NamespaceAccess::Read,
        false => NamespaceAccess::Change,
    };
    let builder = settings.builder_for(access)?;
    let container = builder.with_read_only(args.read_only).connect().await;
    let container = container.map_err(Failure::of_settings)?;
    let described = login.describe();
    let server = ConsoleServer::bind(container, options, args.listen, login).await;
    let server = server.map_err(|error| match error.kind() {
        redstart::ErrorKind::Invalid => Failure::usage(error.message()),
        _ => error.into(),
    })?;
    let may = if args.read_only {
        "read only"
    } else {
        "read and write"
    };
    terminal.remark(format_args!(
        "http://{}{} ({may}, {described})",
        server.address(),
        args.base_path.trim_end_matches('/'),
    ));
    server
        .run(async {
            signals.next().await;
        })
        .await;
    Ok(())
}

fn options(args: &ServeArgs, settings: &Settings) -> Result<ConsoleOptions, Failure> {
    // The server's log-in decides.
    let mut options = ConsoleOptions::with_access(|_| Access::Forbidden)
        .with_base_path(&args.base_path)
        .map_err(Failure::of_arguments)?
        .with_title(settings.namespace.as_deref().unwrap_or_default())
        .with_read_only(args.read_only)
        .with_payloads(args.payloads == Payloads::Show)
        .with_values(args.kv)
        .with_max_clients(args.max_clients)
        .with_search_time(args.search_time);
    if let Some(url) = &args.trace_url {
        options = options.with_trace_url(url).map_err(Failure::of_arguments)?;
    }
    Ok(options)
}

fn login(args: &ServeArgs) -> Result<Login, Failure> {
    let mut login = if let Some(path) = &args.users_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!(
                "cannot read the users file {}: {error}",
                path.display()
            ))
        })?;
        Login::users(&text).map_err(Failure::of_arguments)?
    } else if let Some(header) = &args.user_header {
        let mut proxy =
            ProxyLogin::new(header, &args.trusted_proxy).map_err(Failure::of_arguments)?;
        if let (Some(groups), Some(group)) = (&args.groups_header, &args.operator_group) {
            proxy = proxy
                .with_operators(groups, group)
                .map_err(Failure::of_arguments)?;
        }
        Login::proxy(proxy)
    } else {
        Login::local(super::dead::known_operator(None).unwrap_or_default())
    };
    for host in &args.allowed_host {
        login = login.with_allowed_host(host);
    }
    Ok(login)
}

/// Reads a password from the standard input and prints its hash.
fn hash(terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let mut password = String::new();
    // One byte more than a password may have, and a line break.
    std::io::stdin().take(1027).read_to_string(&mut password)?;
    let password = password.strip_suffix('\n').unwrap_or(&password);
    let password = password.strip_suffix('\r').unwrap_or(password);
    let hash = hash_password(password).map_err(Failure::of_arguments)?;
    Ok(terminal.line(hash)?)
}
