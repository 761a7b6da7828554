//! The tool on a terminal: a pseudo-terminal, and somebody who types.

use std::io::{Read as _, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};

use crate::support::PATIENCE;

/// A command that runs on a terminal of its own.
pub(crate) struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Terminal {
    /// Starts the tool on a terminal of so many columns.
    pub(crate) fn start(url: &str, columns: u16, args: &[&str]) -> Self {
        Self::start_with(url, columns, args, &[])
    }

    /// Starts the tool with further variables of the environment.
    pub(crate) fn start_with(
        url: &str,
        columns: u16,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let size = PtySize {
            rows: 50,
            cols: columns,
            ..PtySize::default()
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_redstart"));
        command.args(args);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REDSTART_") || name == "NO_COLOR" {
                command.env_remove(name);
            }
        }
        command.env("REDSTART_REDIS_URL", url);
        command.env("REDSTART_NAMESPACE", "shop");
        command.env("TERM", "xterm");
        for (name, value) in variables {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let mut from = pair.master.try_clone_reader().unwrap();
        let seen = Arc::clone(&screen);
        let keyboard = pair.master.take_writer().unwrap();
        let master = pair.master;
        let reader = thread::spawn(move || {
            // The terminal lives as long as somebody looks at it.
            let _master = master;
            let mut part = [0; 4096];
            // A terminal that nobody writes to any more ends with an error.
            while let Ok(read @ 1..) = from.read(&mut part) {
                seen.lock().unwrap().extend_from_slice(&part[..read]);
            }
        });
        Self {
            child,
            keyboard,
            screen,
            reader,
        }
    }

    /// Everything that was written so far.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until a text is on the screen.
    pub(crate) fn sees(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.screen().contains(text) {
            assert!(
                Instant::now() < deadline,
                "no {text:?} in {:?}",
                self.screen()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Presses keys.
    pub(crate) fn presses(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Types a line.
    pub(crate) fn types(&mut self, line: &str) {
        self.keyboard
            .write_all(format!("{line}\r").as_bytes())
            .unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits for the end; returns the exit code and everything that was written.
    pub(crate) fn ends(mut self) -> (u32, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("the command does not end: {:?}", self.screen());
            }
            thread::sleep(Duration::from_millis(5));
        };
        drop(self.keyboard);
        self.reader.join().unwrap();
        let screen = String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned();
        (status.exit_code(), screen)
    }
}
