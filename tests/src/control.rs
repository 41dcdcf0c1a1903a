//! A control plane of a test's own: the real program on loopback, its data in a temporary folder.
//!
//! In: the built program. Out: a process that can be killed and started again, clients and kubeconfigs for it.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::skip::skipped;

/// How long a start may take before the test gives up.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

/// One control plane. Killed with the test.
pub struct Control {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    /// Beside what every test needs.
    extra: Vec<String>,
    data: Option<PathBuf>,
    child: Option<Child>,
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub resident: u64,
    /// The most since it was last forgotten.
    pub peak: u64,
}

// === impl Control ===

impl Control {
    /// A control plane that answers; `None`, said as skipped, where the program was not built.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(test: &str) -> Option<Self> {
        let mut control = Self::prepare(test)?;
        control.spawn();
        control.ready().await;
        Some(control)
    }

    /// The same before its first start.
    ///
    /// # Panics
    /// When there is no room for its folder.
    pub fn prepare(test: &str) -> Option<Self> {
        let Some(program) = program() else {
            skipped(test, "xebec-control is not built: run by `cargo xtask test`, or build it first");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("xebec-test-").tempdir().expect("a temporary folder");
        Some(Self { program, folder, port: free_port(), extra: Vec::new(), data: None, child: None })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| self.folder.path().join("data"))
    }

    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// What the program is run with.
    pub fn arguments(&self) -> Vec<String> {
        let data = self.data_dir().display().to_string();
        let arguments = [
            ("--data-dir", data.as_str()),
            ("--advertise-address", "127.0.0.1"),
            ("--bind-address", "127.0.0.1"),
            ("--secure-port", &self.port.to_string()),
            ("--service-cidr", "10.96.0.0/16,fd00:96::/112"),
            ("--cluster-cidr", "10.244.0.0/16,fd00:244::/56"),
        ]
        .map(|(flag, value)| format!("{flag}={value}"));
        std::iter::once("run".to_owned()).chain(arguments).chain(self.extra.iter().cloned()).collect()
    }

    /// Adds to what the program is run with, before its start.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.extra.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Keeps the data somewhere else than in the test's folder, before the first start.
    #[must_use]
    pub fn with_data_in(mut self, folder: PathBuf) -> Self {
        self.data = Some(folder);
        self
    }

    pub fn address(&self) -> std::net::SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What the process takes now.
    ///
    /// # Panics
    /// When there is none.
    pub fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(self.proc("status")).expect("a running process");
        let of = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Memory { resident: of("VmRSS:"), peak: of("VmHWM:") }
    }

    /// Peaks are counted from now on.
    ///
    /// # Panics
    /// When there is no process, or it is not this user's.
    pub fn forget_peak(&self) {
        std::fs::write(self.proc("clear_refs"), "5").expect("root may");
    }

    /// Open files and connections of the process.
    ///
    /// # Panics
    /// When there is none.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).expect("a running process").count()
    }

    fn proc(&self, file: &str) -> PathBuf {
        let pid = self.child.as_ref().expect("a running process").id();
        PathBuf::from(format!("/proc/{pid}/{file}"))
    }

    /// Starts the process, which must not be running.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = Command::new(&self.program);
        command.args(self.arguments()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("xebec-control starts"));
    }

    /// Waits until the API server says that it is ready.
    ///
    /// # Panics
    /// When it ends instead, or takes too long.
    pub async fn ready(&mut self) {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.ended() {
                panic!("xebec-control ended with {status}:\n{}", self.log());
            }
            if self.answers().await {
                return;
            }
            assert!(Instant::now() < deadline, "xebec-control is not ready:\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// # Panics
    /// When there is no process.
    pub fn pid(&self) -> i32 {
        let pid = self.child.as_ref().expect("a running process").id();
        i32::try_from(pid).expect("a pid")
    }

    /// Ends the process without warning.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running process");
        child.kill().expect("SIGKILL reaches the process");
        child.wait().expect("the process is reaped");
    }

    /// Waits for a process that ends by itself.
    ///
    /// # Panics
    /// When it goes on.
    pub async fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.ended() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "xebec-control does not end:\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks the process to end, and waits for it.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn terminate(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).expect("SIGTERM is sent");
        self.end().await
    }

    /// Runs another instance to its end, with arguments of the test's choice.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn run(&self, arguments: &[String]) -> Output {
        Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("xebec-control starts")
    }

    /// A kubeconfig for an administrator.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        if !path.exists() {
            let made = self.try_kubeconfig(&path);
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        path
    }

    /// A client of its own connection, as an administrator.
    ///
    /// # Panics
    /// When the kubeconfig is no good.
    pub async fn client(&self) -> kube::Client {
        client_of(&self.kubeconfig()).await.expect("the kubeconfig works")
    }

    /// A client without credentials.
    ///
    /// # Panics
    /// When the address is none.
    pub fn anonymous(&self) -> kube::Client {
        let mut config = kube::Config::new(self.server().parse().expect("a URL"));
        config.accept_invalid_certs = true;
        kube::Client::try_from(config).expect("a client")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("control.log")
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    fn try_kubeconfig(&self, path: &Path) -> Output {
        let arguments = [
            "kubeconfig".to_owned(),
            "--admin".to_owned(),
            format!("--server={}", self.server()),
            format!("--data-dir={}", self.data_dir().display()),
            format!("--out={}", path.display()),
        ];
        self.run(&arguments)
    }

    async fn answers(&self) -> bool {
        let path = self.folder.path().join("kubeconfig");
        if !path.exists() && !self.try_kubeconfig(&path).status.success() {
            return false;
        }
        let Ok(client) = client_of(&path).await else { return false };
        let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
        let asked = tokio::time::timeout(Duration::from_secs(2), client.request_text(request));
        matches!(asked.await, Ok(Ok(_)))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

async fn client_of(path: &Path) -> Result<kube::Client, Box<dyn std::error::Error>> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(2));
    Ok(kube::Client::try_from(config)?)
}

/// The program under test: from the folder that `cargo xtask test` names, else beside the test itself.
fn program() -> Option<PathBuf> {
    let folder = match std::env::var_os("XEBEC_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe().ok()?.parent()?.parent()?.to_path_buf(),
    };
    Some(folder.join("xebec-control")).filter(|program| program.exists())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}
