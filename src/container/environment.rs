//! The settings that the environment has.

use std::env::VarError;
use std::path::PathBuf;

use super::builder::ContainerBuilder;
use super::config::Config;
use crate::api::overrides::Overrides;
use crate::domain::{
    Codec, Error, ErrorKind, Group, Namespace, NativeCommands, Placement, parse_duration,
};

impl Config {
    /// Reads the variables of [`ContainerBuilder::from_env`]. An empty
    /// variable counts as not set.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] names the variable and the rule that its value breaks. It never quotes
    /// the value of `REDSTART_REDIS_URL`.
    pub fn from_env() -> Result<Self, Error> {
        let mut config = Self::from_lookup(|name| std::env::var(name))?;
        let variables = std::env::vars_os();
        let text = variables.filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            // Text that is not UTF-8 breaks the rule of every setting.
            Some((name, value.to_string_lossy().into_owned()))
        });
        config.variables = Overrides::from_variables(text)?;
        Ok(config)
    }

    fn from_lookup(lookup: impl Fn(&str) -> Result<String, VarError>) -> Result<Self, Error> {
        let get = |name: &'static str| match lookup(name) {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(invalid(name, "must be UTF-8")),
        };
        let file = |name| get(name).map(|path| path.map(PathBuf::from));
        let (tls_cert_file, tls_key_file) = (
            file("REDSTART_TLS_CERT_FILE")?,
            file("REDSTART_TLS_KEY_FILE")?,
        );
        match (&tls_cert_file, &tls_key_file) {
            (Some(_), None) => return Err(invalid("REDSTART_TLS_KEY_FILE", "is missing")),
            (None, Some(_)) => return Err(invalid("REDSTART_TLS_CERT_FILE", "is missing")),
            _ => {}
        }
        let namespace = get("REDSTART_NAMESPACE")?;
        if let Some(name) = &namespace {
            Namespace::new(name)
                .map_err(|e| invalid("REDSTART_NAMESPACE", "not a valid namespace").because(e))?;
        }
        let service = get("REDSTART_SERVICE")?;
        if let Some(name) = &service {
            Group::new(name)
                .map_err(|e| invalid("REDSTART_SERVICE", "not a valid group name").because(e))?;
        }
        let codec = get("REDSTART_CODEC")?;
        if let Some(name) = &codec {
            name.parse::<Codec>()
                .map_err(|_| invalid("REDSTART_CODEC", "must be msgpack or json"))?;
        }
        let placement = get("REDSTART_PLACEMENT")?;
        if let Some(name) = &placement {
            name.parse::<Placement>()
                .map_err(|_| invalid("REDSTART_PLACEMENT", "must be spread or together"))?;
        }
        let native = get("REDSTART_NATIVE")?;
        if let Some(names) = &native {
            names
                .parse::<NativeCommands>()
                .map_err(|e| invalid("REDSTART_NATIVE", "names no native commands").because(e))?;
        }
        let bytes = "REDSTART_MAX_MESSAGE_BYTES";
        let number = |text: String| {
            text.parse()
                .map_err(|_| invalid(bytes, "must be a number of bytes"))
        };
        let window = "REDSTART_DEDUPLICATION";
        let time = |text: String| {
            parse_duration(&text).ok_or_else(|| invalid(window, "must be a time such as 10m"))
        };
        let switch = |name| {
            let parse = |text: String| {
                text.parse()
                    .map_err(|_| invalid(name, "must be true or false"))
            };
            get(name)?.map(parse).transpose()
        };
        Ok(Self {
            redis_url: get("REDSTART_REDIS_URL")?,
            tls_ca_file: file("REDSTART_TLS_CA_FILE")?,
            tls_cert_file,
            tls_key_file,
            sentinel_user: get("REDSTART_SENTINEL_USER")?,
            sentinel_password: get("REDSTART_SENTINEL_PASSWORD")?,
            native,
            namespace,
            service,
            codec,
            max_message_bytes: get(bytes)?.map(number).transpose()?,
            deduplication: get(window)?.map(time).transpose()?,
            placement,
            migrate_on_connect: switch("REDSTART_MIGRATE_ON_CONNECT")?,
            dead_letter_editing: switch("REDSTART_DEAD_LETTER_EDITING")?,
            ..Self::default()
        })
    }
}

