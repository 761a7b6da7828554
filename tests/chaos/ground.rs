//! The environment of the workers: one server behind a proxy, and its faults.

use std::time::{Duration, Instant};

use crate::history::{Event, Journal};
use crate::plan::{Fault, Step};
use crate::proxy::{Proxy, Weather};
use crate::shim::Shim;
use crate::support::{Server, signal};

const LOG: &str = "{chaos:orders}:log";
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct OneServer {
    server: Server,
    shim: Shim,
    proxy: Proxy,
    /// Stays connected when the server accepts no connection.
    admin: redis::Connection,
    clock: i64,
}

impl OneServer {
    pub(crate) async fn start(seed: u64, shim: Shim, journal: &Journal) -> Self {
        let environment = shim.environment();
        let environment = environment
            .each_ref()
            .map(|(name, value)| (*name, &**value));
        let settings = [
            "--busy-reply-threshold",
            "100",
            "--dbfilename",
            "blocked.rdb",
            "--loading-process-events-interval-bytes",
            "1024",
        ];
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start_in(folder, &settings, &environment);
        let proxy = Proxy::start(server.port(), seed, journal.clone()).await;
        Self {
            admin: server.raw(),
            server,
            shim,
            proxy,
            clock: 0,
        }
    }

    /// What workers connect through.
    pub(crate) fn proxy(&self) -> Proxy {
        self.proxy.clone()
    }

    /// Where workers connect.
    pub(crate) fn url(&self) -> String {
        self.proxy.url()
    }

    /// The address for observers, which bypasses the proxy.
    pub(crate) fn direct_url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// The server's process, for its memory.
    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    fn command(&mut self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command
            .exec(&mut self.admin)
            .unwrap_or_else(|e| panic!("{words:?}: {e}"));
    }

