//! Jobs and CronJobs: pods that end, each counted once, whatever happens to them or to the controllers.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::hollow::EXIT;
use crate::wait::{until, until_gone, until_object};

/// A Job whose pods end at once with this code; without one they run on.
fn job(name: &str, exit: Option<&str>, spec: &Value) -> Value {
    let annotations = exit.map(|code| json!({EXIT: code}));
    let mut job = json!({
        "metadata": {"name": name},
        "spec": {"template": {
            "metadata": {"annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]},
        }},
    });
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    job
}

fn condition<'a>(job: &'a Job, type_: &str) -> Option<&'a str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == type_ && c.status == "True")?;
    condition.reason.as_deref()
}

fn counts(job: &Job) -> (i32, i32, i32) {
    let status = job.status.clone().unwrap_or_default();
    (status.active.unwrap_or(0), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0))
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|known| known == "batch.kubernetes.io/job-tracking")
}

#[tokio::test(flavor = "multi_thread")]
async fn job_completes_and_lets_go_of_its_pods() {
    let plane = ControlPlane::start(2).await;
    plane.create::<Job>(job("j", Some("0"), &json!({"completions": 5, "parallelism": 2}))).await;
    let jobs = plane.api::<Job>();
    let done = until_object("complete", &jobs, "j", |job| condition(job, "Complete").is_some()).await;
    assert_eq!(condition(&done, "Complete"), Some("CompletionsReached"));
    assert_eq!(condition(&done, "SuccessCriteriaMet"), Some("CompletionsReached"));
    assert_eq!(counts(&done), (0, 5, 0));
    let status = done.status.as_ref().unwrap();
    assert!(status.start_time.is_some() && status.completion_time.is_some());
    let pods = until("five pods, let go", &plane.api::<Pod>(), |pods| {
        pods.len() == 5 && !pods.iter().any(is_tracked)
    })
    .await;
    let uid = done.metadata.uid.as_deref();
    for pod in &pods {
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert_eq!(labels.get("batch.kubernetes.io/controller-uid").map(String::as_str), uid);
        assert_eq!(labels["job-name"], "j");
    }
    until("the event", &plane.api::<Event>(), |events| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some("Completed") && event.message.as_deref() == Some("Job completed")
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_job_gives_up_at_its_limit() {
    let plane = ControlPlane::start(1).await;
    plane.create::<Job>(job("j", Some("3"), &json!({"backoffLimit": 2}))).await;
    let failed =
        until_object("failed", &plane.api::<Job>(), "j", |job| condition(job, "Failed").is_some()).await;
    assert_eq!(condition(&failed, "Failed"), Some("BackoffLimitExceeded"));
    assert_eq!(counts(&failed), (0, 0, 3));
    until("the event", &plane.api::<Event>(), |events| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some("BackoffLimitExceeded")
                && event.message.as_deref() == Some("Job has reached the specified backoff limit")
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_counted_once_though_controllers_are_killed_and_pods_deleted() {
    let mut plane = ControlPlane::start(2).await;
    plane.create::<Job>(job("j", Some("0"), &json!({"completions": 24, "parallelism": 4}))).await;
    let (jobs, pods) = (plane.api::<Job>(), plane.api::<Pod>());
    for reached in [3, 8, 14, 20] {
        until_object("some are done", &jobs, "j", |job| counts(job).1 >= reached).await;
        plane.kill_parts();
        // A pod that ended is deleted before anybody could count it, perhaps.
        let ended = pods.list(&Default::default()).await.unwrap().items;
        if let Some(pod) = ended.iter().rev().find(|pod| is_tracked(pod)) {
            let name = pod.metadata.name.as_deref().unwrap();
            let ended = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
            if ended {
                pods.delete(name, &DeleteParams::default()).await.unwrap();
            }
        }
        plane.start_parts();
    }
    let done = until_object("complete", &jobs, "j", |job| condition(job, "Complete").is_some()).await;
    assert_eq!(counts(&done), (0, 24, 0));
    until("nobody is tracked", &pods, |pods| !pods.iter().any(is_tracked)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexed_job_runs_every_index_once_and_gives_up_on_one() {
    let plane = ControlPlane::start(2).await;
    let mut indexed = job(
        "j",
        Some("0"),
        &json!({
            "completions": 4, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        }),
    );
    // The third exits with another code, which a rule answers to.
    indexed["spec"]["podFailurePolicy"] =
        json!({"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}}]});
    indexed["spec"]["suspend"] = json!(true);
    plane.create::<Job>(indexed).await;
    let jobs = plane.api::<Job>();
    until_object("suspended", &jobs, "j", |job| condition(job, "Suspended") == Some("JobSuspended")).await;
    assert!(plane.api::<Pod>().list(&Default::default()).await.unwrap().items.is_empty());
    let resume = json!({"spec": {"suspend": false}});
    jobs.patch("j", &PatchParams::default(), &Patch::Merge(&resume)).await.unwrap();
    let done = until_object("complete", &jobs, "j", |job| condition(job, "Complete").is_some()).await;
    assert_eq!(done.status.as_ref().unwrap().completed_indexes.as_deref(), Some("0-3"));
    let pods = plane.api::<Pod>().list(&Default::default()).await.unwrap().items;
    let mut host_names: Vec<&str> =
        pods.iter().map(|pod| pod.spec.as_ref().unwrap().hostname.as_deref().unwrap()).collect();
    host_names.sort_unstable();
    assert_eq!(host_names, ["j-0", "j-1", "j-2", "j-3"]);

    let failing = json!({
        "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "maxFailedIndexes": 1,
    });
    plane.create::<Job>(job("f", Some("1"), &failing)).await;
    let failed = until_object("failed", &jobs, "f", |job| condition(job, "Failed").is_some()).await;
    assert_eq!(condition(&failed, "Failed"), Some("MaxFailedIndexesExceeded"));
    assert_eq!(failed.status.as_ref().unwrap().failed_indexes.as_deref(), Some("0,1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_ends_a_job_and_its_pods() {
    let plane = ControlPlane::start(1).await;
    plane.create::<Job>(job("j", None, &json!({"activeDeadlineSeconds": 1}))).await;
    let failed =
        until_object("failed", &plane.api::<Job>(), "j", |job| condition(job, "Failed").is_some()).await;
    assert_eq!(condition(&failed, "Failed"), Some("DeadlineExceeded"));
    until("no pod runs", &plane.api::<Pod>(), <[Pod]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_job_takes_its_running_pods_along() {
    let plane = ControlPlane::start(1).await;
    let (jobs, pods) = (plane.api::<Job>(), plane.api::<Pod>());
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        plane.create::<Job>(job("j", None, &json!({"parallelism": 2, "completions": 2}))).await;
        until("two run", &pods, |pods| pods.len() == 2).await;
        jobs.delete("j", &params).await.unwrap();
        until("no pod", &pods, <[Pod]>::is_empty).await;
        until_gone(&jobs, "j").await;
    }
    plane.create::<Job>(job("j", None, &json!({}))).await;
    until("one runs", &pods, |pods| pods.len() == 1).await;
    jobs.delete("j", &DeleteParams::orphan()).await.unwrap();
    until_gone(&jobs, "j").await;
    until("nobody waits to count it", &pods, |pods| pods.len() == 1 && !is_tracked(&pods[0])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_job_is_removed_after_its_time() {
    let plane = ControlPlane::start(1).await;
    plane.create::<Job>(job("j", Some("0"), &json!({"ttlSecondsAfterFinished": 1}))).await;
    until_gone(&plane.api::<Job>(), "j").await;
    until("no pod", &plane.api::<Pod>(), <[Pod]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_adopts_what_matches_and_lets_go_of_what_does_not() {
    let plane = ControlPlane::start(1).await;
    let pods = plane.api::<Pod>();
    plane.create::<Job>(job("j", None, &json!({"parallelism": 2, "completions": 2}))).await;
    let owned = |pod: &Pod| pod.metadata.owner_references.iter().flatten().any(|owner| owner.name == "j");
    let both = until("two run", &pods, |pods| pods.len() == 2 && pods.iter().all(owned)).await;
    let name = both[0].metadata.name.clone().unwrap();
    let orphan = json!({"metadata": {"ownerReferences": null}});
    pods.patch(&name, &PatchParams::default(), &Patch::Merge(&orphan)).await.unwrap();
    until_object("taken back", &pods, &name, |pod| owned(pod) && is_tracked(pod)).await;
    let relabel = json!({"metadata": {"labels": null}});
    pods.patch(&name, &PatchParams::default(), &Patch::Merge(&relabel)).await.unwrap();
    until_object("let go", &pods, &name, |pod| !owned(pod) && !is_tracked(pod)).await;
    until("replaced", &pods, |pods| pods.len() == 3 && pods.iter().filter(|pod| owned(pod)).count() == 2)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_pods_do_not_count_where_a_rule_says_so() {
    let plane = ControlPlane::start(2).await;
    let pods = plane.api::<Pod>();
    let mut lenient = job("j", None, &json!({"backoffLimit": 0, "parallelism": 1, "completions": 1}));
    lenient["spec"]["podFailurePolicy"] = json!({"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
    ]});
    plane.create::<Job>(lenient).await;
    let running = |pod: &Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
    };
    for _ in 0..2 {
        let all = until("one runs", &pods, |pods| pods.iter().filter(|pod| running(pod)).count() == 1).await;
        let name = all.iter().find(|pod| running(pod)).unwrap().metadata.name.clone().unwrap();
        pods.evict(&name, &EvictParams::default()).await.unwrap();
        until_gone(&pods, &name).await;
    }
    until("another runs", &pods, |pods| pods.iter().filter(|pod| running(pod)).count() == 1).await;
    let job = plane.api::<Job>().get("j").await.unwrap();
    assert_eq!((counts(&job).2, condition(&job, "Failed")), (0, None));
}

fn cron_job(schedule: &str, exit: Option<&str>, spec: &Value) -> Value {
    let template = job("", exit, &json!({}));
    let mut cron = json!({
        "metadata": {"name": "c"},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": template["spec"]}},
    });
    for (field, value) in spec.as_object().unwrap() {
        cron["spec"][field] = value.clone();
    }
    cron
}

#[tokio::test(flavor = "multi_thread")]
async fn cron_job_starts_jobs_in_time_and_keeps_their_history() {
    let plane = ControlPlane::start(1).await;
    // Every second, so that the test need not wait for the minute; Jobs of one minute share a name.
    plane
        .create::<CronJob>(cron_job("@every 1s", Some("0"), &json!({"successfulJobsHistoryLimit": 1})))
        .await;
    let cron = until_object("it succeeded", &plane.api::<CronJob>(), "c", |cron| {
        cron.status.as_ref().is_some_and(|status| status.last_successful_time.is_some())
    })
    .await;
    assert!(cron.status.as_ref().unwrap().last_schedule_time.is_some());
    let jobs = until("a Job", &plane.api::<Job>(), |jobs| !jobs.is_empty()).await;
    let owner = &jobs[0].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.controller), ("CronJob", "c", Some(true)));
    for reason in ["SuccessfulCreate", "SawCompletedJob"] {
        until(reason, &plane.api::<Event>(), |events| {
            events.iter().any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.involved_object.kind.as_deref() == Some("CronJob")
            })
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_and_unreadable_cron_jobs_start_nothing() {
    let plane = ControlPlane::start(1).await;
    plane.create::<CronJob>(cron_job("@every 1s", None, &json!({"suspend": true}))).await;
    let resume = json!({"spec": {"suspend": false, "concurrencyPolicy": "Forbid"}});
    let jobs = plane.api::<Job>();
    assert!(jobs.list(&Default::default()).await.unwrap().items.is_empty());
    plane.api::<CronJob>().patch("c", &PatchParams::default(), &Patch::Merge(&resume)).await.unwrap();
    until("one Job", &jobs, |jobs| jobs.len() == 1).await;
    until_object("it is listed", &plane.api::<CronJob>(), "c", |cron| {
        cron.status.as_ref().and_then(|status| status.active.as_ref()).is_some_and(|active| active.len() == 1)
    })
    .await;
    let broken = json!({"spec": {"timeZone": "Nowhere/Land"}});
    let crons = plane.api::<CronJob>();
    let refused = crons.patch("c", &PatchParams::default(), &Patch::Merge(&broken)).await.unwrap_err();
    assert!(refused.to_string().contains("unknown time zone Nowhere/Land"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_job_of_the_due_name_does_not_stop_a_schedule() {
    let plane = ControlPlane::start(1).await;
    // Jobs are named after the minute they are due in: the next few names are taken.
    let minute = jiff::Timestamp::now().as_second() / 60;
    for taken in minute..minute + 3 {
        plane.create::<Job>(job(&format!("c-{taken}"), None, &json!({"suspend": true}))).await;
    }
    let crons = plane.api::<CronJob>();
    plane.create::<CronJob>(cron_job("@every 1s", Some("0"), &json!({}))).await;
    let time = |cron: &CronJob| cron.status.as_ref()?.last_schedule_time.as_ref().map(|time| time.0);
    let first = until_object("one time was due", &crons, "c", |cron| time(cron).is_some()).await;
    until_object("it went on", &crons, "c", |cron| time(cron) > time(&first)).await;
    until("it is told", &plane.api::<Event>(), |events| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some("FailedCreate")
                && event.message.as_deref().is_some_and(|m| m.ends_with("exists and belongs to another"))
        })
    })
    .await;
}
