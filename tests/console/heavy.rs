//! Many heavy messages: the console and the library read them in pages of a bounded size.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redstart::dead_letters::{DeadLetterFilter, Selection, Sweep};
use redstart::memory::MemoryStore;
use redstart::ports::BoxFuture;
use redstart::store::decorate::{Answer as Told, Decorated, Decorator, Next, Op};
use redstart::store::{DeadLettersAnswer, GroupAt, IdRange, LogAnswer, Restoring, Store};
use redstart::{Container, Envelope, Error, Outcome};

use crate::site::{console, get, keep_entries};
use crate::support::{PATIENCE, group, topic, until};

const MIB: usize = 1024 * 1024;
/// About four megabytes, or one heavier record.
const PAGE: usize = 5 * MIB;

/// Remembers the heaviest answer that holds whole messages.
#[derive(Debug, Default)]
struct Scales {
    heaviest: AtomicUsize,
}

impl Scales {
    fn take(&self) -> usize {
        self.heaviest.swap(0, Ordering::SeqCst)
    }
}

impl Decorator for Scales {
    fn call<'a>(&'a self, op: Op<'a>, mut to: Next<'a>) -> BoxFuture<'a, Result<Told, Error>> {
        Box::pin(async move {
            let answer = to.run(op).await?;
            let bytes = match &answer {
                Told::DeadLetters(DeadLettersAnswer::Find(records)) => {
                    records.iter().map(|(_, record)| record.body.len()).sum()
                }
                Told::Log(LogAnswer::Browse(entries) | LogAnswer::BrowseBack(entries)) => {
                    let fields = entries.iter().flat_map(|(_, fields)| fields);
                    fields.map(|(_, value)| value.len()).sum()
                }
                _ => 0,
            };
            self.heaviest.fetch_max(bytes, Ordering::SeqCst);
            Ok(answer)
        })
    }
}

/// A group with so many dead letters of 1 MiB. They share their bytes.
async fn heavy(count: usize) -> (Container, Arc<Scales>) {
    let scales = Arc::new(Scales::default());
    let store = MemoryStore::new().store(None);
    let store = Decorated::new(Arc::clone(&scales) as Arc<dyn Decorator>, store);
    let store: Arc<dyn Store> = Arc::new(store);
    let builder = Container::builder().with_service(group("billing"));
    let container = builder.with_store(store.clone()).connect().await.unwrap();
    let (on, of) = (topic("orders"), group("billing"));
    keep_entries(&container).await;
    let envelope = Envelope::new("order.placed", &"x".repeat(MIB - 2048)).unwrap();
    container.bus().publish(&on, &envelope).await.unwrap();
    let handler = async || Outcome::dead_letter("no stock");
    let subscription = container.bus().subscribe(&on, handler).await.unwrap();
    until("the message to die", async || {
        let status = container.topics().group(&on, &of).await.unwrap();
        (status.dead == 1).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
    let (at, all) = (GroupAt::of(&on, &of), DeadLetterFilter::default());
    let dead = store.dead_letters();
    let found = dead.search(&at, IdRange::default(), &all, 1).await.unwrap();
    let found = dead.find(&at, &[found.items[0].0]).await.unwrap();
    let record = &found[0].1;
    let more = (1..count).map(|number| Restoring {
        identity: number.to_string(),
        own: None,
        record: record.clone(),
    });
    let more: Vec<Restoring> = more.collect();
    dead.restore(&at, &more, false).await.unwrap();
    scales.take();
    (container, scales)
}

#[tokio::test]
async fn an_export_of_heavy_dead_letters_holds_one_small_page() {
    let (container, scales) = heavy(300).await;
    let (dead, on, of) = (container.dead_letters(), topic("orders"), group("billing"));
    let all = Selection::from(DeadLetterFilter::default());
    let mut pages = dead.pages(&on, &of, &all);
    let mut ids = Vec::new();
    while let Some(letters) = pages.next().await.unwrap() {
        assert!(letters.len() <= 4, "{} in a page", letters.len());
        ids.extend(letters.into_iter().map(|letter| letter.id));
    }
    assert_eq!(ids.len(), 300);
    assert!(ids.is_sorted_by(|one, two| one < two));
    let heaviest = scales.take();
    assert!(heaviest <= PAGE, "{heaviest} bytes at once");
    // A selection by id keeps its order.
    ids.truncate(9);
    ids.reverse();
    let mut pages = dead.pages(&on, &of, &Selection::Ids(ids.clone()));
    let mut came = Vec::new();
    while let Some(letters) = pages.next().await.unwrap() {
        came.extend(letters.into_iter().map(|letter| letter.id));
    }
    assert_eq!(came, ids);
    let heaviest = scales.take();
    assert!(heaviest <= PAGE, "{heaviest} bytes at once");
}

#[tokio::test]
async fn the_console_exports_publishes_and_shows_heavy_messages_in_small_pages() {
    let (container, scales) = heavy(12).await;
    let console = console(&container);
    let file = get(&console, "/dead/orders/billing/export").await.ok();
    assert_eq!(file.text.lines().count(), 12);
    let heaviest = scales.take();
    assert!(heaviest <= PAGE, "{heaviest} bytes at once");

    let (on, of) = (topic("orders"), group("billing"));
    let sweep = Sweep::publish(topic("again"), DeadLetterFilter::default());
    let dead = container.dead_letters();
    let report = dead.sweep(&on, &of, sweep, &|_| {}).await.unwrap();
    assert_eq!(report.progress.taken, 12);
    let heaviest = scales.take();
    assert!(heaviest <= PAGE, "{heaviest} bytes at once");

    // All twelve, a page at a time.
    let (mut path, mut shown, mut pages) = ("/topics/again".to_owned(), 0, 0);
    loop {
        let page = get(&console, &path).await.ok();
        shown += page.text.matches("<th scope=\"row\">").count();
        pages += 1;
        let Some((before, _)) = page.text.split_once("\">Older entries") else {
            break;
        };
        path = before.rsplit('"').next().unwrap().to_owned();
    }
    assert_eq!(shown, 12);
    assert!(pages > 1);
    let heaviest = scales.take();
    assert!(heaviest <= 2 * PAGE, "{heaviest} bytes at once");
}
