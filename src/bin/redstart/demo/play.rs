//! The course of the demo: publish → start workers → kill one → drain → account.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use redstart::{
    Container, Envelope, Group, Topic, dead_letters::DeadLetterFilter, topics::GroupStatus,
};
use uuid::Uuid;

use super::DemoArgs;
use super::account::{Account, Sums};
use super::cluster::Fallen;
use super::crew::Crew;
use super::ground::{Ground, Place};
use super::orders::{Event, Orders};
use super::plan::{self, CONCURRENCY, Fails, LEASE, Message};
use super::report::Report;
use super::show::{Circumstances, Show};
use crate::failure::{Failure, chain};
use crate::settings::Settings;
use crate::terminal::Terminal;

/// How many messages one call publishes.
const BATCH: usize = 500;
/// How often the demo asks for the group's status.
const LOOK: Duration = Duration::from_millis(100);
/// How long the demo waits without progress before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the workers may take to shut down.
const FAREWELL: Duration = Duration::from_secs(20);

/// Runs the demo.
pub(super) async fn play(
    args: &DemoArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut show = Show::new(terminal, args.messages);
    let mut ground = Ground::choose(settings, args.cluster).await?;
    let container = ground.connect().await?;
    show.tell(ground.describe())?;

    let (topic, group) = (Topic::new("demo")?, Group::new("demo-workers")?);
    let mut account = Account::default();
    let began = Instant::now();
    publish(&container, &topic, args.messages, &mut account, &mut show).await?;
    let publishing = began.elapsed();

    let began = Instant::now();
    let crew = Crew::start(
        usize::try_from(args.workers).unwrap_or(usize::MAX),
        &Orders {
            place: &ground.place,
            namespace: &ground.namespace,
            topic: &topic,
            group: &group,
            work: plan::work(args.messages, args.workers),
            log: settings.log.to_string(),
        },
    )?;
    show.tell(format_args!(
        "Started {}: one group, {CONCURRENCY} handlers and a lease of {} s each.",
        crew.describe(),
        LEASE.as_secs(),
    ))?;

    let mut scene = Scene {
        container: &container,
        ground: &mut ground,
        topic: &topic,
        group: &group,
        crew,
        account,
        kill_at: args.messages / 3,
        killed: None,
        fall_at: args.messages / 2,
        fallen: None,
        dismissed: false,
        status: None,
        is_failing: false,
    };
    let drained = scene.until_drained(&mut show).await;
    let handling = began.elapsed();
    // The account comes out in any case: after a failure it is the first thing to read.
    scene.dismiss(&mut show).await?;
    let (sums, drained) = match (scene.close().await, drained) {
        (Ok(sums), drained) => (sums, drained),
        // The first failure says more than its consequences.
        (Err(_), Err(first)) => return Err(first),
        (Err(failure), Ok(())) => return Err(failure),
    };
    if drained.is_ok() && sums.adds_up() {
        show.tell("Every message was handled or is a dead letter; the workers have shut down.")?;
    }
    show.account(
        &sums,
        &Circumstances {
            drained: drained.is_ok(),
            killed: u64::from(scene.killed.is_some()),
            primaries_killed: args.cluster.then_some(u64::from(scene.fallen.is_some())),
            publishing,
            handling,
            adapter: container.adapter_name(),
            namespace: scene.ground.namespace.as_str(),
        },
    )?;
    drained?;
    if !sums.adds_up() {
        return Err(Failure::new(sums.complaint()));
    }
    #[cfg(feature = "console")]
    if let Some(address) = args.console {
        return look_at(container, &ground, address, &mut show).await;
    }
    look_further(args, ground, &mut show)
}

/// Serves the console until a signal, which ends the demo with everything that it left.
#[cfg(feature = "console")]
async fn look_at(
    container: Container,
    ground: &Ground,
    address: std::net::SocketAddr,
    show: &mut Show<'_, '_>,
) -> Result<(), Failure> {
    use redstart::console::{Access, ConsoleOptions, ConsoleServer, Login};

    // The server's log-in decides.
    let options =
        ConsoleOptions::with_access(|_| Access::Forbidden).with_title(ground.namespace.as_str());
    super::mixture::prepare(&container).await?;
    let server = ConsoleServer::bind(container, options, address, Login::local("demo")).await;
    let server = server.map_err(Failure::of_arguments)?;
    show.epilogue(&look_hint(ground))?;
    show.remark(format_args!(
        "console on http://{}; ctrl-c ends it",
        server.address()
    ));
    server.run(std::future::pending()).await;
    Ok(())
}

