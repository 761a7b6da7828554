//! The one place that builds key names.
//!
//! All keys of a topic carry its hash tag, `{namespace:topic}`, so they lie in one Cluster slot. This
//! is placement `spread`:
//!
//! | Key | Type | Holds | Lives |
//! |---|---|---|---|
//! | `{shop:orders}:log` | stream | the topic's entries | until retention removes them |
//! | `{shop:orders}:meta` | hash | the topic's settings, the lease of each group, and which groups are owned | for ever |
//! | `{shop:orders}:ids`, `…:ids:before` | hash | ids of messages published once, 16 bytes each, and their entry ids; `since` and `span` in milliseconds | at least a window, at most two |
//! | `{shop:orders}:later` | sorted set | ids of messages for later by due time in milliseconds | until due |
//! | `{shop:orders}:later:body` | hash | these messages by id: the field's name, a space, the value | until due |
//! | `{shop:orders}:later:bell` | stream | when the last message that was scheduled for soon is due | with the topic |
//! | `{shop:orders}:group:billing:redo` | stream | due retries and redriven dead letters | until settled |
//! | `{shop:orders}:group:billing:retry` | sorted set | retries by due time in milliseconds | until due |
//! | `{shop:orders}:group:billing:retry:body` | hash | the redeliveries of these retries | until due |
//! | `{shop:orders}:group:billing:dead` | stream | heads of dead letters | until redriven, purged or overdue |
//! | `{shop:orders}:group:billing:dead:body` | hash | bodies of dead letters by id | as the heads |
//! | `{shop:orders}:group:billing:dead:counts` | hash | dead letters by type, tenant and hour | as the heads |
//! | `{shop:orders}:group:billing:dead:causes` | hash | dead letters by reason and fingerprint | as the heads |
//! | `{shop:orders}:group:billing:dead:uncounted` | hash | sums of removed dead letters that these two still count | until a later removal subtracts them |
//! | `{shop:orders}:group:billing:dead:restored` | hash | identities of restored dead letters | for ever |
//! | `{shop:orders}:group:billing:dead:notes` | hash | operators' notes on causes, by fingerprint | until removed |
//! | `{shop:orders}:group:billing:journal` | hash | operators' actions on the dead letters | the newest 100 |
//! | `{shop:orders}:group:billing:members` | sorted set | members of an owned group by the end of their lease in milliseconds | until they leave or the lease ends |
//! | `{shop:orders}:group:billing:owners` | hash | the member that owns each partition; `changes` counts joins and departures; `lease:<member>` and `leaving:<member>` of each member | as the members |
//! | `{shop:orders}:group:billing:tokens` | hash | the last token of each partition | for ever |
//! | `{shop:orders}:group:billing:cursor` | hash | how far the owner of the partition has come: token, owner, number of its last step, and of each lane `low`, `high`, `done`, `read` | for ever |
//! | `{shop:orders}:group:billing:held` | hash | attempts at unsettled messages, and the messages that keep their place: `begun:failed:due:message` | until settled |
//! | `{shop:orders}:session:<consumer>` | string | the number of a consumer's last call of effects, and its answer | until the consumer ends, at most a day after the call |
//! | `{shop}:session:<id>` | string | the same of a container's effects without a delivery; in a cluster `{shop:<number>}:session:<id>`, one in each slot with such effects | a day after the call |
//! | `{shop}:topics` | set | the names of all topics | for ever |
//! | `{shop}:schema` | hash | applied migrations | for ever |
//! | `shop:<key>` | string | a value of the key-value store | its time to live |
//!
//! With placement `together` every key has the hash tag `{shop}`. `{shop}:t:orders:` stands in the place
//! of `{shop:orders}:`, and `{shop}:v:` in the place of `shop:`; the other names are the same. `t:` and
//! `v:` keep a topic `v` and a value `log` apart.
//!
//! The message ids of a topic lie in two hashes, the current generation and the previous one, and
//! expire a generation at a time. An id takes about 108 bytes. One key per id, with its own time to
//! live, takes 197 bytes and 1.7 times the server's time.

use uuid::Uuid;

use super::net::slot_of;
use super::slot_tags::SlotTags;
use crate::domain::{Error, Namespace, Placement};
use crate::store::{GroupAt, Lane, Member, Partition, check_key};

const REDELIVERY: &str = "redo";

/// The name of a lane in stored retries and in the arguments of scripts.
pub(super) fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Log => "log",
        Lane::Redelivery => REDELIVERY,
    }
}

/// Builds the names of keys in one namespace.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    namespace: Option<Namespace>,
    placement: Placement,
    tags: SlotTags,
}

