//! Decorators over a backend without two dozen methods of their own.

/// Implements methods of [`Backend`](crate::store::Backend) by calling the same method of a
/// field, inside an `impl Backend` block. The methods that a decorator changes it writes itself.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use redstart::{BoxFuture, Error};
/// use redstart::store::Backend;
///
/// /// A backend that always says that it works.
/// #[derive(Debug)]
/// struct Optimist {
///     inner: Arc<dyn Backend>,
/// }
///
/// impl Backend for Optimist {
///     fn ping(&self) -> BoxFuture<'_, Result<(), Error>> {
///         Box::pin(async { Ok(()) })
///     }
///
///     redstart::forward_backend!(inner: name, clock, clock_set, ensure_topic, append,
///         append_once, create_group, open, acknowledge, settle, extend, release, holdings, reclaim,
///         promote, retain, retain_redo, forget, scheduled, hasten, cancel, consumers,
///         remove_group, server, topics, status, browse, newest, graves);
/// }
/// ```
#[macro_export]
macro_rules! forward_backend {
    ($field:ident: $($method:ident),* $(,)?) => {
        $($crate::forward_backend!(@$method $field);)*
    };
    (@name $field:ident) => {
        fn name(&self) -> &'static str {
            self.$field.name()
        }
    };
    (@clock $field:ident) => {
        fn clock(&self) -> &dyn $crate::Clock {
            self.$field.clock()
        }
    };
    (@clock_set $field:ident) => {
        $crate::forward_backend!(@fn $field clock_set() -> ());
    };
    (@ping $field:ident) => {
        $crate::forward_backend!(@fn $field ping() -> Result<(), $crate::Error>);
    };
    (@ensure_topic $field:ident) => {
        $crate::forward_backend!(@fn $field ensure_topic(
            topic: &'a $crate::Topic, settings: $crate::TopicSettings
        ) -> Result<$crate::TopicSettings, $crate::Error>);
    };
    (@append $field:ident) => {
        $crate::forward_backend!(@fn $field append(
            topic: &'a $crate::Topic, entries: Vec<(&'static str, $crate::testing::Bytes)>
        ) -> Vec<Result<$crate::EntryId, $crate::Error>>);
    };
    (@append_once $field:ident) => {
        $crate::forward_backend!(@fn $field append_once(
            topic: &'a $crate::Topic, window: ::std::time::Duration,
            entries: Vec<$crate::store::Identified>
        ) -> Vec<Result<$crate::store::Appended, $crate::Error>>);
    };
    (@create_group $field:ident) => {
        $crate::forward_backend!(@fn $field create_group(
            topic: &'a $crate::Topic, group: &'a $crate::Group, start: $crate::Start
        ) -> Result<(), $crate::Error>);
    };
    (@open $field:ident) => {
        $crate::forward_backend!(@fn $field open(
            member: &'a $crate::store::Member
        ) -> Result<$crate::store::Opened, $crate::Error>);
    };
    (@acknowledge $field:ident) => {
        $crate::forward_backend!(@fn $field acknowledge(
            member: &'a $crate::store::Member, receipts: &'a [$crate::store::Receipt]
        ) -> Result<(), $crate::Error>);
    };
    (@settle $field:ident) => {
        $crate::forward_backend!(@fn $field settle(
            member: &'a $crate::store::Member, settlements: &'a [$crate::store::Settlement]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@extend $field:ident) => {
        $crate::forward_backend!(@fn $field extend(
            member: &'a $crate::store::Member, receipts: &'a [$crate::store::Receipt]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@release $field:ident) => {
        $crate::forward_backend!(@fn $field release(
            member: &'a $crate::store::Member, receipts: &'a [$crate::store::Receipt]
        ) -> Result<u64, $crate::Error>);
    };
    (@holdings $field:ident) => {
        $crate::forward_backend!(@fn $field holdings(
            member: &'a $crate::store::Member, max: usize
        ) -> Result<Vec<$crate::store::Receipt>, $crate::Error>);
    };
    (@reclaim $field:ident) => {
        $crate::forward_backend!(@fn $field reclaim(
            member: &'a $crate::store::Member, lease: ::std::time::Duration,
            cursor: $crate::store::ReclaimCursor, max: usize
        ) -> Result<$crate::store::Reclaimed, $crate::Error>);
    };
    (@promote $field:ident) => {
        $crate::forward_backend!(@fn $field promote(
            topic: &'a $crate::Topic, group: &'a $crate::Group, max: usize
        ) -> Result<$crate::store::Promoted, $crate::Error>);
    };
    (@retain $field:ident) => {
        $crate::forward_backend!(@fn $field retain(
            topic: &'a $crate::Topic
        ) -> Result<$crate::store::Retained, $crate::Error>);
    };
    (@retain_redo $field:ident) => {
        $crate::forward_backend!(@fn $field retain_redo(
            topic: &'a $crate::Topic, group: &'a $crate::Group
        ) -> Result<(), $crate::Error>);
    };
    (@forget $field:ident) => {
        $crate::forward_backend!(@fn $field forget(
            topic: &'a $crate::Topic, group: &'a $crate::Group, idle: ::std::time::Duration,
            only: Option<&'a $crate::ConsumerName>
        ) -> Result<u64, $crate::Error>);
    };
    (@scheduled $field:ident) => {
        $crate::forward_backend!(@fn $field scheduled(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            after: Option<($crate::Timestamp, $crate::store::Receipt)>, max: usize
        ) -> Result<$crate::store::Schedule, $crate::Error>);
    };
    (@hasten $field:ident) => {
        $crate::forward_backend!(@fn $field hasten(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            receipts: &'a [$crate::store::Receipt]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@cancel $field:ident) => {
        $crate::forward_backend!(@fn $field cancel(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            receipts: &'a [$crate::store::Receipt]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@consumers $field:ident) => {
        $crate::forward_backend!(@fn $field consumers(
            topic: &'a $crate::Topic, group: &'a $crate::Group
        ) -> Result<Vec<$crate::store::ConsumerStatus>, $crate::Error>);
    };
    (@remove_group $field:ident) => {
        $crate::forward_backend!(@fn $field remove_group(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            quiet: ::std::time::Duration, force: bool
        ) -> Result<Option<$crate::store::Removal>, $crate::Error>);
    };
    (@server $field:ident) => {
        $crate::forward_backend!(@fn $field server(
        ) -> Result<Option<$crate::store::ServerFacts>, $crate::Error>);
    };
    (@topics $field:ident) => {
        $crate::forward_backend!(@fn $field topics() -> Result<Vec<$crate::Topic>, $crate::Error>);
    };
    (@status $field:ident) => {
        $crate::forward_backend!(@fn $field status(
            topic: &'a $crate::Topic
        ) -> Result<Option<$crate::TopicStatus>, $crate::Error>);
    };
    (@browse $field:ident) => {
        $crate::forward_backend!(@fn $field browse(
            topic: &'a $crate::Topic, after: Option<$crate::EntryId>, max: usize
        ) -> Result<Vec<($crate::EntryId, $crate::store::Fields)>, $crate::Error>);
    };
    (@newest $field:ident) => {
        $crate::forward_backend!(@fn $field newest(
            topic: &'a $crate::Topic
        ) -> Result<Option<$crate::EntryId>, $crate::Error>);
    };
    (@graves $field:ident) => {
        fn graves(&self) -> &dyn $crate::store::Graves {
            self.$field.graves()
        }
    };
    (@fn $field:ident $name:ident() -> $output:ty) => {
        fn $name(&self) -> $crate::BoxFuture<'_, $output> {
            self.$field.$name()
        }
    };
    (@fn $field:ident $name:ident($($argument:ident: $type:ty),*) -> $output:ty) => {
        fn $name<'a>(&'a self, $($argument: $type),*) -> $crate::BoxFuture<'a, $output> {
            self.$field.$name($($argument),*)
        }
    };
}

/// As [`forward_backend!`](crate::forward_backend), for [`Graves`](crate::store::Graves):
/// implements its methods by calling the same method of what an expression gives.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use redstart::{BoxFuture, EntryId, Error, Group, Topic};
/// use redstart::store::{Backend, Graves};
///
/// /// Dead letters of which the newest is kept secret.
/// #[derive(Debug)]
/// struct Discreet {
///     inner: Arc<dyn Backend>,
/// }
///
/// impl Graves for Discreet {
///     fn last<'a>(
///         &'a self,
///         _: &'a Topic,
///         _: &'a Group,
///     ) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
///         Box::pin(async { Ok(None) })
///     }
///
///     redstart::forward_graves!(inner: search, find, take, restore, causes, counts, begin, end,
///         journal);
/// }
/// ```
#[macro_export]
macro_rules! forward_graves {
    ($field:ident: $($method:ident),* $(,)?) => {
        $($crate::forward_graves!(@$method $field);)*
    };
    (@search $field:ident) => {
        $crate::forward_graves!(@fn $field search(
            span: $crate::store::Span, filter: &'a $crate::DeadLetterFilter, max: usize
        ) -> $crate::store::Found);
    };
    (@find $field:ident) => {
        $crate::forward_graves!(@fn $field find(
            ids: &'a [$crate::EntryId]
        ) -> Vec<($crate::EntryId, $crate::store::Record)>);
    };
    (@last $field:ident) => {
        $crate::forward_graves!(@fn $field last() -> Option<$crate::EntryId>);
    };
    (@take $field:ident) => {
        $crate::forward_graves!(@fn $field take(
            items: &'a [($crate::EntryId, $crate::store::Onward)],
            known: &'a [($crate::EntryId, $crate::DeadLetterHead)],
            operation: Option<$crate::testing::Uuid>
        ) -> Vec<bool>);
    };
    (@restore $field:ident) => {
        $crate::forward_graves!(@fn $field restore(
            records: &'a [$crate::store::Restoring], again: bool
        ) -> Vec<Option<$crate::EntryId>>);
    };
    (@causes $field:ident) => {
        $crate::forward_graves!(@fn $field causes() -> Vec<$crate::Cause>);
    };
    (@counts $field:ident) => {
        $crate::forward_graves!(@fn $field counts(by: $crate::Tally) -> Vec<(String, u64)>);
    };
    (@begin $field:ident) => {
        $crate::forward_graves!(@fn $field begin(
            operation: $crate::testing::Uuid, order: String
        ) -> ());
    };
    (@end $field:ident) => {
        $crate::forward_graves!(@fn $field end(
            operation: $crate::testing::Uuid, result: String
        ) -> ());
    };
    (@journal $field:ident) => {
        $crate::forward_graves!(@fn $field journal() -> Vec<$crate::store::JournalRow>);
    };
    (@fn $field:ident $name:ident($($argument:ident: $type:ty),*) -> $output:ty) => {
        fn $name<'a>(
            &'a self, topic: &'a $crate::Topic, group: &'a $crate::Group, $($argument: $type),*
        ) -> $crate::BoxFuture<'a, Result<$output, $crate::Error>> {
            self.$field.graves().$name(topic, group, $($argument),*)
        }
    };
}
