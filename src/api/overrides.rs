//! Settings of subscriptions that operators choose. They win over code.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::options::SubscribeOptions;
use crate::domain::{Error, ErrorKind, Group, Topic, parse_duration};

/// Where the variables of operators begin.
const PREFIX: &str = "REDSTART_SUB_";

/// The rule of a number of attempts.
const ATTEMPTS: &str = "must be a whole number from 1";

/// The settings of a subscription that operators can choose; `None` leaves the code's value.
///
/// Times are text, such as `"30s"` or `"1m 30s"`. Subscribing checks the bounds, which are those of
/// [`SubscribeOptions`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SubscriptionConfig {
    /// [`with_concurrency`](SubscribeOptions::with_concurrency).
    pub concurrency: Option<usize>,
    /// [`with_prefetch`](SubscribeOptions::with_prefetch).
    pub prefetch: Option<usize>,
    /// [`with_lease`](SubscribeOptions::with_lease).
    #[serde(deserialize_with = "time")]
    pub lease: Option<Duration>,
    /// [`with_handler_timeout`](SubscribeOptions::with_handler_timeout).
    #[serde(deserialize_with = "time")]
    pub handler_timeout: Option<Duration>,
    /// [`with_hold_back`](SubscribeOptions::with_hold_back).
    #[serde(deserialize_with = "time")]
    pub hold_back: Option<Duration>,
    /// [`RetryPolicy::with_max_attempts`](crate::RetryPolicy::with_max_attempts) of the subscription;
    /// a route's own policy stays. serde refuses 0.
    #[serde(deserialize_with = "attempts")]
    pub max_attempts: Option<u32>,
}

/// Reads a time such as `30s`.
pub(crate) fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else {
        return Ok(None);
    };
    let rule = || serde::de::Error::custom("must be a time such as 30s");
    parse_duration(&text).map(Some).ok_or_else(rule)
}

/// Reads a number of attempts.
fn attempts<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    match Option::<u32>::deserialize(from)? {
        Some(0) => Err(serde::de::Error::custom(ATTEMPTS)),
        attempts => Ok(attempts),
    }
}

fn set_time(setting: &mut Option<Duration>, value: &str) -> Result<(), &'static str> {
    let time = parse_duration(value).ok_or("must be a time such as 30s")?;
    *setting = Some(time);
    Ok(())
}

impl SubscriptionConfig {
    /// Sets what the name of a variable ends with. `None` for an unknown end.
    fn set(&mut self, end: &str, value: &str) -> Option<Result<(), &'static str>> {
        let count = "must be a whole number";
        let set = match end {
            "CONCURRENCY" => value
                .parse()
                .map(|n| self.concurrency = Some(n))
                .map_err(|_| count),
            "PREFETCH" => value
                .parse()
                .map(|n| self.prefetch = Some(n))
                .map_err(|_| count),
            "MAX_ATTEMPTS" => match value.parse() {
                Ok(0) | Err(_) => Err(ATTEMPTS),
                Ok(attempts) => {
                    self.max_attempts = Some(attempts);
                    Ok(())
                }
            },
            "LEASE" => set_time(&mut self.lease, value),
            "HANDLER_TIMEOUT" => set_time(&mut self.handler_timeout, value),
            "HOLD_BACK" => set_time(&mut self.hold_back, value),
            _ => return None,
        };
        Some(set)
    }

    /// These values, or else those of another one.
    fn or(self, other: &Self) -> Self {
        Self {
            concurrency: self.concurrency.or(other.concurrency),
            prefetch: self.prefetch.or(other.prefetch),
            lease: self.lease.or(other.lease),
            handler_timeout: self.handler_timeout.or(other.handler_timeout),
            hold_back: self.hold_back.or(other.hold_back),
            max_attempts: self.max_attempts.or(other.max_attempts),
        }
    }

    /// Fills what is not set yet from another one, and names the source of each value.
    fn fill(&mut self, other: &Self, source: impl Fn(&str) -> String, set: &mut Vec<Override>) {
        let mut note = |setting: &'static str, value: String| {
            let source = source(setting);
            set.push(Override {
                setting,
                value,
                source,
            });
        };
        macro_rules! fill {
            ($($field:ident)*) => {
                $(if self.$field.is_none() && let Some(value) = other.$field {
                    self.$field = Some(value);
                    note(stringify!($field), format!("{value:?}"));
                })*
            };
        }
        fill!(concurrency prefetch lease handler_timeout hold_back max_attempts);
    }
}

