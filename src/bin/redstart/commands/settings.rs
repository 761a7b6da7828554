//! `settings`: the settings in force.

use serde::Serialize;
use tracing_subscriber::filter::LevelFilter;

use crate::context::without_password;
use crate::failure::Failure;
use crate::settings::{DEFAULT_URL, Settings};
use crate::terminal::Terminal;

/// A setting, its value, and where it comes from.
#[derive(Serialize)]
struct Shown {
    name: &'static str,
    value: Option<String>,
    source: String,
}

pub(super) fn run(settings: &Settings, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let all = shown(settings);
    if terminal.is_json() {
        return Ok(terminal.json(&all)?);
    }
    let row = |one: &Shown| {
        vec![
            one.name.to_owned(),
            one.value.clone().unwrap_or_else(|| "-".to_owned()),
            one.source.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    Ok(terminal.table(&["setting", "value", "source"], &rows, 0..0)?)
}

fn shown(settings: &Settings) -> Vec<Shown> {
    let of_context = settings
        .context_name()
        .map(|name| format!("context {name}"));
    let variable = |name: &str, value: Option<&str>| {
        let set = std::env::var(name).ok().filter(|text| !text.is_empty());
        match (value, set) {
            (Some(value), Some(set)) if value == set => name.to_owned(),
            (Some(_), _) => "option".to_owned(),
            (None, _) => "default".to_owned(),
        }
    };
    let context = settings.context();
    let url = match (settings.redis_url(), context) {
        (Some(url), _) => (url, variable("REDSTART_REDIS_URL", Some(url))),
        (None, Some(context)) => (
            context.redis_url.as_deref().unwrap_or(DEFAULT_URL),
            of_context.clone().unwrap_or_default(),
        ),
        (None, None) => (DEFAULT_URL, "default".to_owned()),
    };
    let namespace = settings
        .namespace
        .as_deref()
        .filter(|name| !name.is_empty());
    let is_of_context = namespace.is_some()
        && context.is_some_and(|context| context.namespace.as_deref() == namespace);
    let namespace_source = match (is_of_context, &of_context) {
        (true, Some(source)) => source.clone(),
        _ => variable("REDSTART_NAMESPACE", namespace),
    };
    let password = context.and_then(|context| context.password_command.clone());
    vec![
        Shown {
            name: "context",
            value: settings.context_name().map(str::to_owned),
            source: match settings.context.as_deref() {
                Some(name) if settings.context_name() == Some(name) => {
                    variable("REDSTART_CONTEXT", Some(name))
                }
                _ if of_context.is_some() => "current context".to_owned(),
                _ => "default".to_owned(),
            },
        },
        Shown {
            name: "redis-url",
            value: Some(without_password(url.0)),
            source: url.1,
        },
        Shown {
            name: "password",
            source: match &password {
                Some(_) => of_context.unwrap_or_default(),
                None => "default".to_owned(),
            },
            value: password.map(|command| format!("from `{command}`")),
        },
        Shown {
            name: "namespace",
            value: namespace.map(str::to_owned),
            source: namespace_source,
        },
        Shown {
            name: "log",
            value: Some(settings.log.to_string()),
            source: match variable("REDSTART_LOG", Some(&settings.log.to_string())) {
                source if source == "option" && settings.log == LevelFilter::ERROR => {
                    "default".to_owned()
                }
                source => source,
            },
        },
    ]
}