/// How to run the commands that the pages show, and what there is to try.
#[cfg(feature = "console")]
fn look_hint(ground: &Ground) -> Vec<String> {
    let namespace = format!("  export REDSTART_NAMESPACE={}", ground.namespace);
    let mut lines = match &ground.place {
        Place::Memory(_) => vec![
            "The commands that the pages show need a server, and this demo runs in memory."
                .to_owned(),
        ],
        Place::Given(_) => vec![
            "To run the commands that the pages show:".to_owned(),
            namespace,
        ],
        Place::Private(server) => vec![
            "To run the commands that the pages show, in another shell:".to_owned(),
            format!("  export REDSTART_REDIS_URL={}", server.url()),
            namespace,
        ],
        Place::Cluster(cluster) => vec![
            "To run the commands that the pages show, in another shell:".to_owned(),
            format!("  export REDSTART_REDIS_URL={}", cluster.url()),
            namespace,
        ],
    };
    lines.push(
        "To try: orders/billing has dead letters of three causes. The bank is back, so redriven orders \
         succeed; those without a price die again."
            .to_owned(),
    );
    lines
}

async fn publish(
    container: &Container,
    topic: &Topic,
    total: u64,
    account: &mut Account,
    show: &mut Show<'_, '_>,
) -> Result<(), Failure> {
    let (mut envelopes, mut once, mut always) = (Vec::new(), 0, 0);
    for message in plan::messages(total) {
        once += u64::from(message.fails == Fails::Once);
        always += u64::from(message.fails == Fails::Always);
        envelopes.push(Envelope::new(
            <Message as redstart::Message>::TYPE,
            &message,
        )?);
    }
    for batch in envelopes.chunks(BATCH) {
        for result in container.bus().publish_all(topic, batch).await {
            result?;
        }
    }
    account.published(envelopes.iter().map(Envelope::id));
    show.tell(format_args!(
        "Published {total} messages before any worker existed: \
         {once} will fail once, {always} will fail at every attempt."
    ))?;
    Ok(())
}

/// The killed worker and the messages that it left.
struct Killed {
    at: usize,
    when: Instant,
    /// Messages that it had begun and no other worker has begun since; known once its output ended.
    left: Option<HashSet<Uuid>>,
    /// Messages that other workers have begun since.
    begun: HashSet<Uuid>,
    announced: bool,
}

struct Scene<'a> {
    container: &'a Container,
    ground: &'a mut Ground,
    topic: &'a Topic,
    group: &'a Group,
    crew: Crew,
    account: Account,
    kill_at: u64,
    killed: Option<Killed>,
    /// How many messages are handled when a primary of a private cluster is killed.
    fall_at: u64,
    fallen: Option<Fallen>,
    dismissed: bool,
    status: Option<GroupStatus>,
    /// Whether the last request for the status failed; the demo reports it once.
    is_failing: bool,
}

