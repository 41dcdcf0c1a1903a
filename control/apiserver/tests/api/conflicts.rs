//! Many writers of one object.

use serde_json::json;

use crate::harness::{Api, MAPS, MERGE, PODS};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_saw_the_same_one_wins() {
    let api = Api::new().await;
    let mut map = api.make_map("a").await;
    for round in 0..10 {
        let writers = (0..100).map(|writer| {
            let (api, mut mine) = (api.clone(), map.clone());
            mine["data"] = json!({"winner": format!("{round}-{writer}")});
            tokio::spawn(async move { api.put(&format!("{MAPS}/a"), &mine).await.code })
        });
        let codes: Vec<u16> = futures::future::join_all(writers)
            .await
            .into_iter()
            .map(|code| code.expect("no panic"))
            .collect();
        assert_eq!(codes.iter().filter(|&&code| code == 200).count(), 1, "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, 200 | 409 | 429)), "{codes:?}");
        map = api.get(&format!("{MAPS}/a")).await.ok(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_of_different_keys_all_count() {
    let api = Api::new().await;
    api.make_map("a").await;
    let writers = (0..20).map(|writer| {
        let api = api.clone();
        let patch = json!({"data": {format!("k{writer}"): "v"}});
        tokio::spawn(async move { api.patch(&format!("{MAPS}/a"), MERGE, &patch).await.ok(200) })
    });
    for written in futures::future::join_all(writers).await {
        written.expect("written");
    }
    let map = api.get(&format!("{MAPS}/a")).await.ok(200);
    assert_eq!(map["data"].as_object().expect("data").len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_can_be_deleted_while_it_grows() {
    let api = Api::new().await;
    let maker = {
        let api = api.clone();
        tokio::spawn(async move {
            for index in 0..200 {
                let pod = json!({
                    "metadata": {"name": format!("p{index}")}, "spec": {"containers": [{"name": "c", "image": "x"}]},
                });
                api.post(PODS, &pod).await.ok(201);
            }
        })
    };
    while !maker.is_finished() {
        api.delete(PODS, &json!(null)).await.ok(200);
        tokio::task::yield_now().await;
    }
    maker.await.expect("made");
    api.delete(PODS, &json!(null)).await.ok(200);
    assert_eq!(api.get(PODS).await.ok(200)["items"], json!([]));
}
