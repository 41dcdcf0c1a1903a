//! Everything that is done with this workspace: set up, build, run, test.
//!
//! In: `cargo xtask <command>`. Out: what each command's help says. Tools are taken from PATH or fetched below
//! `target/tools`; nothing is installed into the system.

mod apt;
mod bench;
mod build;
mod cgroup;
mod command;
mod down;
mod ebpf;
mod footprint;
mod hub;
mod images;
mod interrupt;
mod layout;
mod namespace;
mod oci;
mod process;
mod progress;
mod schema;
mod test;
mod tidy;
mod tools;
mod up;

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::layout::{Cluster, Workspace};
use crate::namespace::Place;
use crate::progress::Progress;
use crate::tools::Tools;

/// Work with the Xebec workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Set up everything, build, and run a development cluster; ends with a served request.
    Up {
        /// Number of nodes.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
        nodes: u8,
        /// The cluster's folder [default: target/xebec].
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Build with optimisation.
        #[arg(long)]
        release: bool,
        /// Leave out the demonstration Deployment and Service.
        #[arg(long)]
        bare: bool,
        /// Build nothing, take the programs from this folder.
        #[arg(long, hide = true)]
        built: Option<PathBuf>,
    },
    /// Stop a development cluster and remove all it made outside its folder.
    Down {
        /// The cluster's folder [default: target/xebec].
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Remove the folder too.
        #[arg(long)]
        purge: bool,
    },
    /// Build the eBPF programs.
    Ebpf,
    /// Build the container images from Debian packages.
    Images,
    /// Set up everything and run every check and test.
    Test {
        /// Only suites whose `<package> <target>` contains this.
        filter: Option<String>,
        /// Also what takes long.
        #[arg(long)]
        soak: bool,
    },
    /// Measure; exit code 0 only if every goal holds.
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Check the rules of the tree.
    Tidy,
    /// (internal) A bare machine beside a cluster's nodes.
    #[command(hide = true)]
    Machine {
        name: String,
        /// The cluster's folder [default: target/xebec].
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Take it away again.
        #[arg(long)]
        remove: bool,
        /// Run on it.
        #[arg(last = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// (internal) Serve a hub's registry and DNS.
    #[command(hide = true)]
    Hub {
        #[arg(long)]
        dir: PathBuf,
    },
    /// (internal) Keep a node's namespaces.
    #[command(hide = true)]
    Hold {
        #[command(flatten)]
        place: PlaceArgs,
        #[arg(long)]
        hostname: String,
        #[arg(long)]
        node_dir: PathBuf,
        #[arg(long)]
        control_dir: Option<PathBuf>,
        #[arg(long)]
        bin_dir: PathBuf,
    },
    /// (internal) Become a program inside a node.
    #[command(hide = true)]
    Enter {
        #[command(flatten)]
        place: PlaceArgs,
        #[arg(long)]
        uid: Option<u32>,
        #[arg(last = true, required = true)]
        program: Vec<std::ffi::OsString>,
    },
}

#[derive(clap::Args)]
struct PlaceArgs {
    #[arg(long)]
    cgroup: PathBuf,
    #[arg(long)]
    netns: Option<String>,
    #[arg(long)]
    holder: Option<i32>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::current()?;
    let cluster_dir = |dir: Option<PathBuf>| dir.unwrap_or_else(|| workspace.default_cluster_dir());
    match task {
        Task::Up { nodes, dir, release, bare, built } => {
            up::up(&up::UpOptions { dir: cluster_dir(dir), nodes, release, bare, built })
        }
        Task::Down { dir, purge } => down::down(&down::DownOptions { dir: cluster_dir(dir), purge }),
        Task::Ebpf => Progress::new().phase("eBPF programs", |_| {
            println!("{}", build::ebpf_object(&workspace)?.display());
            Ok(())
        }),
        Task::Images => Progress::new().phase("images", |note| {
            println!("{}", images::build(&workspace, &Tools::new(&workspace), note)?.display());
            Ok(())
        }),
        Task::Test { filter, soak } => test::test(&test::TestOptions { filter, soak }),
        Task::Bench { what } => bench::bench(&what),
        Task::Tidy => tidy::tidy(&workspace),
        Task::Machine { name, dir, remove, command } => {
            up::machine(&up::MachineOptions { dir: cluster_dir(dir), name, remove, command })
        }
        Task::Hub { dir } => run_hub(&workspace, &dir),
        Task::Hold { place, hostname, node_dir, control_dir, bin_dir } => {
            namespace::hold(&place.into(), &hostname, &node_dir, control_dir.as_deref(), &bin_dir)
        }
        Task::Enter { place, uid, program } => enter(&place.into(), uid, &program),
    }
}

fn run_hub(workspace: &Workspace, dir: &std::path::Path) -> Result<()> {
    let cluster = Cluster::at(dir)?;
    let state: up::State = serde_json::from_slice(&std::fs::read(cluster.state_file())?)?;
    let addresses: Vec<IpAddr> = state.subnet.hub().to_vec();
    let resolvers = hub::resolvers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    hub::run(hub::HubConfig { netns: cluster.netns("hub"), addresses, images: workspace.images(), resolvers })
}

/// Joins the place and becomes the program; returns only on failure.
fn enter(place: &Place, uid: Option<u32>, program: &[std::ffi::OsString]) -> Result<()> {
    namespace::enter(place)?;
    let (name, args) = program.split_first().context("no program was named")?;
    let mut command = Command::new(name);
    command.args(args).current_dir("/");
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    Err(command.exec()).with_context(|| format!("running {}", name.display()))
}

impl From<PlaceArgs> for Place {
    fn from(args: PlaceArgs) -> Self {
        Self { cgroup: args.cgroup, netns: args.netns, holder: args.holder }
    }
}
