//! What a store claims, and that it refuses the rest by name.
//!
//! The suite runs the checks of a capability where the store claims it. Where the store does not,
//! each of these checks makes sure that the store refuses the operations instead.

use super::Subject;
use super::support::{DAY, Must as _, Stage};
use crate::domain::{Durability, Error, ErrorKind};
use crate::store::Session;

/// Whether the store claims [`append_once`](crate::store::Capabilities::append_once). A store that
/// does not must refuse it by name.
pub async fn append_once<S: Subject>(subject: &S) -> bool {
    let stage = Stage::bare(subject).await;
    if stage.store.capabilities().append_once {
        return true;
    }
    let refused = stage.store.log().append_once(stage.partition(), DAY, &[]);
    must_refuse("log.append_once", refused.await.map(drop));
    false
}

/// Whether the store claims [`values`](crate::store::Capabilities::values). A store that does not
/// must refuse them by name.
pub async fn values<S: Subject>(subject: &S) -> bool {
    let stage = Stage::bare(subject).await;
    if stage.store.capabilities().values {
        return true;
    }
    let values = stage.store.values();
    must_refuse("values.get", values.get(&["a"]).await.map(drop));
    must_refuse("values.delete", values.delete("a").await.map(drop));
    must_refuse("values.incr", values.incr("a", 1).await.map(drop));
    false
}

/// Whether the store claims [`effects`](crate::store::Capabilities::effects). A store that does
/// not must refuse them by name.
pub async fn effects<S: Subject>(subject: &S) -> bool {
    let stage = Stage::bare(subject).await;
    let capabilities = stage.store.capabilities();
    if capabilities.effects {
        // The checks name several topics and values in one commit.
        return capabilities.effects_anywhere;
    }
    let (effects, session) = (
        stage.store.effects(),
        Session {
            id: uuid::Uuid::nil(),
            number: 1,
        },
    );
    let (member, none) = (stage.member("one"), &[]);
    must_refuse(
        "effects.commit",
        effects.commit(&member, 1, &[]).await.map(drop),
    );
    must_refuse(
        "effects.apply",
        effects.apply(session, none).await.map(drop),
    );
    must_refuse("effects.rehearse", effects.rehearse(&[]).await.map(drop));
    false
}

/// Whether the store claims [`later`](crate::store::Capabilities::later). A store that does not must
/// refuse messages for later by name.
pub async fn later<S: Subject>(subject: &S) -> bool {
    let stage = Stage::bare(subject).await;
    if stage.store.capabilities().later {
        return true;
    }
    let (later, at) = (stage.store.later(), stage.partition());
    must_refuse(
        "later.put",
        later.put(at, Durability::Accepted, &[]).await.map(drop),
    );
    must_refuse("later.promote", later.promote(at, 1).await.map(drop));
    false
}

/// Whether the store claims [`ownership`](crate::store::Capabilities::ownership). A store that does not
/// must refuse owned groups by name.
pub async fn ownership<S: Subject>(subject: &S) -> bool {
    let stage = Stage::bare(subject).await;
    if stage.store.capabilities().ownership {
        return true;
    }
    let owned = stage.store.owners();
    let made = owned.create(&stage.at, crate::store::StartFrom::Beginning);
    must_refuse("owners.create", made.await);
    must_refuse("owners.roster", owned.roster(&stage.at).await.map(drop));
    false
}

/// Whether the store claims both [`effects`](crate::store::Capabilities::effects) and
/// [`ownership`](crate::store::Capabilities::ownership). A store that does not must refuse the effects of
/// owned groups by name.
pub async fn owned_effects<S: Subject>(subject: &S) -> bool {
    let stage = Stage::bare(subject).await;
    let capabilities = stage.store.capabilities();
    if capabilities.effects && capabilities.ownership {
        // The checks name several topics and values in one commit.
        return capabilities.effects_anywhere;
    }
    let (effects, member) = (stage.store.effects(), stage.member("one"));
    let committed = effects.commit_owned(&member, 1, 1, &[]).await;
    must_refuse("effects.commit_owned", committed.map(drop));
    false
}

fn must_refuse(name: &str, answer: Result<(), Error>) {
    let error = answer
        .err()
        .must("a refusal of what the store does not claim");
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Unsupported, name)
    );
}
