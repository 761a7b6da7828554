//! `top`: groups, live.

mod app;
mod figures;
mod view;

use std::io;
use std::thread;
use std::time::Instant;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use redstart::Container;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{MissedTickBehavior, interval};

use crate::args::TopArgs;
use crate::failure::{Failure, chain};
use crate::settings::{NamespaceAccess, Settings};
use crate::terminal::Terminal;
use app::{App, Detail, Wish};
use figures::{Figures, Row};

/// How many causes of dead letters an opened group shows.
const CAUSES: usize = 20;

pub(super) async fn run(
    args: &TopArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if terminal.is_json() || !terminal.out_is_terminal() || !terminal.in_is_terminal() {
        let rule = "top needs a terminal; `redstart metrics --json` writes the same figures";
        return Err(Failure::usage(rule));
    }
    // Before the screen is taken: a wrong address or password is an error of the command.
    let container = settings.connect_for(NamespaceAccess::Read).await?;
    container.topics().names().await?;
    let mut screen = ratatui::try_init()?;
    let ended = tokio::select! {
        ended = watch(args, &container, &mut screen) => ended,
        () = terminated() => Ok(()),
    };
    ratatui::try_restore()?;
    ended
}

/// Completes when the process is asked to end, so that the terminal is given back as it was.
async fn terminated() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::terminate(), SignalKind::hangup()];
        let [Ok(mut end), Ok(mut hang_up)] = kinds.map(signal) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = end.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
    #[cfg(not(unix))]
    std::future::pending::<()>().await;
}

async fn watch(
    args: &TopArgs,
    container: &Container,
    screen: &mut DefaultTerminal,
) -> Result<(), Failure> {
    let mut app = App::new(args.filter.as_deref().unwrap_or_default());
    let (mut figures, mut events) = (Figures::default(), events());
    let mut ticks = interval(args.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let look = tokio::select! {
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) => match app.press(key) {
                    Wish::Quit => return Ok(()),
                    Wish::Look => true,
                    Wish::Nothing => false,
                },
                // The size has changed, or the like: draw again.
                Some(Ok(_)) => false,
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            _ = ticks.tick() => true,
        };
        // A frozen screen measures nothing, except for a group that was opened just now.
        let is_new = app
            .opened
            .as_ref()
            .is_some_and(|(_, detail)| detail.causes.is_none());
        if look && (!app.frozen || is_new || app.rows.is_empty()) {
            match measure(&app, &mut figures, container).await {
                Ok((rows, detail)) => app.update(rows, detail),
                Err(error) => app.fault = Some(chain(&error)),
            }
        }
        screen.draw(|frame| view::draw(&app, frame))?;
    }
}

async fn measure(
    app: &App,
    figures: &mut Figures,
    container: &Container,
) -> Result<(Vec<Row>, Option<Detail>), redstart::Error> {
    let topics = container.topics();
    let rows = figures.take(topics.gauges().await?, Instant::now());
    let Some(((row, _), name)) = app.opened.as_ref().map(|opened| (opened, opened.0.name())) else {
        return Ok((rows, None));
    };
    let (Some(group), true) = (&row.group, rows.iter().any(|row| row.name() == name)) else {
        return Ok((rows, None));
    };
    let topic = row.topic.parse()?;
    let dead = container.dead_letters();
    let detail = Detail {
        consumers: topics.in_flight(&topic, &group.group).await?,
        causes: Some(dead.summary(&topic, &group.group, CAUSES).await?),
    };
    Ok((rows, Some(detail)))
}

/// Keys and other events, from a thread of their own: reading them blocks.
fn events() -> UnboundedReceiver<io::Result<Event>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if sender.send(event).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
