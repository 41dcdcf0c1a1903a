//! `xebec-control`: the Kubernetes control plane in one process.
//!
//! In: a command line. Out: a running API server, scheduler and controllers, or files signed by the cluster's CA. A
//! mistake gets one sentence and an exit code that is not 0.

mod backup;
mod bootstrap_tokens;
mod certs;
mod cli;
mod compaction;
mod data_dir;
mod files;
mod kubeconfig;
mod limits;
mod log;
mod node_certs;
mod pki;
mod renewal;
mod restore;
mod run;
mod server;
mod signals;
mod signers;
mod tls;
mod token_create;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    let outcome = match arguments.command {
        cli::Command::Run(arguments) => run::run(&arguments),
        cli::Command::Kubeconfig(arguments) => kubeconfig::write(&arguments),
        cli::Command::NodeCerts(arguments) => node_certs::write(&arguments),
        cli::Command::Backup(arguments) => backup::write(&arguments),
        cli::Command::Restore(arguments) => restore::restore(&arguments),
        cli::Command::Certs(arguments) => certs::show(&arguments),
        cli::Command::Token { command: cli::TokenCommand::Create(arguments) } => {
            token_create::create(&arguments)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xebec-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}
