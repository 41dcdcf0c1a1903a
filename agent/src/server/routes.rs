//! Paths of the kubelet API and what they answer.
//!
//! In: a request and the certificate of its connection. Out: the answer; logs as a stream, exec, attach and port
//! forwarding as an upgraded connection that goes on in the background.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use xebec_kubelet::KnownPod;

use super::answer::{self, Body};
use super::authn::{Unknown, User};
use super::authz::Attributes;
use super::port_forward::{self, Destination};
use super::query::Query;
use super::remote_command::{self, Wanted};
use super::upgrade::Upgrade;
use super::{Served, logs};

/// Refused: the status and the sentence.
type Refused = (StatusCode, String);

/// Answers a request; `known` is cancelled as soon as its sender is.
pub async fn answer(
    mut request: Request<Incoming>,
    certificate: Option<&User>,
    known: &CancellationToken,
    served: &Served,
) -> Response<Body> {
    let user = match served.authenticator.user(certificate, request.headers()).await {
        Ok(user) => user,
        Err(why @ Unknown::Unanswered(_)) => {
            tracing::warn!(%why, "a request is refused");
            return answer::text(StatusCode::UNAUTHORIZED, "Unauthorized");
        }
        Err(why) => {
            tracing::debug!(%why, "a request is refused");
            return answer::text(StatusCode::UNAUTHORIZED, "Unauthorized");
        }
    };
    known.cancel();
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    if let Err(why) = served.authorizer.check(&user, Attributes::of(&method, &path)).await {
        return answer::text(StatusCode::FORBIDDEN, &why);
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let streams = matches!(parts.first(), Some(&("exec" | "attach" | "portForward")));
    let outcome = match (method, parts.as_slice()) {
        (Method::GET | Method::POST, parts) if streams => stream(&mut request, parts, served),
        (Method::GET, parts) => get(request.uri(), parts, served),
        (Method::POST, ["run", rest @ ..]) => run(request.uri(), rest, served).await,
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".to_owned())),
    };
    let response = outcome.unwrap_or_else(|(status, why)| answer::text(status, &why));
    served.metrics.answered(parts.first().copied().unwrap_or_default(), request.method(), response.status());
    response
}

fn get(uri: &Uri, parts: &[&str], served: &Served) -> Result<Response<Body>, Refused> {
    Ok(match parts {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => answer::text(StatusCode::OK, "ok"),
        ["pods"] => pods(served, |_| true),
        ["runningpods"] => pods(served, |known| known.status.phase.as_deref() == Some("Running")),
        ["metrics"] => metrics(served.metrics.text(&served.stats)),
        ["metrics", "resource"] => metrics(served.stats.resource_metrics()),
        ["stats", "summary"] => answer::json(&served.stats.summary()),
        ["containerLogs", namespace, pod, container] => {
            logs::answer(&served.logs, namespace, pod, container, &Query::of(uri))
        }
        _ => return Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    })
}

fn metrics(text: String) -> Response<Body> {
    answer::respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into())
}

/// The pods this kubelet knows, as a PodList with their newest statuses.
fn pods(served: &Served, wanted: impl Fn(&KnownPod) -> bool) -> Response<Body> {
    let known = served.pods.all().into_iter().filter(wanted);
    let items: Vec<Pod> = known
        .map(|known| {
            let mut pod = (*known.pod).clone();
            pod.status = Some((*known.status).clone());
            pod
        })
        .collect();
    answer::json(
        &serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }),
    )
}

/// exec, attach, portForward: paths with or without the pod's uid.
fn stream(
    request: &mut Request<Incoming>,
    parts: &[&str],
    served: &Served,
) -> Result<Response<Body>, Refused> {
    let query = Query::of(request.uri());
    let bad = |why: &str| (StatusCode::BAD_REQUEST, why.to_owned());
    let permit = served.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "too many streams".to_owned()))?;
    match parts {
        ["portForward", namespace, pod, uid @ ..] if uid.len() < 2 => {
            let known = find(served, namespace, pod, uid.first().copied())?;
            let (namespace, name, uid) = ((*namespace).to_owned(), (*pod).to_owned(), known.uid().to_owned());
            if served.loopback(&namespace, &name, &uid).is_none() {
                return Err(bad(&format!("pod {name:?} is not running")));
            }
            let headers = request.headers();
            let upgrade = Upgrade::negotiate(headers, port_forward::WEB_SOCKET, port_forward::SPDY)?;
            let ports = query.ports("port").map_err(|why| bad(&why))?;
            let destination = destination(served.clone(), namespace, name, uid);
            let (response, on) = (upgrade.response(), hyper::upgrade::on(request));
            tokio::spawn(async move {
                let _permit = permit;
                if let Some(upgraded) = upgraded(on).await {
                    port_forward::serve(upgraded, &upgrade, destination, ports).await;
                }
            });
            Ok(response)
        }
        [what @ ("exec" | "attach"), namespace, pod, rest @ ..] if rest.len() == 1 || rest.len() == 2 => {
            let (uid, container) =
                if let [uid, container] = rest { (Some(*uid), *container) } else { (None, rest[0]) };
            let known = find(served, namespace, pod, uid)?;
            let wanted = Wanted {
                stdin: query.flag("input"),
                stdout: query.flag("output"),
                stderr: query.flag("error"),
                tty: query.flag("tty"),
            };
            let command = query.all("command");
            if *what == "exec" && command.is_empty() {
                return Err(bad("you must specify a command"));
            }
            let wanted = wanted.check().map_err(bad)?;
            let headers = request.headers();
            let upgrade = Upgrade::negotiate(headers, remote_command::WEB_SOCKET, remote_command::SPDY)?;
            let process = Process::of(&known, container)?;
            let response = upgrade.response();
            let on = hyper::upgrade::on(request);
            let runs = if *what == "exec" { Runs::Command(command) } else { Runs::Container };
            tokio::spawn(process.join(on, upgrade, wanted, runs, served.clone(), permit));
            Ok(response)
        }
        _ => Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    }
}