    /// Repeats a command until a running child of the server has ended: the server also rewrites its file
    /// without a command.
    fn repeat(&mut self, words: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        while let Err(error) = command.exec(&mut self.admin) {
            let busy =
                error.to_string().contains("progress") || error.to_string().contains("active");
            assert!(busy && Instant::now() < deadline, "{words:?}: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Begins a fault. Blocks its thread.
    pub(crate) fn strike(&mut self, step: Step, journal: &Journal) {
        match step.fault {
            Fault::KillServer | Fault::Loading => self.server.kill(),
            Fault::FreezeServer => signal(self.server.pid(), "STOP"),
            Fault::ScriptFlush => self.command(&["SCRIPT", "FLUSH", "SYNC"]),
            Fault::KillClients => self.kill_clients(),
            Fault::MaxClients => {
                self.command(&["CONFIG", "SET", "maxclients", "1"]);
                self.kill_clients();
            }
            Fault::Pause => {
                let what = ["WRITE", "ALL"][step.pick as usize % 2];
                // The pause has a time limit, because it also blocks the command that would end it.
                let millis = step.lasts.as_millis().to_string();
                self.command(&["CLIENT", "PAUSE", &millis, what]);
            }
            Fault::Busy => {
                let mut raw = self.server.raw();
                let script = redis::cmd("EVAL")
                    .arg("while true do end")
                    .arg(0)
                    .to_owned();
                // Ends when it is killed.
                std::thread::spawn(move || script.exec(&mut raw));
            }
            Fault::ReadOnly => self.command(&["REPLICAOF", "127.0.0.1", "1"]),
            Fault::MemoryFull => self.command(&["CONFIG", "SET", "maxmemory", "1"]),
            Fault::FullAtRetry => self.proxy.fill_at_retries(true),
            Fault::Misconf => {
                std::fs::create_dir(self.server.folder().join("blocked.rdb")).unwrap();
                self.command(&["CONFIG", "SET", "save", "3600 1"]);
                self.repeat(&["BGSAVE"]);
            }
            Fault::FullDisk => self.shim.full(true),
            Fault::Rewrite => self.repeat(&["BGREWRITEAOF"]),
            Fault::ClockForward => {
                self.clock += 3600;
                self.shim.clock(self.clock);
            }
            Fault::Malformed => self.malformed(journal),
            Fault::FlushAll => self.command(&["FLUSHALL"]),
            Fault::Weather(weather) => self.proxy.set(weather, step.pick),
            Fault::KillReplica | Fault::Failover | Fault::MoveSlot => {
                unreachable!("a fault of several servers")
            }
            Fault::Kill
            | Fault::Freeze
            | Fault::DropRuntime
            | Fault::Restart
            | Fault::Redeploy
            | Fault::ClientClock
            | Fault::LostClaims
            | Fault::Poison => unreachable!("a fault of a worker"),
        }
    }

    /// Ends a fault. Blocks its thread until the server answers again.
    pub(crate) fn heal(&mut self, step: Step) {
        match step.fault {
            Fault::KillServer => self.start_again(&[]),
            Fault::Loading => self.load_slowly(),
            Fault::FullDisk => {
                // With `appendfsync always` the server ends itself at the first write.
                self.server.kill();
                self.shim.full(false);
                self.start_again(&[]);
            }
            Fault::FreezeServer => signal(self.server.pid(), "CONT"),
            Fault::MaxClients => self.command(&["CONFIG", "SET", "maxclients", "10000"]),
            Fault::Busy => self.kill_script(),
            Fault::ReadOnly => self.command(&["REPLICAOF", "NO", "ONE"]),
            Fault::FullAtRetry => {
                self.proxy.fill_at_retries(false);
                self.command(&["CONFIG", "SET", "maxmemory", "0"]);
            }
            Fault::MemoryFull => self.command(&["CONFIG", "SET", "maxmemory", "0"]),
            Fault::Misconf => {
                self.command(&["CONFIG", "SET", "save", ""]);
                std::fs::remove_dir(self.server.folder().join("blocked.rdb")).unwrap();
            }
            Fault::Weather(_) => self.proxy.set(Weather::Fine, 0),
            _ => {}
        }
    }

    fn start_again(&mut self, settings: &[&str]) {
        self.server.start_again_with(settings);
        self.admin = self.server.raw();
    }

    /// Makes the server load its data for about two seconds and answer meanwhile.
    fn load_slowly(&mut self) {
        let files = std::fs::read_dir(self.server.folder().join("appendonlydir")).unwrap();
        let bytes: u64 = files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        // Some 200 bytes a command.
        let delay = (2_000_000 / (bytes / 200).max(1)).clamp(1, 5000);
        self.start_again(&["--key-load-delay", &delay.to_string()]);
    }

    fn kill_clients(&mut self) {
        self.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }

    fn kill_script(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let killed = redis::cmd("SCRIPT").arg("KILL").exec(&mut self.admin);
            // It may not have begun yet; before its threshold the server does not even answer.
            match killed {
                Ok(()) => return,
                Err(_) => assert!(Instant::now() < deadline, "the script cannot be killed"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Adds undecodable entries to the log.
    fn malformed(&mut self, journal: &Journal) {
        let deep = format!(
            r#"{{"type":"chaos","payload":{}{}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        let large = vec![b'['; 4 * 1024 * 1024];
        let bodies: [(&str, &[u8]); 8] = [
            ("unheard-of", b"{}"),
            ("json", b"{\"type\":"),
            (
                "json",
                b"{\"type\":\"chaos\",\"payload\":{\"n\":\"seven\"}}",
            ),
            ("json", deep.as_bytes()),
            ("json", &large),
            ("msgpack", b"\x81\xa4type"),
            // A text of four billion bytes, an array of as many.
            ("msgpack", b"\x82\xa4type\xdb\xff\xff\xff\xffx"),
            (
                "msgpack",
                b"\x82\xa4type\xa1x\xa7payload\xdd\xff\xff\xff\xff",
            ),
        ];
        for (name, body) in bodies {
            let mut add = redis::cmd("XADD");
            add.arg(LOG).arg("*").arg(name).arg(body);
            let entry: String = add.query(&mut self.admin).unwrap();
            let topic = "orders".to_owned();
            journal.write(Event::Malformed { topic, entry });
        }
    }
}
