//! Talks to services from where a pod stands, and notices everything that is late or lost.
//!
//! In: `--join PID` (whose network namespace and cgroup to enter first), then either `--serve PORT` (an echo server) or any of
//! `--connect ADDRESS:PORT` with `--connections N` (ping-pong on live connections) and `--dns ADDRESS --name NAME --rate N`.
//! Out: `ready` on stdout once all stands; at the end of stdin one line of JSON, see `load::Report`.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use xebec_tests::load::{Dns, Report, join, query_at_rate, talk};

#[derive(Default)]
struct Options {
    join: Option<i32>,
    serve: Option<u16>,
    connect: Vec<SocketAddr>,
    connections: usize,
    dns: Vec<SocketAddr>,
    name: String,
    rate: u32,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
            match argument.as_str() {
                "--join" => options.join = Some(value.parse()?),
                "--serve" => options.serve = Some(value.parse()?),
                "--connect" => options.connect.push(value.parse()?),
                "--connections" => options.connections = value.parse()?,
                "--dns" => options.dns.push(value.parse()?),
                "--name" => options.name = value,
                "--rate" => options.rate = value.parse()?,
                other => bail!("unknown argument {other:?}"),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    match Options::read().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if let Some(pid) = options.join {
        join(pid)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(port) = options.serve {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
            listener.set_nonblocking(true)?;
            tokio::spawn(xebec_tests::load::echo(tokio::net::TcpListener::from_std(listener)?));
            return until_told(Report::default).await;
        }
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut talkers = tokio::task::JoinSet::new();
        for target in &options.connect {
            for _ in 0..options.connections {
                let stream = tokio::net::TcpStream::connect(target).await;
                let stream = stream.with_context(|| format!("connecting to {target}"))?;
                talkers.spawn(talk(stream, *target, stopped.clone()));
            }
        }
        for server in &options.dns {
            let dns = Dns { server: *server, name: options.name.clone(), rate: options.rate };
            talkers.spawn(query_at_rate(dns, stopped.clone()));
        }
        until_told_then(stop, talkers).await
    })
}

async fn until_told_then(
    stop: tokio::sync::watch::Sender<bool>,
    mut talkers: tokio::task::JoinSet<Report>,
) -> Result<()> {
    wait_for_end().await?;
    stop.send_replace(true);
    let mut report = Report::default();
    while let Some(part) = talkers.join_next().await {
        report.add(&part?);
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn until_told(report: impl FnOnce() -> Report) -> Result<()> {
    wait_for_end().await?;
    println!("{}", serde_json::to_string(&report())?);
    Ok(())
}

/// Says that all stands, and waits for the end of stdin.
async fn wait_for_end() -> Result<()> {
    println!("ready");
    std::io::stdout().flush()?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
