//! Real kubectl, as a user runs it.
//!
//! In: the program that `XEBEC_KUBECTL` names (else the one in PATH), a kubeconfig. Out: output and exit code.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;

/// kubectl against one server.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

/// What a call said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub error: String,
}

/// A call that goes on, such as a watch. Ends with the test.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

/// How long a call that goes on may take for its next line.
const LINE: Duration = Duration::from_secs(30);

// === impl Running ===

impl Running {
    /// The next line on standard output.
    ///
    /// # Panics
    /// When none comes.
    pub fn line(&mut self) -> String {
        self.lines.recv_timeout(LINE).expect("kubectl prints another line")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

// === impl Kubectl ===

impl Kubectl {
    /// `None` where there is no kubectl. `folder` takes its discovery cache.
    pub fn find(kubeconfig: &Path, folder: &Path) -> Option<Self> {
        let program = std::env::var_os("XEBEC_KUBECTL").map(PathBuf::from).or_else(|| {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|program| program.exists())
        })?;
        let (kubeconfig, cache) = (kubeconfig.to_owned(), folder.join("kubectl-cache"));
        program.exists().then_some(Self { program, kubeconfig, cache })
    }

    /// Runs kubectl to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, "")
    }

    /// Runs kubectl with text on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        // It may end without reading.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        let output = child.wait_with_output().expect("kubectl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let (ok, code) = (output.status.success(), output.status.code());
        Said { ok, code, out: text(&output.stdout), error: text(&output.stderr) }
    }

    /// Starts a call that goes on.
    ///
    /// # Panics
    /// When kubectl cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("kubectl starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(arguments);
        command
    }

    /// Standard output of a call that must succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "")
    }

    /// The same with text on its standard input.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let said = self.run_with(arguments, input);
        assert!(said.ok, "kubectl {}: {}", arguments.join(" "), said.error);
        said.out
    }

    /// Standard error of a call that must fail, with the exit code that kubectl has for everything that goes wrong.
    ///
    /// # Panics
    /// When it succeeds, or ends in another way.
    pub fn fails(&self, arguments: &[&str], input: &str) -> String {
        let said = self.run_with(arguments, input);
        assert_eq!(said.code, Some(1), "kubectl {}: {} {}", arguments.join(" "), said.out, said.error);
        said.error
    }

    /// `kubectl … -o json`, read.
    ///
    /// # Panics
    /// When it fails.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["-o", "json"]].concat();
        serde_json::from_str(&self.ok(&arguments)).expect("kubectl prints JSON")
    }
}

/// The lines of what kubectl prints for people, each word one blank from the next.
pub fn squeezed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Checks that lines stand in a text in this order, others between them. One that ends with `…` may go on.
///
/// # Panics
/// When one does not.
#[track_caller]
pub fn shows(text: &str, wanted: &[&str]) {
    let lines = squeezed(text);
    let mut rest = lines.iter();
    for line in wanted {
        let found = rest.any(|found| match line.strip_suffix('…') {
            Some(start) => found.starts_with(start),
            None => found == line,
        });
        assert!(found, "{line:?} is missing, or stands too early:\n{text}");
    }
}
