//! A private redis-server for a test: free port, temporary folder, stopped at the end.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server. Dropping it kills the process and removes its folder.
pub(crate) struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts a server with an append-only file.
    ///
    /// # Panics
    ///
    /// When `redis-server` is missing or does not come up: a failure, never a skip.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // A port that was free may be taken before the server binds it: try another then.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut child = spawn(port, &folder);
            if comes_up(&mut child, port) {
                return Self {
                    child,
                    port,
                    folder,
                };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("redis-server did not come up on twenty ports");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kills the server and starts it again on the same data and port.
    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.port, &self.folder);
        assert!(
            comes_up(&mut self.child, self.port),
            "the server did not come back"
        );
    }

    /// A raw connection, for looking behind the library's back.
    pub(crate) fn raw(&self) -> redis::Connection {
        redis::Client::open(self.url())
            .unwrap()
            .get_connection()
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, folder: &tempfile::TempDir) -> Child {
    Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is needed; tests/run installs it")
}

fn comes_up(child: &mut Child, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            let url = format!("redis://127.0.0.1:{port}/");
            let ping = redis::Client::open(url)
                .and_then(|client| client.get_connection())
                .and_then(|mut connection| redis::cmd("PING").exec(&mut connection));
            // Another process may answer on the port only if ours has failed to bind it.
            if ping.is_ok() && child.try_wait().unwrap().is_none() {
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
