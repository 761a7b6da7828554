//! Decorators over a backend without two dozen methods of their own.

/// Implements methods of [`Backend`](crate::backend::Backend) by calling the same method of a
/// field, inside an `impl Backend` block. The methods that a decorator changes it writes itself.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use redstart::{BoxFuture, Error};
/// use redstart::backend::Backend;
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
///         append_once, create_group, open, acknowledge, settle, extend, release, holdings, reclaim, promote,
///         retain, retain_redo, forget, topics, status, browse, newest, dead, dead_by_id,
///         redrive, purge, dead_counts);
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
            entries: Vec<$crate::backend::Identified>
        ) -> Vec<Result<$crate::backend::Appended, $crate::Error>>);
    };
    (@create_group $field:ident) => {
        $crate::forward_backend!(@fn $field create_group(
            topic: &'a $crate::Topic, group: &'a $crate::Group, start: $crate::Start
        ) -> Result<(), $crate::Error>);
    };
    (@open $field:ident) => {
        $crate::forward_backend!(@fn $field open(
            member: &'a $crate::backend::Member
        ) -> Result<$crate::backend::Opened, $crate::Error>);
    };
    (@acknowledge $field:ident) => {
        $crate::forward_backend!(@fn $field acknowledge(
            member: &'a $crate::backend::Member, receipts: &'a [$crate::backend::Receipt]
        ) -> Result<(), $crate::Error>);
    };
    (@settle $field:ident) => {
        $crate::forward_backend!(@fn $field settle(
            member: &'a $crate::backend::Member, settlements: &'a [$crate::backend::Settlement]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@extend $field:ident) => {
        $crate::forward_backend!(@fn $field extend(
            member: &'a $crate::backend::Member, receipts: &'a [$crate::backend::Receipt]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@release $field:ident) => {
        $crate::forward_backend!(@fn $field release(
            member: &'a $crate::backend::Member, receipts: &'a [$crate::backend::Receipt]
        ) -> Result<u64, $crate::Error>);
    };
    (@holdings $field:ident) => {
        $crate::forward_backend!(@fn $field holdings(
            member: &'a $crate::backend::Member, max: usize
        ) -> Result<Vec<$crate::backend::Receipt>, $crate::Error>);
    };
    (@reclaim $field:ident) => {
        $crate::forward_backend!(@fn $field reclaim(
            member: &'a $crate::backend::Member, lease: ::std::time::Duration,
            cursor: $crate::backend::ReclaimCursor, max: usize
        ) -> Result<$crate::backend::Reclaimed, $crate::Error>);
    };
    (@promote $field:ident) => {
        $crate::forward_backend!(@fn $field promote(
            topic: &'a $crate::Topic, group: &'a $crate::Group, max: usize
        ) -> Result<$crate::backend::Promoted, $crate::Error>);
    };
    (@retain $field:ident) => {
        $crate::forward_backend!(@fn $field retain(
            topic: &'a $crate::Topic
        ) -> Result<$crate::backend::Retained, $crate::Error>);
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
        ) -> Result<Vec<($crate::EntryId, $crate::backend::Fields)>, $crate::Error>);
    };
    (@newest $field:ident) => {
        $crate::forward_backend!(@fn $field newest(
            topic: &'a $crate::Topic
        ) -> Result<Option<$crate::EntryId>, $crate::Error>);
    };
    (@dead $field:ident) => {
        $crate::forward_backend!(@fn $field dead(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            after: Option<$crate::EntryId>, max: usize
        ) -> Result<Vec<($crate::EntryId, $crate::backend::Record)>, $crate::Error>);
    };
    (@dead_by_id $field:ident) => {
        $crate::forward_backend!(@fn $field dead_by_id(
            topic: &'a $crate::Topic, group: &'a $crate::Group, ids: &'a [$crate::EntryId]
        ) -> Result<Vec<($crate::EntryId, $crate::backend::Record)>, $crate::Error>);
    };
    (@redrive $field:ident) => {
        $crate::forward_backend!(@fn $field redrive(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            parcels: &'a [($crate::EntryId, $crate::testing::Bytes)]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@purge $field:ident) => {
        $crate::forward_backend!(@fn $field purge(
            topic: &'a $crate::Topic, group: &'a $crate::Group, ids: &'a [$crate::EntryId]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@dead_counts $field:ident) => {
        $crate::forward_backend!(@fn $field dead_counts(
            topic: &'a $crate::Topic, group: &'a $crate::Group
        ) -> Result<Vec<(String, u64)>, $crate::Error>);
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
