//! A terminal for programs that want one.
//!
//! In: a command, a size. Out: the program on a pseudo-terminal; what it shows, what is typed, new sizes.

#![expect(unsafe_code, reason = "TIOCSWINSZ has no safe wrapper")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest wait for something to be shown.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program at its terminal. Ends with the test.
pub struct Terminal {
    master: File,
    child: Child,
    chunks: Receiver<Vec<u8>>,
    shown: String,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

// === impl Terminal ===

impl Terminal {
    /// Starts a program on a new terminal.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        let pty = openpty(&size(columns, rows), None).expect("a pseudo-terminal");
        let side = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("the program starts");
        // The program has the only other ends: the terminal ends with it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(pty.slave);
        let master = File::from(pty.master);
        let mut reader = master.try_clone().expect("a descriptor");
        let (sender, chunks) = mpsc::channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut chunk) {
                if sender.send(chunk[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { master, child, chunks, shown: String::new() }
    }

    /// Waits until the text is shown; answers all that was shown up to now, and forgets it.
    ///
    /// # Panics
    /// When it is not shown.
    pub fn shows(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.shown.push_str(&String::from_utf8_lossy(&chunk)),
                Err(_) => panic!("{text:?} is not shown, but {:?}", self.shown),
            }
        }
        std::mem::take(&mut self.shown)
    }

    /// # Panics
    /// When the terminal is gone.
    pub fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = size(columns, rows);
        // SAFETY: the descriptor is a terminal's and open, and the request reads one `Winsize`.
        let done = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0, "the terminal takes a size");
        // It is not the program's controlling terminal, so the kernel tells nobody.
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGWINCH).expect("the program runs");
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// When it does not come.
    pub fn ends(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                while let Ok(chunk) = self.chunks.recv_timeout(Duration::from_millis(200)) {
                    self.shown.push_str(&String::from_utf8_lossy(&chunk));
                }
                return (status, std::mem::take(&mut self.shown));
            }
            assert!(Instant::now() < deadline, "the program does not end; it shows {:?}", self.shown);
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