impl Keys {
    /// Placement `together` needs a namespace.
    pub(super) fn new(namespace: Option<Namespace>, placement: Placement) -> Self {
        Self {
            namespace,
            placement,
            tags: SlotTags::default(),
        }
    }

    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or("", Namespace::as_str)
    }

    /// Whether all keys lie in one slot.
    pub(super) fn are_together(&self) -> bool {
        self.placement == Placement::Together
    }

    fn of_partition(&self, at: &Partition, rest: &str) -> String {
        match &self.namespace {
            Some(namespace) if self.are_together() => format!("{{{namespace}}}:t:{at}:{rest}"),
            Some(namespace) => format!("{{{namespace}:{at}}}:{rest}"),
            None => format!("{{{at}}}:{rest}"),
        }
    }

    fn of_group(&self, at: &GroupAt, rest: &str) -> String {
        self.of_partition(&at.partition, &format!("group:{}:{rest}", at.group))
    }

    /// The first part of the keys of a partition's groups.
    pub(super) fn groups(&self, at: &Partition) -> String {
        self.of_partition(at, "group:")
    }

    pub(super) fn log(&self, at: &Partition) -> String {
        self.of_partition(at, "log")
    }

    pub(super) fn meta(&self, at: &Partition) -> String {
        self.of_partition(at, "meta")
    }

    /// Ids of messages for later by due time.
    pub(super) fn later(&self, at: &Partition) -> String {
        self.of_partition(at, "later")
    }

    pub(super) fn later_body(&self, at: &Partition) -> String {
        self.of_partition(at, "later:body")
    }

    /// The stream that tells of messages for later that are due soon.
    pub(super) fn later_bell(&self, at: &Partition) -> String {
        self.of_partition(at, "later:bell")
    }

    /// Both generations of message ids, the current one first.
    pub(super) fn ids(&self, at: &Partition) -> [String; 2] {
        ["ids", "ids:before"].map(|rest| self.of_partition(at, rest))
    }

    pub(super) fn redelivery(&self, at: &GroupAt) -> String {
        self.of_group(at, REDELIVERY)
    }

    pub(super) fn lane(&self, at: &GroupAt, lane: Lane) -> String {
        match lane {
            Lane::Log => self.log(&at.partition),
            Lane::Redelivery => self.redelivery(at),
        }
    }

    pub(super) fn retry(&self, at: &GroupAt) -> String {
        self.of_group(at, "retry")
    }

    pub(super) fn retry_body(&self, at: &GroupAt) -> String {
        self.of_group(at, "retry:body")
    }

    pub(super) fn dead(&self, at: &GroupAt) -> String {
        self.of_group(at, "dead")
    }

    pub(super) fn dead_counts(&self, at: &GroupAt) -> String {
        self.of_group(at, "dead:counts")
    }

    pub(super) fn dead_body(&self, at: &GroupAt) -> String {
        self.of_group(at, "dead:body")
    }

    pub(super) fn dead_causes(&self, at: &GroupAt) -> String {
        self.of_group(at, "dead:causes")
    }

    pub(super) fn dead_uncounted(&self, at: &GroupAt) -> String {
        self.of_group(at, "dead:uncounted")
    }

    pub(super) fn dead_restored(&self, at: &GroupAt) -> String {
        self.of_group(at, "dead:restored")
    }

    pub(super) fn dead_notes(&self, at: &GroupAt) -> String {
        self.of_group(at, "dead:notes")
    }

    /// The members of an owned group by the end of their lease; with partition 0.
    pub(super) fn members(&self, at: &GroupAt) -> String {
        self.of_group(at, "members")
    }

    /// The owner of each partition; with partition 0.
    pub(super) fn owners(&self, at: &GroupAt) -> String {
        self.of_group(at, "owners")
    }

    /// The last token of each partition; with partition 0.
    pub(super) fn tokens(&self, at: &GroupAt) -> String {
        self.of_group(at, "tokens")
    }

    /// How far the owner of the partition has come.
    pub(super) fn cursor(&self, at: &GroupAt) -> String {
        self.of_group(at, "cursor")
    }

    /// The attempts at unsettled messages of the partition, and those that keep their place.
    pub(super) fn unsettled_notes(&self, at: &GroupAt) -> String {
        self.of_group(at, "held")
    }

    pub(super) fn journal(&self, at: &GroupAt) -> String {
        self.of_group(at, "journal")
    }

    /// The session of a consumer's effects.
    pub(super) fn session_of(&self, by: &Member) -> String {
        format!("{}{}", self.sessions(&by.at.partition), by.consumer)
    }

    /// The first part of the keys of consumers' sessions.
    pub(super) fn sessions(&self, at: &Partition) -> String {
        self.of_partition(at, "session:")
    }

    /// A session of effects without a delivery.
    pub(super) fn session(&self, id: Uuid) -> String {
        format!("{{{}}}:session:{}", self.namespace(), id.simple())
    }

    /// The same session in the slot of a key: a cluster needs it there, because a call has one slot. One
    /// for each slot, and not one for each value: it lives for a day after its last call. The access rules
    /// allow no session outside of the namespace.
    pub(super) fn session_beside(&self, key: &str, id: Uuid) -> String {
        if self.are_together() {
            return self.session(id);
        }
        let slot = slot_of(key.as_bytes());
        let tag = self.tags.tag(self.namespace(), slot);
        format!("{{{tag}}}:session:{}", id.simple())
    }

    pub(super) fn topics(&self) -> String {
        format!("{{{}}}:topics", self.namespace())
    }

    pub(super) fn schema(&self) -> String {
        format!("{{{}}}:schema", self.namespace())
    }

    /// The stream that health asks to write to. It never exists.
    pub(super) fn health(&self) -> String {
        format!("{{{}}}:health", self.namespace())
    }

    /// `shop:<key>` or `{shop}:v:<key>`, or `<key>` without a namespace: a string, for as long as its
    /// time to live.
    pub(super) fn value(&self, operation: &'static str, key: &str) -> Result<String, Error> {
        check_key(operation, key)?;
        Ok(match &self.namespace {
            Some(namespace) if self.are_together() => format!("{{{namespace}}}:v:{key}"),
            Some(namespace) => format!("{namespace}:{key}"),
            None => key.to_owned(),
        })
    }

    /// The first part of the keys of all values.
    pub(super) fn values(&self) -> String {
        match &self.namespace {
            Some(namespace) if self.are_together() => format!("{{{namespace}}}:v:"),
            Some(namespace) => format!("{namespace}:"),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::{ConsumerName, ErrorKind};
    use proptest::prelude::*;

    fn keys(namespace: &str) -> Keys {
        Keys::new(Some(Namespace::new(namespace).unwrap()), Placement::Spread)
    }

    fn together(namespace: &str) -> Keys {
        let namespace = Some(Namespace::new(namespace).unwrap());
        Keys::new(namespace, Placement::Together)
    }

    fn without_namespace() -> Keys {
        Keys::new(None, Placement::Spread)
    }

    fn of_group(keys: &Keys, at: &GroupAt) -> Vec<String> {
        let [ids, before] = keys.ids(&at.partition);
        vec![
            keys.log(&at.partition),
            keys.meta(&at.partition),
            ids,
            before,
            keys.later(&at.partition),
            keys.later_body(&at.partition),
            keys.later_bell(&at.partition),
            keys.redelivery(at),
            keys.retry(at),
            keys.retry_body(at),
            keys.dead(at),
            keys.dead_body(at),
            keys.dead_counts(at),
            keys.dead_causes(at),
            keys.dead_uncounted(at),
            keys.dead_restored(at),
            keys.dead_notes(at),
            keys.journal(at),
            keys.members(at),
            keys.owners(at),
            keys.tokens(at),
            keys.cursor(at),
            keys.unsettled_notes(at),
            keys.session_of(&Member {
                at: at.clone(),
                consumer: ConsumerName::from_static("billing-1"),
            }),
        ]
    }

    #[test]
    fn values_have_the_namespace_as_prefix() {
        assert_eq!(keys("shop").value("get", "a:b").unwrap(), "shop:a:b");
        assert_eq!(
            together("shop").value("get", "a:b").unwrap(),
            "{shop}:v:a:b"
        );
        assert_eq!(without_namespace().value("get", "a").unwrap(), "a");
        for keys in [keys("shop"), together("shop"), without_namespace()] {
            assert_eq!(
                keys.value("get", "a").unwrap(),
                format!("{}a", keys.values())
            );
        }
    }

    #[test]
    fn a_topics_keys_share_one_slot() {
        let (topic, group) = ("orders:eu".parse().unwrap(), "billing".parse().unwrap());
        let at = GroupAt::of(&topic, &group);
        for name in of_group(&keys("shop"), &at) {
            assert!(name.starts_with("{shop:orders:eu}:"), "{name}");
        }
        let log = without_namespace().log(&at.partition);
        assert_eq!(log, "{orders:eu}:log");
        assert_eq!(keys("shop").topics(), "{shop}:topics");
    }

    #[test]
    fn together_all_keys_have_the_tag_of_the_namespace() {
        let (topic, group) = ("orders:eu".parse().unwrap(), "billing".parse().unwrap());
        let (keys, at) = (together("shop"), GroupAt::of(&topic, &group));
        let own = of_group(&keys, &at);
        for name in &own {
            assert!(name.starts_with("{shop}:t:orders:eu:"), "{name}");
        }
        let spread = of_group(&super::tests::keys("shop"), &at);
        let renamed = spread.iter();
        let renamed = renamed.map(|name| name.replace("{shop:orders:eu}:", "{shop}:t:orders:eu:"));
        assert!(own.iter().cloned().eq(renamed));
        let log = keys.log(&at.partition);
        let session = keys.session(Uuid::nil());
        assert_eq!(keys.session_beside(&log, Uuid::nil()), session);
        for name in [keys.topics(), keys.schema(), keys.health(), session] {
            assert!(name.starts_with("{shop}:"), "{name}");
        }
    }

    #[test]
    fn a_session_can_lie_beside_any_key() {
        let (keys, id) = (keys("shop"), Uuid::nil());
        for key in [
            "shop:stock:7",
            "{shop:orders}:log",
            "shop:stock{shop:orders}",
            "shop:stock{shop}",
            // The access rules allow no session outside of the namespace.
            "shop:stock{7}",
            "shop:stock{shopper}",
            "shop:cart}7",
            "shop:user:{}",
        ] {
            let session = keys.session_beside(key, id);
            assert!(session.starts_with("{shop:"), "{key}: {session}");
            let slots = [&session, key].map(|name| slot_of(name.as_bytes()));
            assert_eq!(slots[0], slots[1], "{key}");
        }
    }

    #[test]
    fn the_values_of_a_slot_share_a_session() {
        let (keys, id) = (keys("shop"), Uuid::nil());
        let values = ["7", "8", "9"].map(|n| format!("shop:stock:{n}{{shop:orders}}"));
        let others = ["shop:sent{shop:orders}", "{shop:orders}:log"].map(str::to_owned);
        let all = values.iter().chain(&others);
        let sessions: BTreeSet<_> = all.map(|key| keys.session_beside(key, id)).collect();
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        let many = (0..40_000).map(|n| keys.session_beside(&format!("shop:stock:{n}"), id));
        assert!(many.collect::<BTreeSet<_>>().len() <= 16_384);
    }

    #[test]
    fn values_cannot_reach_the_keys_of_the_bus() {
        for bad in ["", "{shop:orders}:log"] {
            let error = without_namespace().value("set", bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    proptest! {
        #[test]
        fn a_session_lies_in_the_slot_of_its_value(key in "[a}:][a{}:]{0,7}") {
            for keys in [keys("shop"), together("shop")] {
                let value = keys.value("set", &key).unwrap();
                let session = keys.session_beside(&value, Uuid::nil());
                let slot = |key: &str| slot_of(key.as_bytes());
                prop_assert_eq!(slot(&session), slot(&value), "{}", session);
                prop_assert!(session.starts_with("{shop"), "{}", session);
            }
        }

        #[test]
        fn two_keys_never_share_a_name(
            one in "[a-z.]{1,5}", two in "[a-z.]{1,5}", a in "[a-z:]{1,8}", b in "[a-z:]{1,8}"
        ) {
            for keys in [keys, together] {
                let name = |of: &str, key: &str| keys(of).value("get", key).unwrap();
                prop_assert_eq!(name(&one, &a) == name(&two, &b), one == two && a == b);
            }
        }

        #[test]
        fn the_keys_of_two_groups_and_of_a_value_never_share_a_name(
            one in "(a|b|group|v|t|:){1,6}", two in "(a|b|group|v|t|:){1,6}",
            first in "(a|b|group|redo|retry|later|log)", second in "(a|b|group|redo|retry|later|log)",
            value in "(a|b|group|redo|v|t|log|:){1,9}"
        ) {
            let at = |topic: &str, group: &str| {
                GroupAt::of(&topic.parse().unwrap(), &group.parse().unwrap())
            };
            let (one, two) = (at(&one, &first), at(&two, &second));
            for keys in [keys("shop"), together("shop")] {
                // Groups of one topic share the keys of the topic.
                let own = |at: &GroupAt| {
                    let prefix = keys.groups(&at.partition);
                    let all = of_group(&keys, at).into_iter();
                    all.filter(|name| one.partition != two.partition || name.starts_with(&prefix))
                        .collect::<Vec<_>>()
                };
                let (ours, theirs) = (own(&one), own(&two));
                let value = keys.value("get", &value).unwrap();
                prop_assert!(!ours.contains(&value), "{}", value);
                if one != two {
                    prop_assert!(ours.iter().all(|name| !theirs.contains(name)), "{:?}", ours);
                }
            }
        }
    }
}