/// A value that replaces the code's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Override {
    pub(crate) setting: &'static str,
    pub(crate) value: String,
    /// The variable, or the place in the configuration.
    pub(crate) source: String,
}

/// The operators' settings of all subscriptions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// By the start of the variable's name: the form of a topic and `_`, or nothing for all topics.
    variables: BTreeMap<String, SubscriptionConfig>,
    /// Of all subscriptions, in the configuration.
    pub(crate) all: SubscriptionConfig,
    /// By topic or `topic/group`, in the configuration.
    pub(crate) named: BTreeMap<String, SubscriptionConfig>,
}

impl Overrides {
    /// Reads variables: `REDSTART_SUB_CONCURRENCY`, `REDSTART_SUB_ORDERS_LEASE`. Ignores others, and
    /// those without a value.
    pub(crate) fn from_variables(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut read = Self::default();
        const ENDS: [&str; 6] = [
            "CONCURRENCY",
            "PREFETCH",
            "LEASE",
            "HANDLER_TIMEOUT",
            "HOLD_BACK",
            "MAX_ATTEMPTS",
        ];
        for (name, value) in variables.filter(|(_, value)| !value.is_empty()) {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let bad = |rule: &dyn fmt::Display| {
                Error::new(ErrorKind::Invalid, "environment", rule.to_string()).on(name.as_str())
            };
            let parts = ENDS.iter().find_map(|end| {
                let topic = rest.strip_suffix(end)?;
                (topic.is_empty() || topic.ends_with('_')).then_some((topic, *end))
            });
            let Some((topic, end)) = parts else {
                let rule = format!("must end with one of {}", ENDS.join(", "));
                return Err(bad(&rule));
            };
            let config = read.variables.entry(topic.to_owned()).or_default();
            if let Some(Err(rule)) = config.set(end, &value) {
                return Err(bad(&rule));
            }
        }
        Ok(read)
    }

    /// Adds settings that win over these.
    pub(crate) fn extend(&mut self, later: Self) {
        self.all = later.all.or(&self.all);
        for (mine, later) in [
            (&mut self.variables, later.variables),
            (&mut self.named, later.named),
        ] {
            for (name, config) in later {
                let known = mine.entry(name).or_default();
                *known = config.or(known);
            }
        }
    }

    /// Whether nothing is set.
    fn is_empty(&self) -> bool {
        self.variables.is_empty()
            && self.named.is_empty()
            && self.all == SubscriptionConfig::default()
    }

    /// Sets the operators' values, the most specific first, and returns each with its source.
    pub(crate) fn apply(
        &self,
        topic: &Topic,
        group: &Group,
        mut options: SubscribeOptions,
    ) -> (SubscribeOptions, Vec<Override>) {
        if self.is_empty() {
            return (options, Vec::new());
        }
        let (mut merged, mut set) = (SubscriptionConfig::default(), Vec::new());
        for topic in [format!("{}_", variable_form(topic)), String::new()] {
            if let Some(config) = self.variables.get(&topic) {
                let variable = |setting: &str| format!("{PREFIX}{topic}{}", setting.to_uppercase());
                merged.fill(config, variable, &mut set);
            }
        }
        for name in [format!("{topic}/{group}"), topic.to_string()] {
            if let Some(config) = self.named.get(&name) {
                merged.fill(config, |_| format!("subscriptions.{name:?}"), &mut set);
            }
        }
        merged.fill(&self.all, |_| "subscribe".to_owned(), &mut set);
        let SubscriptionConfig {
            concurrency,
            prefetch,
            lease,
            handler_timeout,
            hold_back,
            max_attempts,
        } = merged;
        options.concurrency = concurrency.unwrap_or(options.concurrency);
        options.prefetch = prefetch.or(options.prefetch);
        options.lease = lease.unwrap_or(options.lease);
        options.handler_timeout = handler_timeout.or(options.handler_timeout);
        options.hold_back = hold_back.unwrap_or(options.hold_back);
        if let Some(attempts) = max_attempts {
            options.retry = options.retry.with_max_attempts(attempts);
        }
        (options, set)
    }
}