impl ContainerBuilder {
    /// Reads settings from the environment. An empty variable counts as not set.
    ///
    /// | Variable | Setting | Default |
    /// |---|---|---|
    /// | `REDSTART_REDIS_URL` | [`with_redis_url`](Self::with_redis_url) | `redis://127.0.0.1:6379` |
    /// | `REDSTART_TLS_CA_FILE` | [`with_tls`](Self::with_tls): [`TlsSettings::with_ca_file`](super::TlsSettings::with_ca_file) | the authorities of the machine |
    /// | `REDSTART_TLS_CERT_FILE`, `REDSTART_TLS_KEY_FILE` | [`with_tls`](Self::with_tls): [`TlsSettings::with_client_files`](super::TlsSettings::with_client_files) | none |
    /// | `REDSTART_SENTINEL_USER`, `REDSTART_SENTINEL_PASSWORD` | [`with_sentinel_user`](Self::with_sentinel_user), [`with_sentinel_password`](Self::with_sentinel_password) | none |
    /// | `REDSTART_NATIVE` | [`with_native`](Self::with_native): `none`, `all`, or names with commas between them | `none` |
    /// | `REDSTART_NAMESPACE` | [`with_namespace`](Self::with_namespace) | none |
    /// | `REDSTART_SERVICE` | [`with_service`](Self::with_service) | `redstart` |
    /// | `REDSTART_CODEC` | [`with_codec`](Self::with_codec): `msgpack` or `json` | `msgpack` |
    /// | `REDSTART_MAX_MESSAGE_BYTES` | [`with_max_message_bytes`](Self::with_max_message_bytes): the largest envelope in bytes | 1048576 |
    /// | `REDSTART_DEDUPLICATION` | [`with_deduplication`](Self::with_deduplication): the window, such as `10m` | off |
    /// | `REDSTART_PLACEMENT` | [`with_placement`](Self::with_placement): `spread` or `together` | that of the namespace |
    /// | `REDSTART_MIGRATE_ON_CONNECT` | [`with_migrate_on_connect`](Self::with_migrate_on_connect): `true` or `false` | `false` |
    /// | `REDSTART_DEAD_LETTER_EDITING` | [`with_dead_letter_editing`](Self::with_dead_letter_editing): `true` or `false` | `false` |
    ///
    /// Operators choose the settings of subscriptions by `REDSTART_SUB_<SETTING>` for all, and by
    /// `REDSTART_SUB_<TOPIC>_<SETTING>` for those of a topic: its name in upper case, with `_` for every
    /// character that is not a letter or a digit. The settings are `CONCURRENCY`, `PREFETCH`, `LEASE`,
    /// `HANDLER_TIMEOUT`, `HOLD_BACK` and `MAX_ATTEMPTS`. They win over code and over
    /// [`with_config`](Self::with_config), and subscribing logs each.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] names the variable and the rule that its value breaks. It never quotes
    /// the value of `REDSTART_REDIS_URL`.
    pub fn from_env() -> Result<Self, Error> {
        Self::default().with_config(Config::from_env()?)
    }
}

fn invalid(variable: &'static str, rule: &str) -> Error {
    Error::new(ErrorKind::Invalid, "environment", rule).on(variable)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::adapters::redis::TlsSettings;

    fn from(pairs: &[(&str, &str)]) -> Result<ContainerBuilder, Error> {
        let lookup = |name: &str| {
            let found = pairs.iter().find(|(known, _)| *known == name);
            let value = found.map(|(_, value)| (*value).to_owned());
            value.ok_or(VarError::NotPresent)
        };
        ContainerBuilder::default().with_config(Config::from_lookup(lookup)?)
    }

    #[test]
    fn an_empty_environment_is_the_default() {
        let builder = from(&[]).unwrap();
        assert_eq!(builder.url, "redis://127.0.0.1:6379");
        assert_eq!(builder.namespace, None);
        assert!(!builder.migrate);
    }

    #[test]
    fn every_variable_is_read() {
        let builder = from(&[
            ("REDSTART_REDIS_URL", "unix:///r.sock"),
            ("REDSTART_TLS_CA_FILE", "ca.pem"),
            ("REDSTART_TLS_CERT_FILE", "cert.pem"),
            ("REDSTART_TLS_KEY_FILE", "key.pem"),
            ("REDSTART_SENTINEL_USER", "watcher"),
            ("REDSTART_SENTINEL_PASSWORD", "secret"),
            ("REDSTART_NAMESPACE", "shop"),
            ("REDSTART_SERVICE", "billing"),
            ("REDSTART_CODEC", "json"),
            ("REDSTART_MAX_MESSAGE_BYTES", "4096"),
            ("REDSTART_DEDUPLICATION", "10m"),
            ("REDSTART_PLACEMENT", "together"),
            ("REDSTART_MIGRATE_ON_CONNECT", "true"),
            ("REDSTART_DEAD_LETTER_EDITING", "true"),
        ])
        .unwrap();
        assert_eq!(builder.url, "unix:///r.sock");
        let tls = TlsSettings::new().with_ca_file("ca.pem");
        let tls = tls.with_client_files("cert.pem", "key.pem");
        assert_eq!(builder.access.tls, tls);
        let login = &builder.access.sentinel;
        assert_eq!(login.user.as_deref(), Some("watcher"));
        assert_eq!(login.password.as_deref(), Some("secret"));
        assert_eq!(builder.namespace.as_deref(), Some("shop"));
        assert_eq!(builder.service.as_deref(), Some("billing"));
        assert_eq!(builder.codec, Codec::Json);
        assert_eq!(
            builder.limits,
            crate::wire::Limits::default().with_max_bytes(4096)
        );
        assert_eq!(builder.deduplication, Some(Duration::from_secs(600)));
        assert_eq!(builder.placement, Some(Placement::Together));
        assert!(builder.migrate && builder.editing);
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        for (name, value) in [
            ("REDSTART_NAMESPACE", "a b"),
            ("REDSTART_SERVICE", "{x}"),
            ("REDSTART_CODEC", "xml"),
            ("REDSTART_MAX_MESSAGE_BYTES", "1k"),
            ("REDSTART_DEDUPLICATION", "600"),
            ("REDSTART_PLACEMENT", "apart"),
            ("REDSTART_MIGRATE_ON_CONNECT", "yes"),
            ("REDSTART_DEAD_LETTER_EDITING", "1"),
        ] {
            let error = from(&[(name, value)]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let certificate = from(&[("REDSTART_TLS_CERT_FILE", "cert.pem")]).unwrap_err();
        let key = from(&[("REDSTART_TLS_KEY_FILE", "key.pem")]).unwrap_err();
        assert_eq!(certificate.subject(), Some("REDSTART_TLS_KEY_FILE"));
        assert_eq!(key.subject(), Some("REDSTART_TLS_CERT_FILE"));
    }
}
