//! The one place that builds key names.
//!
//! All keys of a topic carry its hash tag, `{namespace:topic}`, and so lie in one Cluster slot.
//!
//! | Key | Type | Holds | Lives |
//! |---|---|---|---|
//! | `{shop:orders}:log` | stream | the topic's entries | until retention removes them |
//! | `{shop:orders}:meta` | hash | what was fixed when the topic was created | for ever |
//! | `{shop:orders}:ids`, `…:ids:before` | hash | ids of messages published once, 16 bytes each, and their entry ids; `since` and `span` in milliseconds | at least a window, at most two |
//! | `{shop:orders}:group:billing:redo` | stream | due retries and redriven dead letters | until settled |
//! | `{shop:orders}:group:billing:retry` | sorted set | retries by due time in milliseconds | until due |
//! | `{shop:orders}:group:billing:retry:body` | hash | the same retries' parcels | until due |
//! | `{shop:orders}:group:billing:dead` | stream | dead letters' heads | until redriven, purged or overdue |
//! | `{shop:orders}:group:billing:dead:body` | hash | dead letters' bodies by id | as the heads |
//! | `{shop:orders}:group:billing:dead:counts` | hash | dead letters by type, tenant and hour | as the heads |
//! | `{shop:orders}:group:billing:dead:causes` | hash | dead letters by reason and fingerprint | as the heads |
//! | `{shop:orders}:group:billing:dead:uncounted` | hash | what was taken out and is still in those two | until more is taken out |
//! | `{shop:orders}:group:billing:dead:restored` | hash | which exported dead letters were put in | for ever |
//! | `{shop:orders}:group:billing:journal` | hash | what operators did to the dead letters | the newest 100 |
//! | `{shop}:topics` | set | the names of all topics | for ever |
//! | `{shop}:schema` | hash | applied migrations | for ever |
//! | `shop:<key>` | string | a value of the key-value store | its time to live |
//!
//! The ids of a topic lie in two hashes, the generation that is written and the one before it,
//! and leave a generation at a time: some 108 bytes an id. One key per id, with a time to live of
//! its own, takes 197 bytes and 1.7 times the server's time.

use crate::api::check_key;
use crate::domain::{Error, Group, Namespace, Topic};
use crate::store::Lane;

/// Builds the names of keys in one namespace.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    namespace: Option<Namespace>,
}

impl Keys {
    pub(super) fn new(namespace: Option<Namespace>) -> Self {
        Self { namespace }
    }

    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or("", Namespace::as_str)
    }

    fn of_topic(&self, topic: &Topic, rest: &str) -> String {
        match &self.namespace {
            Some(namespace) => format!("{{{namespace}:{topic}}}:{rest}"),
            None => format!("{{{topic}}}:{rest}"),
        }
    }

    fn of_group(&self, topic: &Topic, group: &Group, rest: &str) -> String {
        self.of_topic(topic, &format!("group:{group}:{rest}"))
    }

    pub(super) fn log(&self, topic: &Topic) -> String {
        self.of_topic(topic, "log")
    }

    pub(super) fn meta(&self, topic: &Topic) -> String {
        self.of_topic(topic, "meta")
    }

    /// Both generations of ids, the current one first.
    pub(super) fn ids(&self, topic: &Topic) -> [String; 2] {
        ["ids", "ids:before"].map(|rest| self.of_topic(topic, rest))
    }

    pub(super) fn redo(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "redo")
    }

    pub(super) fn lane(&self, topic: &Topic, group: &Group, lane: Lane) -> String {
        match lane {
            Lane::Log => self.log(topic),
            Lane::Redelivery => self.redo(topic, group),
        }
    }

    pub(super) fn retry(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "retry")
    }

    pub(super) fn retry_body(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "retry:body")
    }

    pub(super) fn dead(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "dead")
    }

    pub(super) fn dead_counts(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "dead:counts")
    }

    pub(super) fn dead_body(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "dead:body")
    }

    pub(super) fn dead_causes(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "dead:causes")
    }

    pub(super) fn dead_uncounted(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "dead:uncounted")
    }

    pub(super) fn dead_restored(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "dead:restored")
    }

    pub(super) fn journal(&self, topic: &Topic, group: &Group) -> String {
        self.of_group(topic, group, "journal")
    }

    pub(super) fn topics(&self) -> String {
        format!("{{{}}}:topics", self.namespace())
    }

    pub(super) fn schema(&self) -> String {
        format!("{{{}}}:schema", self.namespace())
    }

    /// `shop:<key>`, or `<key>` without a namespace: a string, for as long as its time to live.
    pub(super) fn value(&self, operation: &'static str, key: &str) -> Result<String, Error> {
        check_key(operation, key)?;
        Ok(match &self.namespace {
            Some(namespace) => format!("{namespace}:{key}"),
            None => key.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorKind;
    use proptest::prelude::*;

    fn keys(namespace: &str) -> Keys {
        Keys::new(Some(Namespace::new(namespace).unwrap()))
    }

    #[test]
    fn values_are_named_as_the_older_store_named_them() {
        assert_eq!(keys("shop").value("get", "a:b").unwrap(), "shop:a:b");
        assert_eq!(Keys::new(None).value("get", "a").unwrap(), "a");
    }

    #[test]
    fn a_topics_keys_share_one_slot() {
        let (keys, topic, group) = (
            keys("shop"),
            Topic::new("orders:eu").unwrap(),
            Group::new("billing").unwrap(),
        );
        let [ids, before] = keys.ids(&topic);
        let names = [
            keys.log(&topic),
            keys.meta(&topic),
            ids,
            before,
            keys.redo(&topic, &group),
            keys.retry(&topic, &group),
            keys.retry_body(&topic, &group),
            keys.dead(&topic, &group),
            keys.dead_body(&topic, &group),
            keys.dead_counts(&topic, &group),
            keys.dead_causes(&topic, &group),
            keys.dead_uncounted(&topic, &group),
            keys.dead_restored(&topic, &group),
            keys.journal(&topic, &group),
        ];
        for name in names {
            assert!(name.starts_with("{shop:orders:eu}:"), "{name}");
        }
        assert_eq!(Keys::new(None).log(&topic), "{orders:eu}:log");
        assert_eq!(keys.topics(), "{shop}:topics");
    }

    #[test]
    fn the_bus_own_keys_are_out_of_reach() {
        for bad in ["", "{shop:orders}:log"] {
            let error = Keys::new(None).value("set", bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    proptest! {
        #[test]
        fn two_keys_never_share_a_name(
            one in "[a-z.]{1,5}", two in "[a-z.]{1,5}", a in "[a-z:]{1,8}", b in "[a-z:]{1,8}"
        ) {
            let same = keys(&one).value("get", &a).unwrap() == keys(&two).value("get", &b).unwrap();
            prop_assert_eq!(same, one == two && a == b);
        }
    }
}
