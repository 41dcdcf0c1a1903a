"""The Python client against a control plane: one function for each thing that is shown.

In: the name of a part, KUBECONFIG. Out: exit code 0, or a traceback that says what was not as expected.
"""

import subprocess
import sys

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

NAMESPACE = "default"
SOON = 30


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data=data)


def typed():
    """Objects of declared types are made, changed, listed in pages and deleted; failures carry their status."""
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    made = core.create_namespaced_config_map(NAMESPACE, config_map("a", key="1"))
    assert made.metadata.uid and made.data == {"key": "1"}, made
    made.data["key"] = "2"
    changed = core.replace_namespaced_config_map("a", NAMESPACE, made)
    assert changed.metadata.resource_version != made.metadata.resource_version
    try:
        core.replace_namespaced_config_map("a", NAMESPACE, made)
        raise AssertionError("an old version is replaced")
    except ApiException as error:
        assert (error.status, error.reason) == (409, "Conflict"), error
    for name in ("b", "c", "d"):
        core.create_namespaced_config_map(NAMESPACE, config_map(name))
    names, token = [], None
    while token != "":
        page = core.list_namespaced_config_map(NAMESPACE, limit=2, _continue=token)
        assert len(page.items) <= 2
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert [name for name in names if len(name) == 1] == ["a", "b", "c", "d"], names
    core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"key": None, "other": "3"}})
    assert core.read_namespaced_config_map("a", NAMESPACE).data == {"other": "3"}

    labels = {"app": "web"}
    container = client.V1Container(
        name="c", image="nginx", resources=client.V1ResourceRequirements(limits={"cpu": "0.5", "memory": "64Mi"})
    )
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(
        replicas=0, selector=client.V1LabelSelector(match_labels=labels), template=template
    )
    apps.create_namespaced_deployment(
        NAMESPACE, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)
    )
    web = apps.read_namespaced_deployment("web", NAMESPACE)
    assert web.spec.strategy.rolling_update.max_surge == "25%", web.spec.strategy
    assert web.metadata.creation_timestamp.tzinfo is not None
    apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 2}})
    assert apps.read_namespaced_deployment_scale("web", NAMESPACE).spec.replicas == 2
    deleted = core.delete_namespaced_config_map("a", NAMESPACE)
    assert deleted["status"] == "Success", deleted
    try:
        core.read_namespaced_config_map("a", NAMESPACE)
        raise AssertionError("it is still there")
    except ApiException as error:
        assert error.status == 404 and 'configmaps \\"a\\" not found' in error.body, error
    assert "v1.37" in client.VersionApi().get_code().git_version


def watched():
    """A watch goes on from where another one ended: nothing is missed, nothing comes twice."""
    core = client.CoreV1Api()
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.create_namespaced_config_map(NAMESPACE, config_map("a", key="1"))
    core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"key": "2"}})
    core.create_namespaced_config_map(NAMESPACE, config_map("b", key="1"))

    def seen(since, count):
        watcher, told = watch.Watch(), []
        stream = watcher.stream(
            core.list_namespaced_config_map, NAMESPACE, resource_version=since, timeout_seconds=SOON
        )
        for event in stream:
            if len(event["object"].metadata.name) == 1:
                told.append((event["type"], event["object"].metadata.name, event["object"].data["key"]))
            if len(told) == count:
                watcher.stop()
        return told, event["object"].metadata.resource_version

    first, reached = seen(start, 2)
    assert first == [("ADDED", "a", "1"), ("MODIFIED", "a", "2")], first
    core.delete_namespaced_config_map("a", NAMESPACE)
    second, _ = seen(reached, 2)
    assert second == [("ADDED", "b", "1"), ("DELETED", "a", "2")], second
    again, _ = seen(start, 4)
    assert again == first + second, again
    # Ended by the server in time, without an error.
    watcher = watch.Watch()
    stream = watcher.stream(
        core.list_namespaced_config_map, NAMESPACE, field_selector="metadata.name=nobody", timeout_seconds=1
    )
    assert list(stream) == []


def applied():
    """The dynamic client: discovery, server-side apply with its conflict, a kind that was not there before."""
    api = dynamic.DynamicClient(client.ApiClient())
    maps = api.resources.get(api_version="v1", kind="ConfigMap")

    def body(value):
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"key": value}}

    def apply(manager, value, **more):
        return maps.server_side_apply(
            body=body(value), name="shared", namespace=NAMESPACE, field_manager=manager, **more
        )

    made = apply("one", "1")
    assert apply("one", "1").metadata.resourceVersion == made.metadata.resourceVersion
    try:
        apply("two", "2")
        raise AssertionError("no conflict")
    except ConflictError as error:
        assert error.status == 409 and 'conflict with \\"one\\"' in str(error.body), error.body
    assert apply("two", "2", force_conflicts=True).data.key == "2"

    definitions = api.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"flag": {"type": "string"}}}}}
    definitions.create(
        body={
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "ships.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "ships", "kind": "Ship"},
                "versions": [
                    {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
                ],
            },
        }
    )
    for event in definitions.watch(name="ships.example.com", timeout=SOON):
        conditions = event["object"].status.conditions or []
        if any(c.type == "Established" and c.status == "True" for c in conditions):
            break
    api.resources.invalidate_cache()
    ships = api.resources.get(api_version="example.com/v1", kind="Ship")
    ships.create(body={"apiVersion": "example.com/v1", "kind": "Ship", "metadata": {"name": "a"}, "spec": {"flag": "red"}}, namespace=NAMESPACE)
    ships.patch(
        body={"spec": {"flag": "blue"}},
        name="a",
        namespace=NAMESPACE,
        content_type="application/merge-patch+json",
    )
    assert [ship.spec.flag for ship in ships.get(namespace=NAMESPACE).items] == ["blue"]
    ships.delete(name="a", namespace=NAMESPACE)
    try:
        ships.get(name="a", namespace=NAMESPACE)
        raise AssertionError("it is still there")
    except NotFoundError:
        pass


def candidate(name):
    """Says that it leads, and leads until it is ended."""
    lock = LeaseLock("turn", NAMESPACE, name)
    lead = lambda: print(name, flush=True)  # noqa: E731
    settings = electionconfig.Config(
        lock,
        lease_duration=4,
        renew_deadline=3,
        retry_period=1,
        onstarted_leading=lead,
        onstopped_leading=None,
    )
    leaderelection.LeaderElection(settings).run()


def elected():
    """Of two candidates one leads; when it dies the other does."""
    start = lambda name: subprocess.Popen(  # noqa: E731
        [sys.executable, __file__, "candidate", name], stdout=subprocess.PIPE, text=True
    )
    one = start("one")
    two = None
    try:
        assert one.stdout.readline() == "one\n"
        leases = client.CoordinationV1Api()
        assert leases.read_namespaced_lease("turn", NAMESPACE).spec.holder_identity == "one"
        two = start("two")
        # Long enough for the first to have renewed: the other one only looks on.
        for event in watch.Watch().stream(
            leases.list_namespaced_lease, NAMESPACE, field_selector="metadata.name=turn", timeout_seconds=3
        ):
            assert event["object"].spec.holder_identity == "one", event
        one.kill()
        assert two.stdout.readline() == "two\n"
        assert leases.read_namespaced_lease("turn", NAMESPACE).spec.holder_identity == "two"
    finally:
        for process in filter(None, (one, two)):
            process.kill()
            process.wait()


PARTS = {part.__name__: part for part in (typed, watched, applied, elected, candidate)}

if __name__ == "__main__":
    config.load_kube_config()
    PARTS[sys.argv[1]](*sys.argv[2:])
