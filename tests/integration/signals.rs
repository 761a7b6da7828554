//! Processes that run until a signal.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use redstart::container::ShutdownReport;
use redstart::extract::Payload;
use redstart::{Container, Delivery};

use crate::support::{PATIENCE, publish, signal, topic};

/// Makes this program a service, with this grace in milliseconds.
const GRACE: &str = "TEST_SERVICE_GRACE_MS";

/// The service. Its first message keeps a handler busy for ever, where `BUSY` is set.
#[test]
fn service() {
    let Ok(grace) = std::env::var(GRACE) else {
        return;
    };
    let grace = Duration::from_millis(grace.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let report = runtime.block_on(async {
        let container = Container::in_memory().await.unwrap();
        let (begun, mut told) = tokio::sync::mpsc::unbounded_channel();
        let handler = move |_: Payload<u32>, _: Delivery| {
            let _ = begun.send(());
            std::future::pending::<()>()
        };
        let orders = topic("orders");
        container.bus().subscribe(&orders, handler).await.unwrap();
        let running = container.run_until_signal(grace);
        tokio::pin!(running);
        // Polled once, it listens.
        assert!(poll_once(&mut running).await.is_none());
        if std::env::var("BUSY").is_ok() {
            publish(&container, &orders, 0..1).await;
            told.recv().await;
        }
        println!("\n@ready");
        running.await.unwrap()
    });
    println!("\n@{report}");
    std::process::exit(i32::from(!report.is_clean()));
}

/// The future's value, if it is ready at once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        let polled = std::pin::Pin::new(&mut *future).poll(context);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

struct Service {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Service {
    fn start(grace: Duration, busy: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["signals::service", "--exact", "--nocapture"])
            .env(GRACE, grace.as_millis().to_string())
            .stdout(Stdio::piped())
            .stdin(Stdio::null());
        if busy {
            command.env("BUSY", "yes");
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut service = Self { child, lines };
        assert_eq!(service.line().as_deref(), Some("ready"));
        service
    }

    /// The next line that the service says.
    fn line(&mut self) -> Option<String> {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix('@').map(str::to_owned))
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn both_signals_shut_an_idle_service_down() {
    for name in ["TERM", "INT"] {
        let mut service = Service::start(PATIENCE, false);
        service.signal(name);
        assert_eq!(service.line().as_deref(), Some("clean shutdown"), "{name}");
        assert_eq!(service.exit_code(), Some(0), "{name}");
    }
}

#[test]
fn a_handler_that_outlives_the_grace_is_in_the_report() {
    let mut service = Service::start(Duration::from_millis(50), true);
    service.signal("TERM");
    let report = service.line();
    let expected = "shutdown not clean: orders/redstart: 1 cancelled, 0 unsettled";
    assert_eq!(report.as_deref(), Some(expected));
    assert_eq!(service.exit_code(), Some(1));
}

#[test]
fn a_second_signal_does_not_wait_for_the_grace() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM")] {
        let mut service = Service::start(Duration::from_secs(86_400), true);
        service.signal(first);
        // The kernel may merge two of one kind into one: go on until the process ends.
        let code = loop {
            std::thread::sleep(Duration::from_millis(20));
            if let Some(status) = service.child.try_wait().unwrap() {
                break status.code();
            }
            service.signal(second);
        };
        assert_eq!(code, Some(130), "{first} {second}");
        assert_eq!(service.line(), None, "no report");
    }
}

#[test]
fn a_report_is_an_exit_code() {
    let code = |report: ShutdownReport| format!("{:?}", std::process::ExitCode::from(report));
    let mut report = ShutdownReport::default();
    assert_eq!(report.to_string(), "clean shutdown");
    let success = format!("{:?}", std::process::ExitCode::SUCCESS);
    assert_eq!(code(report.clone()), success);
    report
        .failed_coordinators
        .push("coordinator web: it did not stop in time".to_owned());
    assert_eq!(
        report.to_string(),
        "shutdown not clean: coordinator web: it did not stop in time"
    );
    assert_ne!(code(report), success);
}
