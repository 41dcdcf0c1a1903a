//! Clients that are slow, deaf, many, or out to confuse: each is bounded in what it holds and for how long, and the others
//! notice nothing.
//!
//! In: the real program, bare TLS. Out: a verdict per kind of bad client. `XEBEC_SOAK` brings as many of each as there may be.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use xebec_tests::api::{JSON, Sender};
use xebec_tests::control::Control;
use xebec_tests::tls::{Dialer, Identity, identity, read_to_end};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HTTP1: &[u8] = b"http/1.1";
const SOON: Duration = Duration::from_secs(10);

fn many(usual: usize, soak: usize) -> usize {
    if std::env::var_os("XEBEC_SOAK").is_some() { soak } else { usual }
}

fn admin(control: &Control) -> Identity {
    identity(control, |_| {})
}

/// Opens connections, a few at a time.
async fn dial(dialer: &Dialer, count: usize) -> Vec<TlsStream<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let some = (0..16.min(count - streams.len())).map(|_| dialer.dial());
        let some: Vec<_> = futures::future::join_all(some).await;
        streams.extend(some.into_iter().map(|stream| stream.expect("a connection")));
    }
    streams
}

/// How long reads and writes of an ordinary client take, for a while: the slowest but one in a hundred.
async fn ordinary(control: &Control, calls: usize) -> Duration {
    let sender = Sender::new(control).await;
    let mut took = Vec::with_capacity(calls);
    for call in 0..calls {
        let name = format!("ordinary-{call}");
        let body = json!({"metadata": {"name": name}}).to_string();
        let began = Instant::now();
        let made = sender.post(MAPS, JSON, body).await;
        took.push(began.elapsed());
        assert_eq!(made.code, 201, "{made:?}");
        let began = Instant::now();
        let gone = sender.send(http::Method::DELETE, &format!("{MAPS}/{name}"), "", "").await;
        took.push(began.elapsed());
        assert_eq!(gone.code, 200, "{gone:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Asserts that an ordinary client is as well off as before, with room for the noise of a busy machine.
fn unaffected(quiet: Duration, loaded: Duration) {
    println!("p99 {quiet:?} before, {loaded:?} beside them");
    assert!(loaded < quiet * 2 + Duration::from_millis(250), "{loaded:?} after {quiet:?}");
}

/// Says one byte a second until it is cut; answers how long that took.
async fn trickle(mut stream: TlsStream<TcpStream>, begin: &[u8]) -> Duration {
    let began = Instant::now();
    if stream.write_all(begin).await.is_err() {
        return began.elapsed();
    }
    let mut heard = [0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut heard) => if !matches!(read, Ok(1..)) { return began.elapsed() },
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if stream.write_all(b"x").await.is_err() {
                    return began.elapsed();
                }
            }
        }
    }
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_and_hold_up_nobody() {
    let Some(control) = Control::start("api_bad_clients").await else { return };
    let quiet = ordinary(&control, 50).await;
    let heads = Dialer::new(&control, None, HTTP1);
    let bodies = Dialer::new(&control, Some(admin(&control)), HTTP1);
    let before = control.memory().resident;
    let mut slow = JoinSet::new();
    // More than may write at once.
    for stream in dial(&bodies, many(250, 2500)).await {
        let head = format!("POST {MAPS} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{{");
        slow.spawn(async move { trickle(stream, head.as_bytes()).await });
    }
    for stream in dial(&heads, many(250, 2500)).await {
        slow.spawn(trickle(stream, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "));
    }
    unaffected(quiet, ordinary(&control, 50).await);
    let grown = control.memory().resident.saturating_sub(before) / 1024;
    let count = slow.len();
    assert!(grown as usize * 1024 / count < 200, "{grown} MiB for {count} connections");
    let mut longest = Duration::ZERO;
    while let Some(cut) = slow.join_next().await {
        longest = longest.max(cut.expect("a slow client"));
    }
    println!("{count} slow clients took {grown} MiB, the last was cut after {longest:?}");
    assert!(longest < Duration::from_secs(45), "{longest:?}");
}

#[tokio::test]
async fn who_never_reads_is_cut_and_the_others_are_served() {
    let Some(control) = Control::start("api_bad_clients").await else { return };
    let quiet = ordinary(&control, 50).await;
    let before = (control.descriptors(), control.memory().resident);
    let dialer = Dialer::new(&control, Some(admin(&control)), HTTP1);
    let count = many(150, 1000);
    let mut deaf = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = socket.connect(control.address()).await.expect("a connection");
        let mut stream = dialer.over(stream).await.expect("a handshake");
        let watch = format!("GET {MAPS}?watch=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(watch.as_bytes()).await.expect("a request");
        deaf.push(stream);
    }
    let mut reader = dialer.dial().await.expect("a connection");
    let watch = format!("GET {MAPS}?watch=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    reader.write_all(watch.as_bytes()).await.expect("a request");
    let sender = Sender::new(&control).await;
    let (writes, size) = (12, 500_000);
    for write in 0..writes {
        let body = json!({"metadata": {"name": format!("large-{write}")}, "data": {"k": "x".repeat(size)}});
        assert_eq!(sender.post(MAPS, JSON, body.to_string()).await.code, 201);
    }
    let mut heard = vec![0; 1 << 20];
    let mut total = 0;
    let all = tokio::time::timeout(SOON, async {
        while total < writes * size {
            total += reader.read(&mut heard).await.expect("events");
        }
    });
    assert!(all.await.is_ok(), "who reads was sent {total} bytes only");
    unaffected(quiet, ordinary(&control, 50).await);
    let grown = control.memory().resident.saturating_sub(before.1) / 1024;
    // What the writes themselves leave, and for each deaf client what was under way to it.
    assert!(grown < 64 + count as u64, "{grown} MiB for {count} deaf watchers");
    let began = Instant::now();
    while control.descriptors() > before.0 + 20 {
        assert!(began.elapsed() < Duration::from_secs(100), "{} are left", control.descriptors() - before.0);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{count} deaf watchers took {grown} MiB and were cut {:?} later", began.elapsed());
    assert_eq!(deaf.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_watches_see_every_change() {
    let Some(control) = Control::start("api_bad_clients").await else { return };
    let quiet = ordinary(&control, 50).await;
    let before = control.memory().resident;
    let dialer = Dialer::new(&control, Some(admin(&control)), b"h2");
    // As many as one connection may have.
    let (connections, streams) = (many(20, 100), 100);
    let mut watches = JoinSet::new();
    for stream in dial(&dialer, connections).await {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        for _ in 0..streams {
            let mut sender = sender.clone();
            let selector = "fieldSelector=metadata.name%3Dseen";
            let uri = format!("https://kubernetes{MAPS}?watch=1&{selector}");
            let request = http::Request::get(uri).body(Empty::<Bytes>::new()).expect("a request");
            let answer = sender.send_request(request).await.expect("a watch");
            assert_eq!(answer.status(), 200);
            watches.spawn(async move {
                let mut body = answer.into_body();
                let frame = body.frame().await.expect("an event").expect("a whole one");
                let data = frame.into_data().expect("data");
                (Instant::now(), data.starts_with(b"{\"type\":\"ADDED\""))
            });
        }
    }
    let grown = control.memory().resident.saturating_sub(before) / 1024;
    let count = watches.len();
    unaffected(quiet, ordinary(&control, 50).await);
    let sender = Sender::new(&control).await;
    let began = Instant::now();
    assert_eq!(sender.post(MAPS, JSON, r#"{"metadata":{"name":"seen"}}"#).await.code, 201);
    let mut last = began;
    while let Some(seen) = watches.join_next().await {
        let (at, added) = seen.expect("a watch");
        assert!(added);
        last = last.max(at);
    }
    println!("{count} watches took {grown} MiB; the last saw it after {:?}", last - began);
    assert!(last - began < SOON, "{:?}", last - began);
    assert!(grown as usize * 1024 / count < 100, "{grown} MiB for {count}");
}

#[tokio::test]
async fn idle_connections_cost_little() {
    let Some(control) = Control::start("api_bad_clients").await else { return };
    let quiet = ordinary(&control, 50).await;
    let before = control.memory().resident;
    let count = many(400, 10_000);
    let idle = dial(&Dialer::new(&control, None, HTTP1), count).await;
    let grown = control.memory().resident.saturating_sub(before);
    unaffected(quiet, ordinary(&control, 50).await);
    println!("{count} idle connections: {grown} KiB");
    assert!(grown as usize / count < 100, "{grown} KiB for {count}");
    drop(idle);
}

#[tokio::test]
async fn records_that_are_none_end_the_connection() {
    let Some(control) = Control::start("api_bad_clients").await else { return };
    for begin in [
        // A handshake record without bytes.
        &b"\x16\x03\x01\x00\x00"[..],
        b"\x17\x03\x03\x00\x00",
        b"\x15\x03\x03\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x00\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(control.address()).await.expect("a connection");
        let began = Instant::now();
        let mut heard = [0; 256];
        // Again and again, as long as it is taken.
        loop {
            if stream.write_all(begin).await.is_err() {
                break;
            }
            let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut heard)).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{begin:?} goes on");
        }
    }
    ordinary(&control, 5).await;
}

async fn said(dialer: &Dialer, bytes: &[u8]) -> (String, bool) {
    let mut stream = dialer.dial().await.expect("a connection");
    stream.write_all(bytes).await.ok();
    read_to_end(&mut stream, Duration::from_secs(2)).await
}

fn statuses(answers: &str) -> Vec<u16> {
    let after = answers.split("HTTP/1.1 ").skip(1);
    after.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

#[tokio::test]
async fn requests_are_told_apart() {
    let Some(control) = Control::start("api_bad_clients").await else { return };
    let dialer = Dialer::new(&control, Some(admin(&control)), HTTP1);
    let (answers, _) =
        said(&dialer, b"GET /version HTTP/1.1\r\nHost: a\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
    assert_eq!(statuses(&answers), [200, 404], "pipelined requests are answered in order: {answers}");
    let post = |headers: &str, body: &str| {
        format!("POST {MAPS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}\r\n{body}")
            .into_bytes()
    };
    let map = r#"{"metadata":{"name":"smuggled"}}"#;
    let inner = format!("POST {MAPS} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{map}", map.len());
    for (what, request) in [
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 200\r\n", &format!("{{}}{inner}"))),
        ("a list of lengths", post("Content-Length: 2, 200\r\n", &format!("{{}}{inner}"))),
        ("a signed length", post("Content-Length: +2\r\n", "{}")),
        ("a length of another base", post("Content-Length: 0x2\r\n", "{}")),
        ("an unknown encoding", post("Transfer-Encoding: cow\r\n", "{}")),
        ("chunked, but not last", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        ("a space before the colon", post("Content-Length : 2\r\n", "{}")),
        ("a folded header", post("X-A: a\r\n Content-Length: 2\r\n", "{}")),
        ("a NUL", post("X-A: \0\r\n", "")),
        ("no host, no version", b"GET /version\r\n\r\n".to_vec()),
        ("a chunk without a size", post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n")),
        ("a huge chunk", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}\r\n")),
    ] {
        let (answers, _) = said(&dialer, &request).await;
        let codes = statuses(&answers);
        assert!(codes.len() <= 1 && codes.iter().all(|code| *code == 400), "{what}: {answers}");
    }
    // Both framings: one is believed, by every part of the server alike, and what follows is not another request.
    let both = post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n");
    let (answers, _) = said(&dialer, &both).await;
    assert!(statuses(&answers).len() == 1, "{answers}");
    let names = Sender::new(&control).await.names(MAPS).await;
    assert!(!names.iter().any(|name| name == "smuggled"), "{names:?}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let Some(control) = Control::start("api_bad_clients").await else { return };
    let dialer = Dialer::new(&control, None, HTTP1);
    let get = |rest: String| format!("GET /version HTTP/1.1\r\nHost: a\r\n{rest}\r\n").into_bytes();
    let before = control.memory().resident;
    let fields: String = (0..5000).map(|n| format!("X-{n}: a\r\n")).collect();
    for (what, request, expected) in [
        ("a token of 1 MiB", get(format!("Authorization: Bearer {}\r\n", "x".repeat(1 << 20))), &[431][..]),
        ("a token of 100 KiB", get(format!("Authorization: Bearer {}\r\n", "x".repeat(100 << 10))), &[401]),
        ("many fields", get(fields), &[431]),
        (
            "a long path",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100 << 10)).into_bytes(),
            &[414, 431],
        ),
        ("no end", format!("GET /{}", "x".repeat(2 << 20)).into_bytes(), &[414, 431]),
    ] {
        let (answers, _) = said(&dialer, &request).await;
        let codes = statuses(&answers);
        assert!(codes.len() == 1 && expected.contains(&codes[0]), "{what}: {codes:?}");
    }
    let grown = control.memory().resident.saturating_sub(before) / 1024;
    assert!(grown < 32, "{grown} MiB");
}

#[tokio::test]
async fn certificates_that_do_not_hold_open_nothing() {
    let Some(control) = Control::start("api_bad_clients").await else { return };
    let get = format!("GET {MAPS} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut bad: Vec<(&str, Identity)> = vec![
        (
            "expired",
            identity(&control, |params| {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            }),
        ),
        (
            "not yet valid",
            identity(&control, |params| {
                params.not_before = date_time_ymd(2100, 1, 1);
                params.not_after = date_time_ymd(2101, 1, 1);
            }),
        ),
        (
            "for servers",
            identity(&control, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
        ),
    ];
    let Some(other) = Control::start("api_bad_clients").await else { return };
    bad.push(("another cluster's", admin(&other)));
    for (what, identity) in bad {
        let began = Instant::now();
        let dialer = Dialer::new(&control, Some(identity), HTTP1);
        // TLS 1.3 tells a client only after its own handshake is done.
        if let Ok(mut stream) = dialer.dial().await {
            stream.write_all(get.as_bytes()).await.ok();
            let (answers, ended) = read_to_end(&mut stream, SOON).await;
            assert!(ended && (answers.is_empty() || statuses(&answers) == [401]), "{what}: {answers}");
        }
        assert!(began.elapsed() < SOON, "{what}: {:?}", began.elapsed());
    }
    // As many names as a certificate has room for are read in no time.
    let named = identity(&control, |params| {
        let name = |n: u32| SanType::DnsName(format!("name-{n}.example").try_into().expect("a name"));
        params.subject_alt_names = (0..2_000).map(name).collect();
    });
    for identity in [named, admin(&control)] {
        let began = Instant::now();
        let (answers, _) = said(&Dialer::new(&control, Some(identity), HTTP1), get.as_bytes()).await;
        assert_eq!(statuses(&answers), [200], "{answers}");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

/// `429` to those for whom there is no room, and when to come back.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_be_at_work_are_told_to_come_back() {
    let Some(control) = Control::prepare("api_bad_clients") else { return };
    let mut control = control.with(&["--max-mutating-requests-inflight=1"]);
    control.spawn();
    control.ready().await;
    let dialer = Dialer::new(&control, Some(admin(&control)), HTTP1);
    let mut asked = JoinSet::new();
    for (client, stream) in dial(&dialer, 64).await.into_iter().enumerate() {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1");
        tokio::spawn(connection);
        asked.spawn(async move {
            let mut seen = Vec::new();
            for call in 0..20 {
                let body = json!({"metadata": {"name": format!("m-{client}-{call}")}, "data": {"k": "x".repeat(10_000)}});
                let request = http::Request::post(MAPS).header("host", "a").header("content-type", JSON);
                let request = request.body(Full::<Bytes>::from(body.to_string())).expect("a request");
                let answer = sender.send_request(request).await.expect("an answer");
                seen.push((answer.status().as_u16(), answer.headers().get("retry-after").cloned()));
                answer.into_body().collect().await.expect("a whole answer");
            }
            seen
        });
    }
    let (mut made, mut refused) = (0, 0);
    while let Some(seen) = asked.join_next().await {
        for (code, retry) in seen.expect("a client") {
            match code {
                201 => made += 1,
                429 => {
                    assert_eq!(retry.as_ref().map(http::HeaderValue::as_bytes), Some(&b"1"[..]));
                    refused += 1;
                }
                other => panic!("{other}"),
            }
        }
    }
    println!("{made} made, {refused} told to come back");
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
    let names = Sender::new(&control).await.names(MAPS).await;
    assert_eq!(
        names.iter().filter(|name| name.starts_with("m-")).count(),
        made,
        "what was refused is not there"
    );
}

/// A listener that takes connections and never says anything.
async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn a_kubelet_that_says_nothing_is_given_up() {
    let Some(control) = Control::start("api_bad_clients").await else { return };
    let sender = Sender::new(&control).await;
    let kubelet = silent().await;
    let node = json!({"metadata": {"name": "deaf"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port()}},
    }});
    assert_eq!(sender.post("/api/v1/nodes", JSON, node.to_string()).await.code, 201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "deaf", "containers": [{"name": "c", "image": "x"}],
    }});
    let pods = "/api/v1/namespaces/default/pods";
    let mut made = sender.post(pods, JSON, pod.to_string()).await;
    let began = Instant::now();
    // The namespace's ServiceAccount may not be there yet.
    while made.code == 403 && began.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(50)).await;
        made = sender.post(pods, JSON, pod.to_string()).await;
    }
    assert_eq!(made.code, 201, "{made:?}");
    let dialer = Dialer::new(&control, Some(admin(&control)), HTTP1);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
    let mut asked = JoinSet::new();
    for path in [
        format!("{pods}/p/exec?command=sh&stdout=1"),
        format!("{pods}/p/attach?stdout=1"),
        format!("{pods}/p/portforward?ports=80"),
        "/api/v1/nodes/deaf/proxy/exec/default/p/c?command=sh&output=1".to_owned(),
    ] {
        let dialer = dialer.clone();
        asked.spawn(async move {
            let mut stream = dialer.dial().await.expect("a connection");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n");
            stream.write_all(request.as_bytes()).await.expect("a request");
            let mut heard = vec![0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(45), stream.read(&mut heard)).await;
            let length = read.unwrap_or_else(|_| panic!("{path}: nothing")).expect("an answer");
            (path, String::from_utf8_lossy(&heard[..length]).into_owned())
        });
    }
    ordinary(&control, 20).await;
    while let Some(answer) = asked.join_next().await {
        let (path, answer) = answer.expect("an answer");
        assert_eq!(statuses(&answer), [500], "{path}: {answer}");
        assert!(answer.contains("error dialing backend"), "{path}: {answer}");
    }
    println!("given up after {:?}", began.elapsed());
}
