//! Decorators over a backend without two dozen methods of their own.

/// Implements methods of [`Store`](crate::store::Store) by calling the same method of a
/// field, inside an `impl Store` block. The methods that a decorator changes it writes itself.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use redstart::{Error, ports::BoxFuture};
/// use redstart::store::Store;
///
/// /// A backend that always says that it works.
/// #[derive(Debug)]
/// struct Optimist {
///     inner: Arc<dyn Store>,
/// }
///
/// impl Store for Optimist {
///     fn ping(&self) -> BoxFuture<'_, Result<(), Error>> {
///         Box::pin(async { Ok(()) })
///     }
///
///     redstart::forward_store!(inner: name, clock, clock_set, ensure_topic, append,
///         append_once, create_group, open, acknowledge, settle, extend, release, pending_of, reclaim,
///         promote, trim, trim_redelivery, prune_consumers, scheduled, run_now, cancel, consumers,
///         remove_group, server, topics, status, browse, newest, dead_letters);
/// }
/// ```
#[macro_export]
macro_rules! forward_store {
    ($field:ident: $($method:ident),* $(,)?) => {
        $($crate::forward_store!(@$method $field);)*
    };
    (@name $field:ident) => {
        fn name(&self) -> &'static str {
            self.$field.name()
        }
    };
    (@clock $field:ident) => {
        fn clock(&self) -> &dyn $crate::memory::Clock {
            self.$field.clock()
        }
    };
    (@clock_set $field:ident) => {
        $crate::forward_store!(@fn $field clock_set() -> ());
    };
    (@ping $field:ident) => {
        $crate::forward_store!(@fn $field ping() -> Result<(), $crate::Error>);
    };
    (@ensure_topic $field:ident) => {
        $crate::forward_store!(@fn $field ensure_topic(
            topic: &'a $crate::Topic, settings: $crate::topics::TopicSettings
        ) -> Result<$crate::topics::TopicSettings, $crate::Error>);
    };
    (@append $field:ident) => {
        $crate::forward_store!(@fn $field append(
            topic: &'a $crate::Topic, entries: Vec<(&'static str, $crate::testing::Bytes)>
        ) -> Vec<Result<$crate::envelope::EntryId, $crate::Error>>);
    };
    (@append_once $field:ident) => {
        $crate::forward_store!(@fn $field append_once(
            topic: &'a $crate::Topic, window: ::std::time::Duration,
            entries: Vec<$crate::store::Identified>
        ) -> Vec<Result<$crate::store::Appended, $crate::Error>>);
    };
    (@create_group $field:ident) => {
        $crate::forward_store!(@fn $field create_group(
            topic: &'a $crate::Topic, group: &'a $crate::Group, start: $crate::topics::StartFrom
        ) -> Result<(), $crate::Error>);
    };
    (@open $field:ident) => {
        $crate::forward_store!(@fn $field open(
            member: &'a $crate::store::Member
        ) -> Result<$crate::store::Opened, $crate::Error>);
    };
    (@acknowledge $field:ident) => {
        $crate::forward_store!(@fn $field acknowledge(
            member: &'a $crate::store::Member, receipts: &'a [$crate::store::DeliveryId]
        ) -> Result<(), $crate::Error>);
    };
    (@settle $field:ident) => {
        $crate::forward_store!(@fn $field settle(
            member: &'a $crate::store::Member, settlements: &'a [$crate::store::Settlement]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@extend $field:ident) => {
        $crate::forward_store!(@fn $field extend(
            member: &'a $crate::store::Member, receipts: &'a [$crate::store::DeliveryId]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@release $field:ident) => {
        $crate::forward_store!(@fn $field release(
            member: &'a $crate::store::Member, receipts: &'a [$crate::store::DeliveryId]
        ) -> Result<u64, $crate::Error>);
    };
    (@pending_of $field:ident) => {
        $crate::forward_store!(@fn $field pending_of(
            member: &'a $crate::store::Member, max: usize
        ) -> Result<Vec<$crate::store::DeliveryId>, $crate::Error>);
    };
    (@reclaim $field:ident) => {
        $crate::forward_store!(@fn $field reclaim(
            member: &'a $crate::store::Member, lease: ::std::time::Duration,
            cursor: $crate::store::ReclaimCursor, max: usize
        ) -> Result<$crate::store::Reclaimed, $crate::Error>);
    };
    (@promote $field:ident) => {
        $crate::forward_store!(@fn $field promote(
            topic: &'a $crate::Topic, group: &'a $crate::Group, max: usize
        ) -> Result<$crate::store::Promoted, $crate::Error>);
    };
    (@trim $field:ident) => {
        $crate::forward_store!(@fn $field trim(
            topic: &'a $crate::Topic
        ) -> Result<$crate::store::Trimmed, $crate::Error>);
    };
    (@trim_redelivery $field:ident) => {
        $crate::forward_store!(@fn $field trim_redelivery(
            topic: &'a $crate::Topic, group: &'a $crate::Group
        ) -> Result<(), $crate::Error>);
    };
    (@prune_consumers $field:ident) => {
        $crate::forward_store!(@fn $field prune_consumers(
            topic: &'a $crate::Topic, group: &'a $crate::Group, idle: ::std::time::Duration,
            only: Option<&'a $crate::topics::ConsumerName>
        ) -> Result<u64, $crate::Error>);
    };
    (@scheduled $field:ident) => {
        $crate::forward_store!(@fn $field scheduled(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            after: Option<($crate::envelope::Timestamp, $crate::store::DeliveryId)>, max: usize
        ) -> Result<$crate::store::Schedule, $crate::Error>);
    };
    (@run_now $field:ident) => {
        $crate::forward_store!(@fn $field run_now(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            receipts: &'a [$crate::store::DeliveryId]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@cancel $field:ident) => {
        $crate::forward_store!(@fn $field cancel(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            receipts: &'a [$crate::store::DeliveryId]
        ) -> Result<Vec<bool>, $crate::Error>);
    };
    (@consumers $field:ident) => {
        $crate::forward_store!(@fn $field consumers(
            topic: &'a $crate::Topic, group: &'a $crate::Group
        ) -> Result<Vec<$crate::store::ConsumerStatus>, $crate::Error>);
    };
    (@remove_group $field:ident) => {
        $crate::forward_store!(@fn $field remove_group(
            topic: &'a $crate::Topic, group: &'a $crate::Group,
            quiet: ::std::time::Duration, force: bool
        ) -> Result<Option<$crate::store::GroupRemoval>, $crate::Error>);
    };
    (@server $field:ident) => {
        $crate::forward_store!(@fn $field server(
        ) -> Result<Option<$crate::store::ServerInfo>, $crate::Error>);
    };
    (@topics $field:ident) => {
        $crate::forward_store!(@fn $field topics() -> Result<Vec<$crate::Topic>, $crate::Error>);
    };
    (@status $field:ident) => {
        $crate::forward_store!(@fn $field status(
            topic: &'a $crate::Topic
        ) -> Result<Option<$crate::topics::TopicStatus>, $crate::Error>);
    };
    (@browse $field:ident) => {
        $crate::forward_store!(@fn $field browse(
            topic: &'a $crate::Topic, after: Option<$crate::envelope::EntryId>, max: usize
        ) -> Result<Vec<($crate::envelope::EntryId, $crate::store::Fields)>, $crate::Error>);
    };
    (@newest $field:ident) => {
        $crate::forward_store!(@fn $field newest(
            topic: &'a $crate::Topic
        ) -> Result<Option<$crate::envelope::EntryId>, $crate::Error>);
    };
    (@dead_letters $field:ident) => {
        fn dead_letters(&self) -> &dyn $crate::store::DeadLetterStore {
            self.$field.dead_letters()
        }
    };
    (@fn $field:ident $name:ident() -> $output:ty) => {
        fn $name(&self) -> $crate::ports::BoxFuture<'_, $output> {
            self.$field.$name()
        }
    };
    (@fn $field:ident $name:ident($($argument:ident: $type:ty),*) -> $output:ty) => {
        fn $name<'a>(&'a self, $($argument: $type),*) -> $crate::ports::BoxFuture<'a, $output> {
            self.$field.$name($($argument),*)
        }
    };
}

/// As [`forward_store!`](crate::forward_store), for [`DeadLetterStore`](crate::store::DeadLetterStore):
/// implements its methods by calling the same method of what an expression gives.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use redstart::{Error, Group, Topic, envelope::EntryId, ports::BoxFuture};
/// use redstart::store::{Store, DeadLetterStore};
///
/// /// Dead letters of which the newest is kept secret.
/// #[derive(Debug)]
/// struct Discreet {
///     inner: Arc<dyn Store>,
/// }
///
/// impl DeadLetterStore for Discreet {
///     fn newest<'a>(
///         &'a self,
///         _: &'a Topic,
///         _: &'a Group,
///     ) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
///         Box::pin(async { Ok(None) })
///     }
///
///     redstart::forward_dead_letters!(inner: search, find, move_out, restore, causes, counts, begin_operation, end_operation,
///         journal);
/// }
/// ```
#[macro_export]
macro_rules! forward_dead_letters {
    ($field:ident: $($method:ident),* $(,)?) => {
        $($crate::forward_dead_letters!(@$method $field);)*
    };
    (@search $field:ident) => {
        $crate::forward_dead_letters!(@fn $field search(
            span: $crate::store::IdRange, filter: &'a $crate::dead_letters::DeadLetterFilter, max: usize
        ) -> $crate::store::Found);
    };
    (@find $field:ident) => {
        $crate::forward_dead_letters!(@fn $field find(
            ids: &'a [$crate::envelope::EntryId]
        ) -> Vec<($crate::envelope::EntryId, $crate::store::Record)>);
    };
    (@newest $field:ident) => {
        $crate::forward_dead_letters!(@fn $field newest() -> Option<$crate::envelope::EntryId>);
    };
    (@move_out $field:ident) => {
        $crate::forward_dead_letters!(@fn $field move_out(
            items: &'a [($crate::envelope::EntryId, $crate::store::Disposition)],
            known: &'a [($crate::envelope::EntryId, $crate::dead_letters::DeadLetterSummary)],
            operation: Option<$crate::testing::Uuid>
        ) -> Vec<bool>);
    };
    (@restore $field:ident) => {
        $crate::forward_dead_letters!(@fn $field restore(
            records: &'a [$crate::store::Restoring], again: bool
        ) -> Vec<Option<$crate::envelope::EntryId>>);
    };
    (@causes $field:ident) => {
        $crate::forward_dead_letters!(@fn $field causes() -> Vec<$crate::dead_letters::Cause>);
    };
    (@counts $field:ident) => {
        $crate::forward_dead_letters!(@fn $field counts(by: $crate::dead_letters::CountBy) -> Vec<(String, u64)>);
    };
    (@begin_operation $field:ident) => {
        $crate::forward_dead_letters!(@fn $field begin_operation(
            operation: $crate::testing::Uuid, order: String
        ) -> ());
    };
    (@end_operation $field:ident) => {
        $crate::forward_dead_letters!(@fn $field end_operation(
            operation: $crate::testing::Uuid, result: String
        ) -> ());
    };
    (@journal $field:ident) => {
        $crate::forward_dead_letters!(@fn $field journal() -> Vec<$crate::store::JournalRow>);
    };
    (@fn $field:ident $name:ident($($argument:ident: $type:ty),*) -> $output:ty) => {
        fn $name<'a>(
            &'a self, topic: &'a $crate::Topic, group: &'a $crate::Group, $($argument: $type),*
        ) -> $crate::ports::BoxFuture<'a, Result<$output, $crate::Error>> {
            self.$field.dead_letters().$name(topic, group, $($argument),*)
        }
    };
}