/// A topic's name in a variable: upper case, and `_` for every other character than letters and digits.
fn variable_form(topic: &Topic) -> String {
    let form = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    };
    topic.as_str().chars().map(form).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Overrides, Error> {
        let pairs = pairs.iter();
        let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Overrides::from_variables(pairs)
    }

    #[test]
    fn the_most_specific_value_wins_and_names_its_source() {
        let mut overrides = read(&[
            ("REDSTART_SUB_EU_ORDERS_CONCURRENCY", "1"),
            ("REDSTART_SUB_CONCURRENCY", "2"),
            ("REDSTART_SUB_LEASE", "1m 30s"),
            ("REDSTART_SUB_PREFETCH", ""),
            ("REDSTART_NAMESPACE", "shop"),
        ])
        .unwrap();
        let config = |text: &str| serde_json::from_str::<SubscriptionConfig>(text).unwrap();
        overrides.all = config(r#"{"concurrency": 5, "max_attempts": 9, "prefetch": 6}"#);
        let named = [
            ("eu.orders", r#"{"prefetch": 4, "handler_timeout": "2m"}"#),
            ("eu.orders/billing", r#"{"prefetch": 3, "lease": "1s"}"#),
        ];
        overrides.named = named
            .map(|(name, text)| (name.to_owned(), config(text)))
            .into();
        let of = |topic: &str, group: &str| {
            let (topic, group) = (Topic::new(topic).unwrap(), Group::new(group).unwrap());
            overrides.apply(&topic, &group, SubscribeOptions::new())
        };
        let seconds = Duration::from_secs;
        let (options, set) = of("eu.orders", "billing");
        assert_eq!((options.concurrency, options.prefetch), (1, Some(3)));
        assert_eq!(
            (options.lease, options.handler_timeout),
            (seconds(90), Some(seconds(120)))
        );
        assert_eq!(options.retry.max_attempts(), 9);
        let shown: Vec<String> = set
            .iter()
            .map(|one| format!("{}={} {}", one.setting, one.value, one.source))
            .collect();
        assert_eq!(
            shown,
            [
                "concurrency=1 REDSTART_SUB_EU_ORDERS_CONCURRENCY",
                "lease=90s REDSTART_SUB_LEASE",
                "prefetch=3 subscriptions.\"eu.orders/billing\"",
                "handler_timeout=120s subscriptions.\"eu.orders\"",
                "max_attempts=9 subscribe",
            ]
        );
        let (options, _) = of("eu.orders", "mail");
        assert_eq!(options.prefetch, Some(4));
        let (options, _) = of("clicks", "billing");
        assert_eq!((options.concurrency, options.prefetch), (2, Some(6)));
        assert!(read(&[]).unwrap().is_empty());
    }

    #[test]
    fn later_settings_win_where_they_are_set() {
        let variable = |name: &'static str, value| read(&[(name, value)]).unwrap();
        let mut overrides = variable("REDSTART_SUB_LEASE", "1s");
        overrides.all = SubscriptionConfig {
            concurrency: Some(1),
            prefetch: Some(2),
            ..SubscriptionConfig::default()
        };
        let mut later = variable("REDSTART_SUB_CONCURRENCY", "3");
        later.all.prefetch = Some(4);
        overrides.extend(later);
        let all = &overrides.variables[""];
        assert_eq!(
            (all.lease, all.concurrency),
            (Some(Duration::from_secs(1)), Some(3))
        );
        assert_eq!(
            (overrides.all.concurrency, overrides.all.prefetch),
            (Some(1), Some(4))
        );
    }

    #[test]
    fn a_bad_variable_is_named_with_its_rule() {
        for (name, value, rule) in [
            (
                "REDSTART_SUB_CLICKS_LEASE",
                "30",
                "must be a time such as 30s",
            ),
            ("REDSTART_SUB_CONCURRENCY", "many", "must be a whole number"),
            ("REDSTART_SUB_MAX_ATTEMPTS", "0", "from 1"),
            (
                "REDSTART_SUB_CLICKS_LEASES",
                "30s",
                "must end with one of CONCURRENCY",
            ),
            ("REDSTART_SUB_CLICKSLEASE", "30s", "must end with one of"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(rule), "{error}");
        }
        for text in [
            r#"{"leases": "1s"}"#,
            r#"{"lease": "1"}"#,
            r#"{"lease": 1}"#,
            r#"{"max_attempts": 0}"#,
        ] {
            assert!(
                serde_json::from_str::<SubscriptionConfig>(text).is_err(),
                "{text}"
            );
        }
    }
}