impl Scene<'_> {
    /// Watches until every message has ended and the group is idle.
    async fn until_drained(&mut self, show: &mut Show<'_, '_>) -> Result<(), Failure> {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut progress, mut moved) = ((0, 0), Instant::now());
        loop {
            tokio::select! {
                event = self.crew.next() => match event {
                    Some((at, event)) => {
                        self.on(at, event, show)?;
                        self.kill_primary(show).await?;
                    }
                    None => return Err(Failure::new("all workers ended before the work was done")),
                },
                _ = looks.tick() => {
                    self.look(show).await?;
                    if self.is_drained() {
                        return Ok(());
                    }
                }
            }
            if self.crew.alive() == 0 {
                return Err(Failure::new("all workers ended before the work was done"));
            }
            let dead = self.status.as_ref().map_or(0, |status| status.dead);
            if progress != (self.account.distinct(), dead) {
                progress = (self.account.distinct(), dead);
                moved = Instant::now();
            }
            if moved.elapsed() > PATIENCE {
                let text = format!("no progress for {} s", PATIENCE.as_secs());
                return Err(Failure::new(text));
            }
        }
    }

    async fn look(&mut self, show: &mut Show<'_, '_>) -> Result<(), Failure> {
        match self.container.topics().groups(self.topic).await {
            Ok(groups) => {
                self.status = groups.into_iter().find(|row| row.group == *self.group);
                self.is_failing = false;
                self.replaced(show)?;
            }
            Err(error) if error.is_retryable() => {
                if let Some(fault) = self.ground.fault() {
                    return Err(fault);
                }
                // The story has told of the primary that the demo killed.
                let is_told = self.fallen.as_ref().is_some_and(|one| !one.is_replaced);
                if !self.is_failing && !is_told {
                    show.remark(format_args!("{}; trying again", chain(&error)));
                }
                self.is_failing = true;
            }
            Err(error) => return Err(error.into()),
        }
        show.progress(&self.account, self.status.as_ref(), self.crew.alive());
        Ok(())
    }

    fn is_drained(&self) -> bool {
        self.status.as_ref().is_some_and(|status| {
            (status.lag, status.in_flight, status.scheduled) == (0, 0, 0)
                && self.account.is_complete_with(status.dead)
        })
    }

    fn on(&mut self, at: usize, event: Event, show: &mut Show<'_, '_>) -> Result<(), Failure> {
        match event {
            Event::Reported(Report::Begun(id)) => self.taken_over(at, id, show)?,
            Event::Reported(Report::Handled(id)) => {
                self.account.handled(id);
                if self.killed.is_none() && self.account.distinct() >= self.kill_at {
                    self.kill()?;
                }
            }
            Event::Reported(Report::Retry(_)) => self.account.retried(),
            Event::Reported(Report::Ready | Report::Dead(_)) => {}
            Event::Complained(line) => {
                let number = self.crew.workers[at].number;
                show.remark(format_args!("worker {number}: {line}"));
            }
            Event::Ended => self.ended(at, show)?,
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), Failure> {
        let Some(at) = self.crew.busiest() else {
            return Ok(());
        };
        self.crew.workers[at].kill()?;
        self.killed = Some(Killed {
            at,
            when: Instant::now(),
            left: None,
            begun: HashSet::new(),
            announced: false,
        });
        Ok(())
    }

    /// Kills the primary of the topic in a private cluster, in the middle of the work.
    async fn kill_primary(&mut self, show: &mut Show<'_, '_>) -> Result<(), Failure> {
        let handled = self.account.distinct();
        if self.fallen.is_some() || handled < self.fall_at {
            return Ok(());
        }
        let Place::Cluster(cluster) = &mut self.ground.place else {
            return Ok(());
        };
        let namespace = &self.ground.namespace;
        let fallen = cluster.kill_primary_of(namespace, self.topic).await?;
        show.tell(format_args!(
            "Killed the primary that has the messages (port {}, pid {}): SIGKILL, after {handled} \
             handled messages.",
            fallen.port, fallen.pid,
        ))?;
        self.fallen = Some(fallen);
        Ok(())
    }

    /// Tells that the replica of the killed primary has taken over: it answers for the topic.
    fn replaced(&mut self, show: &mut Show<'_, '_>) -> Result<(), Failure> {
        let Some(fallen) = self.fallen.as_mut().filter(|one| !one.is_replaced) else {
            return Ok(());
        };
        fallen.is_replaced = true;
        show.tell(format_args!(
            "Its replica took over; {:.1} s after the kill it answers for the topic.",
            fallen.when.elapsed().as_secs_f64()
        ))?;
        Ok(())
    }

    /// Handles the end of a worker's output. It makes certain which messages the killed worker
    /// left: the demo has read every report that the worker sent.
    fn ended(&mut self, at: usize, show: &mut Show<'_, '_>) -> Result<(), Failure> {
        let worker = &self.crew.workers[at];
        let Some(killed) = self.killed.as_mut().filter(|killed| killed.at == at) else {
            if !self.dismissed {
                show.remark(format_args!("{worker} ended unexpectedly"));
            }
            return Ok(());
        };
        show.tell(format_args!(
            "Killed {worker}: {}, after {} handled messages and with {} unfinished.",
            worker.cause_of_death(),
            self.account.distinct(),
            worker.unfinished.len(),
        ))?;
        let mut left = worker.unfinished.clone();
        left.retain(|id| !killed.begun.contains(id));
        killed.left = Some(left);
        Ok(())
    }

    /// Tells when the others have begun every message that the killed worker left.
    fn taken_over(&mut self, at: usize, id: Uuid, show: &mut Show<'_, '_>) -> Result<(), Failure> {
        let Some(killed) = self.killed.as_mut().filter(|killed| killed.at != at) else {
            return Ok(());
        };
        killed.begun.insert(id);
        let Some(left) = &mut killed.left else {
            return Ok(());
        };
        if left.remove(&id) && left.is_empty() && !killed.announced {
            killed.announced = true;
            let number = self.crew.workers[killed.at].number;
            show.tell(format_args!(
                "{:.1} s after the kill, when its leases had expired, the other workers took over the \
                 messages of worker {number}.",
                killed.when.elapsed().as_secs_f64()
            ))?;
        }
        Ok(())
    }

    /// Lets the workers finish, and reads their last reports.
    async fn dismiss(&mut self, show: &mut Show<'_, '_>) -> Result<(), Failure> {
        self.dismissed = true;
        self.crew.dismiss();
        let deadline = tokio::time::Instant::now() + FAREWELL;
        while self.crew.alive() > 0 {
            match tokio::time::timeout_at(deadline, self.crew.next()).await {
                Ok(Some((at, event))) => self.on(at, event, show)?,
                Ok(None) => break,
                Err(_) => {
                    return Err(Failure::new("the workers did not shut down in time"));
                }
            }
        }
        let killed = self.killed.as_ref().map(|killed| killed.at);
        for (at, worker) in self.crew.workers.iter_mut().enumerate() {
            if let Err(how) = worker.end().await?
                && killed != Some(at)
            {
                show.remark(format_args!("{worker} ended with {how}"));
            }
        }
        Ok(())
    }

    /// Closes the account with the ids of the dead letters, not only their number.
    async fn close(&self) -> Result<Sums, Failure> {
        let (mut dead, mut after) = (Vec::new(), None);
        loop {
            let letters = self.container.dead_letters();
            let all = DeadLetterFilter::default();
            let page = letters
                .list(self.topic, self.group, &all, after, BATCH)
                .await?;
            // A dead letter without an id is undecodable, so the demo did not publish it.
            let ids = page.items.iter().map(|(_, summary)| summary.message_id);
            dead.extend(ids.map(Option::unwrap_or_default));
            after = page.next;
            if after.is_none() {
                return Ok(self.account.close(&dead));
            }
        }
    }
}

