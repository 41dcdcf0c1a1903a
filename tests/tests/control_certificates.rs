//! The control plane's certificates: renewed under way, shown to who asks; tokens and what is signed for them.
//!
//! In: the real program with certificates that live for seconds. Out: connections and watches that go on over a renewal.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use xebec_tests::cluster::eventually;
use xebec_tests::control::Control;

const TEST: &str = "control_certificates";
/// Several lives of a certificate.
const LIVES: Duration = Duration::from_secs(90);

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    }
}

fn serving(control: &Control) -> String {
    std::fs::read_to_string(control.data_dir().join("pki/apiserver.crt")).expect("a certificate")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_while_the_certificate_is_renewed() {
    let Some(control) = Control::prepare(TEST) else { return };
    let mut control = control.with(&["--cluster-signing-duration=15s"]);
    control.spawn();
    control.ready().await;
    let api: Api<ConfigMap> = Api::namespaced(control.client().await, "default");
    let version = api.list(&ListParams::default()).await.expect("a list").metadata.resource_version;
    let mut watch =
        api.watch(&WatchParams::default(), &version.unwrap_or_default()).await.expect("a watch").boxed();
    let first = serving(&control);
    let renewed = |before: &str| eventually(LIVES, || serving(&control) != before);
    assert!(tokio::task::block_in_place(|| renewed(&first)), "{}", control.log());
    let second = serving(&control);
    assert!(tokio::task::block_in_place(|| renewed(&second)), "{}", control.log());
    // The first certificate is over by now. The connection that saw it goes on; a new one sees the next.
    api.create(&PostParams::default(), &config_map("under-way"))
        .await
        .expect("a write on the old connection");
    // Others write here, too.
    let seen = async {
        while let Some(event) = watch.next().await {
            match event {
                Ok(WatchEvent::Added(map)) if map.metadata.name.as_deref() == Some("under-way") => {
                    return true;
                }
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
        false
    };
    let seen = tokio::time::timeout(Duration::from_secs(10), seen).await;
    assert_eq!(seen, Ok(true), "the watch goes on");
    let fresh: Api<ConfigMap> = Api::namespaced(control.client().await, "default");
    fresh.get("under-way").await.expect("a read on a new connection");
    let shown = control.run(&["certs".to_owned(), format!("--data-dir={}", control.data_dir().display())]);
    let table = String::from_utf8_lossy(&shown.stdout).into_owned();
    let heads: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(heads, ["CERTIFICATE", "apiserver", "apiserver-kubelet-client", "ca"], "{table}");
    assert!(table.lines().nth(1).is_some_and(|line| line.ends_with("by itself")), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_signed_for_and_expire() {
    let Some(control) = Control::start(TEST).await else { return };
    let create = |ttl: &str| {
        let kubeconfig = format!("--kubeconfig={}", control.kubeconfig().display());
        let made = control.run(&["token".into(), "create".into(), kubeconfig, format!("--ttl={ttl}")]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8_lossy(&made.stdout).trim().to_owned()
    };
    let (lasting, brief) = (create("1h"), create("3s"));
    let id = |line: &str| line.split("--token ").nth(1).expect("a token")[..6].to_owned();
    assert!(
        lasting.starts_with(&format!("xebec-agent run --server {} --token ", control.server())),
        "{lasting}"
    );
    assert!(lasting.contains(" --ca-cert-hash sha256:"), "{lasting}");

    // Anybody may read whom to trust, and nothing else.
    let strangers: Api<ConfigMap> = Api::namespaced(control.anonymous(), "kube-public");
    let signed = |id: String| {
        let strangers = strangers.clone();
        async move {
            let data = strangers.get("cluster-info").await.ok().and_then(|map| map.data).unwrap_or_default();
            data.contains_key(&format!("jws-kubeconfig-{id}"))
        }
    };
    let handle = tokio::runtime::Handle::current();
    let soon = |wanted: bool, id: String| {
        let check = || handle.block_on(signed(id.clone())) == wanted;
        tokio::task::block_in_place(|| eventually(Duration::from_secs(30), check))
    };
    assert!(soon(true, id(&lasting)), "{}", control.log());
    assert!(strangers.list(&ListParams::default()).await.is_err());
    assert!(strangers.get("other").await.is_err());

    assert!(soon(false, id(&brief)), "an expired token is no longer signed for");
    let secrets: Api<Secret> = Api::namespaced(control.client().await, "kube-system");
    let left = |id: String| {
        let secrets = secrets.clone();
        async move { secrets.get_opt(&format!("bootstrap-token-{id}")).await.expect("an answer").is_some() }
    };
    assert!(left(id(&lasting)).await && !left(id(&brief)).await);

    // What somebody breaks is mended.
    let maps: Api<ConfigMap> = Api::namespaced(control.client().await, "kube-public");
    maps.delete("cluster-info", &DeleteParams::default()).await.expect("deleted");
    assert!(soon(true, id(&lasting)));
}