fn find(served: &Served, namespace: &str, pod: &str, uid: Option<&str>) -> Result<KnownPod, Refused> {
    let known = served.pods.find(namespace, pod).filter(|known| uid.is_none_or(|uid| known.uid() == uid));
    known.ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist".to_owned()))
}

fn destination(served: Served, namespace: String, pod: String, uid: String) -> Destination {
    let (name, id) = (pod.clone(), uid.clone());
    let loopback = Arc::new(move || served.loopback(&namespace, &name, &id));
    Destination { pod, uid, loopback }
}

async fn upgraded(on: OnUpgrade) -> Option<hyper::upgrade::Upgraded> {
    match on.await {
        Ok(upgraded) => Some(upgraded),
        Err(error) => {
            tracing::debug!(%error, "a connection was not upgraded");
            None
        }
    }
}

/// What a client is joined with.
enum Runs {
    Command(Vec<String>),
    Container,
}

/// A running container.
struct Process {
    id: xebec_runtime::types::ContainerId,
    tty: bool,
    stdin: bool,
    stdin_once: bool,
}

// === impl Process ===

impl Process {
    fn of(known: &KnownPod, container: &str) -> Result<Self, Refused> {
        let missing = || (StatusCode::NOT_FOUND, format!("container not found ({container:?})"));
        let id = known.running(container).ok_or_else(missing)?;
        let spec = known.container(container).ok_or_else(missing)?;
        Ok(Self {
            id,
            tty: spec.tty.unwrap_or(false),
            stdin: spec.stdin.unwrap_or(false),
            stdin_once: spec.stdin_once.unwrap_or(false),
        })
    }

    async fn join(
        self,
        on: OnUpgrade,
        upgrade: Upgrade,
        wanted: Wanted,
        runs: Runs,
        served: Served,
        _permit: OwnedSemaphorePermit,
    ) {
        let Some(upgraded) = upgraded(on).await else { return };
        let client = match remote_command::connect(upgraded, &upgrade, wanted).await {
            Ok(client) => client,
            Err(why) => {
                tracing::debug!(why, "a client opened no streams");
                return;
            }
        };
        match runs {
            Runs::Command(command) => {
                remote_command::exec(client, served.runtime, self.id, command, wanted).await;
            }
            Runs::Container => {
                // Whether there is a terminal is the container's business, not the client's.
                let wanted = Wanted {
                    stdin: wanted.stdin && self.stdin,
                    stderr: wanted.stderr && !self.tty,
                    tty: self.tty,
                    ..wanted
                };
                remote_command::attach(client, served.runtime, self.id, wanted, self.stdin_once).await;
            }
        }
    }
}

/// Runs a command to its end; the answer is what it said.
async fn run(uri: &Uri, rest: &[&str], served: &Served) -> Result<Response<Body>, Refused> {
    use xebec_runtime::types::ContainerRuntime;
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
    let (uid, namespace, pod, container) = match rest {
        [namespace, pod, container] => (None, namespace, pod, container),
        [namespace, pod, uid, container] => (Some(*uid), namespace, pod, container),
        _ => return Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    };
    let process = Process::of(&find(served, namespace, pod, uid)?, container)?;
    let line = Query::of(uri).all("cmd").pop().unwrap_or_default();
    let command: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if command.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "cmd names no command".to_owned()));
    }
    let done = served.runtime.exec(&process.id, &command, LIMIT).await;
    let failed = |why: String| (StatusCode::INTERNAL_SERVER_ERROR, why);
    let done = done.map_err(|error| failed(error.to_string()))?;
    if done.exit_code != 0 {
        let said = String::from_utf8_lossy(&done.output);
        return Err(failed(format!("command '{line}' exited with {}: {said}", done.exit_code)));
    }
    Ok(answer::respond(StatusCode::OK, "text/plain; charset=utf-8", done.output.into()))
}