/// Shows how to inspect the messages that the demo left.
fn look_further(args: &DemoArgs, ground: Ground, show: &mut Show<'_, '_>) -> Result<(), Failure> {
    let Ground { place, namespace } = ground;
    let (intro, first, last) = match place {
        Place::Private(server) if args.keep => {
            let url = server.url().to_owned();
            let (pid, folder) = (server.pid(), server.keep());
            (
                "The server keeps running. To inspect it:",
                format!("export REDSTART_REDIS_URL={url}"),
                Some(format!("kill {pid} && rm -r {folder}    # to stop it")),
            )
        }
        Place::Cluster(cluster) if args.keep => {
            let url = cluster.url();
            let (pids, folders) = cluster.keep();
            let (pids, folders) = (pids.join(" "), folders.join(" "));
            (
                "The cluster keeps running, without the killed primary. To inspect it:",
                format!("export REDSTART_REDIS_URL={url}"),
                Some(format!("kill {pids}; rm -r {folders}    # to stop it")),
            )
        }
        Place::Private(_) => {
            let hint = "`redstart demo --keep` leaves the server running, to inspect it.";
            return Ok(show.epilogue(&[hint.to_owned()])?);
        }
        Place::Cluster(_) => {
            let hint =
                "`redstart demo --cluster --keep` leaves the cluster running, to inspect it.";
            return Ok(show.epilogue(&[hint.to_owned()])?);
        }
        Place::Memory(_) => {
            let hint = "To run the demo with processes, put redis-server on the PATH (apt install \
                 redis-server, brew install redis) or set REDSTART_REDIS_URL.";
            return Ok(show.epilogue(&[hint.to_owned()])?);
        }
        Place::Given(_) => (
            "The messages stay in their namespace. To inspect it:",
            "# keep REDSTART_REDIS_URL as it is".to_owned(),
            None,
        ),
    };
    let mut lines = vec![
        intro.to_owned(),
        format!("  {first}"),
        format!("  export REDSTART_NAMESPACE={namespace}"),
        "  redstart groups".to_owned(),
        "  redstart topics".to_owned(),
        "  redstart tail demo".to_owned(),
    ];
    lines.extend(last.map(|line| format!("  {line}")));
    Ok(show.epilogue(&lines)?)
}
