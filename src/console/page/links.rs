//! Addresses of the console's pages.

use std::fmt::Write as _;

use crate::domain::{EntryId, Group, Topic};

/// Makes addresses that begin with the base path.
#[derive(Clone, Debug)]
pub(in crate::console) struct Links {
    base: String,
}

/// A name as a segment of a path. Browsers take `.` and `..` out of a path, so a name of dots alone
/// gets a mark, which no name has.
fn segment(name: &str) -> String {
    match name {
        "." | ".." => format!("~{name}"),
        name => name.to_owned(),
    }
}

/// An id as a segment of a path: the slash after its partition is not one of the path.
fn id_segment(id: EntryId) -> String {
    id.to_string().replace('/', "%2F")
}

impl Links {
    pub(in crate::console) fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
        }
    }

    /// The name in a segment of a path.
    pub(in crate::console) fn name(segment: &str) -> &str {
        segment.strip_prefix('~').unwrap_or(segment)
    }

    /// A path of the console, which begins with `/`.
    pub(in crate::console) fn to(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(in crate::console) fn overview(&self) -> String {
        self.to("/")
    }

    pub(in crate::console) fn topic(&self, topic: &Topic) -> String {
        self.to(&format!("/topics/{}", segment(topic.as_str())))
    }

    pub(in crate::console) fn entry(&self, topic: &Topic, id: EntryId) -> String {
        format!("{}/entries/{}", self.topic(topic), id_segment(id))
    }

    pub(in crate::console) fn group(&self, topic: &Topic, group: &Group) -> String {
        format!("{}/groups/{}", self.topic(topic), segment(group.as_str()))
    }

    fn of_group(&self, page: &str, topic: &Topic, group: &Group) -> String {
        let (topic, group) = (segment(topic.as_str()), segment(group.as_str()));
        self.to(&format!("/{page}/{topic}/{group}"))
    }

    pub(in crate::console) fn retries(&self, topic: &Topic, group: &Group) -> String {
        self.of_group("retries", topic, group)
    }

    pub(in crate::console) fn dead(&self, topic: &Topic, group: &Group) -> String {
        self.of_group("dead", topic, group)
    }

    pub(in crate::console) fn letter(&self, topic: &Topic, group: &Group, id: EntryId) -> String {
        format!("{}/{}", self.dead(topic, group), id_segment(id))
    }

    pub(in crate::console) fn operation(
        &self,
        topic: &Topic,
        group: &Group,
        id: uuid::Uuid,
    ) -> String {
        format!("{}/{id}", self.of_group("operations", topic, group))
    }
}

/// The part of an address after `?`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::console) struct Query(Vec<(String, String)>);

impl Query {
    /// Adds a field; one without a value is left out.
    pub(in crate::console) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.0.push((name.to_owned(), value));
        }
        self
    }

    /// The address with this query.
    pub(in crate::console) fn on(&self, address: &str) -> String {
        if self.0.is_empty() {
            return address.to_owned();
        }
        let pairs = self.0.iter();
        let pairs = pairs.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        format!("{address}?{}", pairs.collect::<Vec<_>>().join("&"))
    }

    /// The fields, for the hidden inputs of a form.
    pub(in crate::console) fn fields(&self) -> &[(String, String)] {
        &self.0
    }
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            byte => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_begin_with_the_base_path_and_keep_names_of_dots() {
        let links = Links::new("/redstart");
        let (topic, group) = (Topic::new("..").unwrap(), Group::new("a.b").unwrap());
        let dead = links.dead(&topic, &group);
        assert_eq!(dead, "/redstart/dead/~../a.b");
        let id = EntryId::new(7, 0).in_partition(3);
        assert!(links.letter(&topic, &group, id).ends_with("/3%2F7-0"));
        assert_eq!(Links::name("~.."), "..");
        assert_eq!(Links::new("").overview(), "/");
    }

    #[test]
    fn a_query_encodes_and_leaves_empty_fields_out() {
        let query = Query::default().with("error", "a&b=\"ü\"").with("type", "");
        assert_eq!(query.on("/dead"), "/dead?error=a%26b%3D%22%C3%BC%22");
        assert_eq!(Query::default().on("/dead"), "/dead");
    }
}
