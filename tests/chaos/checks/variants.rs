//! Buses and stores that are broken on purpose: the checker sees it in a run.

use std::time::Duration;

use crate::broken::Flaw;
use crate::checker::Promise;
use crate::small::run;
use crate::stores::StoreFlaw;
use crate::support::PATIENCE;

/// How long one that may never settle down is waited for.
const BRIEFLY: Duration = Duration::from_secs(4);

/// What is broken, and which promise that breaks.
const FLAWS: [(Flaw, StoreFlaw, Promise); 14] = {
    use Promise::{
        Attempts, Begun, Drains, Exact, Linearizable, NeighboursLive, NoNeedlessRepeat,
        NothingInvented, NothingLost, Once, OneEntry, Order, RedriveConserves, TrimsSettledOnly,
    };
    use StoreFlaw::{AsksNoToken, ComparesThenSets};
    [
        (Flaw::SettlesOnFetch, StoreFlaw::Sound, NothingLost),
        (Flaw::DeniesPublishing, StoreFlaw::Sound, NothingInvented),
        (Flaw::PublishesTwice, StoreFlaw::Sound, OneEntry),
        (Flaw::LeasesAreNothing, StoreFlaw::Sound, NoNeedlessRepeat),
        (Flaw::Sound, AsksNoToken, Once),
        (Flaw::BuriesAgain, StoreFlaw::Sound, Attempts),
        (Flaw::CountsClaims, StoreFlaw::Sound, Begun),
        (Flaw::CountsClaims, StoreFlaw::Sound, NeighboursLive),
        (Flaw::RedrivesWhatIsGone, StoreFlaw::Sound, RedriveConserves),
        (Flaw::ReadsBackwards, StoreFlaw::Sound, Order),
        (Flaw::TrimsWithoutFloor, StoreFlaw::Sound, TrimsSettledOnly),
        (Flaw::Sound, ComparesThenSets, Linearizable),
        (Flaw::AcknowledgesNothing, StoreFlaw::Sound, Drains),
        (Flaw::RepeatsEffects, StoreFlaw::Sound, Exact),
    ]
};

#[tokio::test]
async fn a_sound_bus_keeps_every_promise() {
    let verdict = run(Flaw::Sound, StoreFlaw::Sound, PATIENCE).await;
    assert!(verdict.holds(), "{verdict:?}");
    let counts = verdict.counts;
    assert_eq!((counts.published, counts.lost), (78, 0));
    assert!(counts.dead > 0 && counts.redriven > 0, "{counts:?}");
    assert!(counts.register_operations > 100, "{counts:?}");
    assert_eq!((counts.entered, counts.passed), (60, 180), "{counts:?}");
}

// All at once: they mostly wait.
#[tokio::test]
async fn each_flaw_breaks_its_promise() {
    let runs = FLAWS.map(|(flaw, store_flaw, promise)| async move {
        let patience = match flaw {
            Flaw::AcknowledgesNothing => BRIEFLY,
            _ => PATIENCE,
        };
        let verdict = run(flaw, store_flaw, patience).await;
        assert!(
            verdict.broken().contains(&promise),
            "{flaw:?}, {store_flaw:?}: {promise} not among {:?}",
            verdict.broken(),
        );
    });
    futures_util::future::join_all(runs).await;
}
