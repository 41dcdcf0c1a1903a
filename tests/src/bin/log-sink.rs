//! A program that can be a log sink and nothing else: what the suites give containerd instead of the agent.
//!
//! In: what containerd's shim hands a log sink. Out: log files.

fn main() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == xebec_runtime::log_sink::SUBCOMMAND) {
        xebec_runtime::log_sink::main(args);
    }
    std::process::exit(2);
}
