//! `xebec-agent`: kubelet and service proxy of one node, its DNS process, and the log sinks of its containers.
//!
//! In: the command line. Out: the part that was asked for. This file only chooses; `run` wires the node together.

mod adapters;
mod cli;
mod cluster;
mod connection;
mod datapath;
mod dns;
mod drain;
mod log;
mod node;
mod peers;
mod run;
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Task};

fn main() -> ExitCode {
    // First of all, and before any thread: a log sink is as small as a process can be.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == xebec_runtime::log_sink::SUBCOMMAND) {
        xebec_runtime::log_sink::main(args);
    }
    let cli = Cli::parse();
    log::init(cli.log_format);
    let outcome = match cli.task {
        Task::Run(args) => run::main(&args),
        Task::Dns(args) => dns::main(&args),
        Task::Drops(args) => datapath::print_drops(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
