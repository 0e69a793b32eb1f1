# SPDX-License-Identifier: Apache-2.0
"""Never in the way: whatever is missing, wrong, full or killed, a pod that `warmcache inject` made gets
Ready, serves, and ends as it would without us."""

import json
import os
import time

import kube
import stores
from pods import CREDENTIALS, FAST, KEY, SILENT_S3, STORE


def _env(**variables):
    return ["--env=%s=%s" % pair for pair in variables.items()]


def _serves(pod, seconds=60):
    """Seconds until it was Ready; the model answers, and was started once."""
    took = round(pod.wait_ready(seconds) - pod.created, 1)
    assert kube.get("http://%s:8080/" % pod.now["status"]["podIP"]) == 200
    assert pod.restarts("model") == 0
    return took


def _ends(case, pod, status=None):
    """Delete it; it ends well, and soon. Returns a row."""
    t0 = pod.delete()
    gone = pod.wait_gone(60) - t0
    model, sidecar = (pod.terminated(name) for name in ("model", "warmcache-sidecar"))
    message = pod.message("warmcache-sidecar") or {}
    assert model["exitCode"] == 0 and sidecar["exitCode"] == 0, (model, sidecar)
    assert gone < 20, "gone after %.1f s" % gone
    assert status in (None, message.get("status")), message
    first = pod.message("warmcache-init") or {}
    return {"ready": round(next(at for at, _, seen in pod.seen if kube.is_ready(seen)) -
                           pod.created, 1),
            "init": first.get("status"), "sidecar": message.get("status"),
            "note": "gone %.1f s after its deletion; init: %s" % (gone, first.get("reason"))}


def _quiet(pod):
    """Nothing of ours was restarted, and init ended well."""
    assert pod.restarts("warmcache-sidecar") == 0 and pod.restarts("warmcache-init") == 0
    assert pod.terminated("warmcache-init")["exitCode"] == 0
    return pod


def _starts(case, *model, status=None, **how):
    pod = case.serving(*(model or ("5",)), **how)
    _serves(pod)
    time.sleep(2)
    assert kube.is_ready(_quiet(pod).now)
    return _ends(case, pod, status)


# ---- missing ----

def config_map_and_secret_that_never_were(case):
    return _starts(case, flags=KEY, status="disabled")


def config_map_that_is_deleted(case):
    s3 = stores.S3(case)
    case.create("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": case.name}, "data": {"WARM_STORE": s3.url}})
    flags = [*KEY, *FAST, *_env(**s3.keys()), "--config", case.name]
    pod = case.serving("10", flags=flags)
    _serves(pod)
    _ends(case, pod, "ended")
    warm = case.serving("10", flags=flags)
    _serves(warm)
    assert warm.message("warmcache-init")["status"] == "warm", warm.message("warmcache-init")
    kube.request("DELETE", case.objects[0])
    case.kill("warmcache-sidecar", warm)
    warm.wait("restarted", lambda _: warm.restarts("warmcache-sidecar") == 1)
    _serves(warm)
    row = _ends(case, warm, "disabled")
    cold = case.serving("10", flags=flags)
    _serves(cold)
    _quiet(cold)
    row["note"] += "; without it: %s" % _ends(case, cold, "disabled")["note"]
    return row


def secret_that_is_missing(case):
    s3 = stores.S3(case)
    case.create("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": case.name}, "data": {"WARM_STORE": s3.url}})
    return _starts(case, flags=[*KEY, *FAST, "--config", case.name], status="incomplete")


def bucket_that_is_missing(case):
    s3 = stores.S3(case)
    return _starts(case, flags=[*KEY, *FAST, *_env(**s3.keys()), "--store",
                                s3.url.replace(s3.bucket, "nowhere")], status="incomplete")


def bucket_that_is_denied(case):
    s3 = stores.S3(case)
    return _starts(case, flags=[*KEY, *FAST, *_env(**s3.keys("wrong")), "--store", s3.url],
                   status="incomplete")


def store_that_takes_connections_and_says_nothing(case):
    silent = stores.Silent()
    pod = case.serving("5", flags=[*KEY, *FAST, *_env(WARM_DEADLINE="4s", **dict(CREDENTIALS)),
                                   "--store", silent.url])
    took = _serves(pod)
    _quiet(pod)
    row = _ends(case, pod, "incomplete")
    silent.close()
    assert took < 15, "Ready after %s s" % took
    return row


def annotations_that_are_missing(case):
    """They were there when `inject` ran."""
    manifest = case.inject(case.plain("5", metadata={"annotations": {
        "warmcache.dev/model": "m", "warmcache.dev/version": "v1", "warmcache.dev/platform": "p"}}),
        "--store=/caches")
    del manifest["metadata"]["annotations"]
    manifest["metadata"]["name"] = case.name + "-0"
    pod = case.run(manifest)
    _serves(pod)
    row = _ends(case, _quiet(pod))
    assert "no model" in pod.message("warmcache-init")["reason"], row
    return row


def scale_up_with_everything_missing(case):
    """And with a store to which every packet is dropped."""
    pod = case.plain("5", metadata={"labels": {"app": case.name}})
    del pod["metadata"]["name"]
    flags = [*KEY, *FAST, *_env(**dict(CREDENTIALS)), "--store", SILENT_S3, "--sidecar-cpu=100m",
             "--init-cpu=100m"]
    case.create("deployments", case.inject({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": case.name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": case.name}},
                 "template": {"metadata": pod["metadata"], "spec": pod["spec"]}}}, *flags))
    first = case.adopt("app=" + case.name)
    took = [_serves(pod) for pod in first]
    at = kube.path("deployments", name=case.name)
    scale = kube.request("GET", at + "/scale")
    scale["spec"]["replicas"] = 4
    del scale["metadata"]["resourceVersion"]
    kube.request("PUT", at + "/scale", scale)
    took += [_serves(_pod) for _pod in case.adopt("app=" + case.name, 4) if _pod not in first]
    assert len(took) == 4
    for pod in case.pods:
        _quiet(pod)
    return {"ready": max(took), "note": "Ready after %s s" % took}


# ---- wrong ----

def bad_options(case):
    wrong = {
        "store": [*KEY, "--env=WARM_STORE=nonsense://:x?"],
        "interval": [*STORE, "--env=WARM_INTERVAL=abc", "--env=WARM_DEADLINE=soon"],
        "unknown": [*STORE, "--env=WARM_NONSENSE=1"],
        "no model": ["--store=/caches", "--version=v1"],
    }
    seen = {what: case.serving("5", flags=flags, metadata={
        "name": case.name + "-" + what.replace(" ", "-"),
        "annotations": {"warmcache.dev/model": ""}}) for what, flags in wrong.items()}
    took = {what: _serves(pod) for what, pod in seen.items()}
    time.sleep(2)
    rows = {what: _ends(case, _quiet(pod)) for what, pod in seen.items()}
    assert rows["unknown"]["sidecar"] == "ended", rows
    assert "WARM_NONSENSE" in seen["unknown"].text("warmcache-sidecar")
    for what in ("store", "interval", "no model"):
        assert rows[what]["sidecar"] == "disabled", rows
    return {"ready": max(took.values()), "note": json.dumps(
        {what: seen[what].message("warmcache-init")["reason"] for what in seen})}


def empty_version(case):
    """What isn't named by all that it depends on is not kept."""
    script = ("mkdir -p /warmcache/other; echo x >/warmcache/other/file; "
              "exec model $TRITON_CACHE_DIR 5 --serve 8080")
    how = {"flags": ["--store=/caches", "--model=m", *FAST],
           "container": {"command": ["sh", "-c", script]}}
    pods = [{"name": "%s-%d" % (case.name, n), "annotations": {"warmcache.dev/version": ""}}
            for n in range(2)]
    pod = case.serving(**how, metadata=pods[0])
    _serves(pod)
    _ends(case, _quiet(pod), "ended")
    assert pod.message("warmcache-sidecar")["files"] == 20, pod.message("warmcache-sidecar")
    pod = case.serving(**how, metadata=pods[1])
    _serves(pod)
    row = _ends(case, _quiet(pod), "ended")
    message = pod.message("warmcache-init")
    assert message["status"] == "warm" and message["files"] == 20, message
    assert case.report("found", pod) == [5]
    return row


# ---- killed ----

def sidecar_out_of_memory_in_packing(case):
    """It has less memory than its work takes. The model goes on; how long the pod isn't Ready is the
    kubelet's back-off."""
    pod = case.serving("40", "--bytes", "3000000", flags=[*STORE, *FAST, "--sidecar-memory=7Mi"])
    began = pod.wait_ready()
    address = pod.now["status"]["podIP"]
    pod.wait("out of memory", lambda _: pod.terminated("warmcache-sidecar").get("reason") ==
             "OOMKilled", 60)
    end = time.time() + 25
    while time.time() < end:
        assert kube.get("http://%s:8080/" % address) == 200
        time.sleep(0.5)
    pod.wait("Ready again", kube.is_ready, 60)
    assert pod.restarts("model") == 0
    restarts, unready = pod.restarts("warmcache-sidecar"), pod.unready(began)
    t0 = pod.delete()
    gone = pod.wait_gone(60) - t0
    assert pod.terminated("model")["exitCode"] == 0
    return {"ready": round(began - pod.created, 1), "note": "%d restarts in 25 s; (when, seconds) not Ready: %s; gone after "
            "%.1f s" % (restarts, unready, gone)}


def sidecar_killed_in_other_ways(case):
    """By SIGTERM too: it ends well then, and is restarted."""
    pod = case.serving("10", "--every", "500", flags=[*STORE, *FAST])
    _serves(pod)
    began, notes = time.time(), []
    for n, signal in enumerate(("SIGKILL", "SIGTERM")):
        pod.wait_said("warmcache-sidecar", "published: ")
        killed = time.time()
        case.kill("warmcache-sidecar", pod, signal)
        pod.wait("restarted", lambda _: pod.restarts("warmcache-sidecar") == n + 1)
        pod.wait("Ready again", kube.is_ready)
        time.sleep(1)
        pod.wait("Ready again", kube.is_ready)
        notes.append("%s: not Ready (when, seconds) %s" % (signal, pod.unready(killed)))
    assert kube.get("http://%s:8080/" % pod.now["status"]["podIP"]) == 200
    assert pod.restarts("model") == 0 and pod.restarts("warmcache-init") == 0
    row = _ends(case, pod, "ended")
    assert time.time() - began < 60
    whole, torn, copies = case.groups()
    assert len(whole) == case.events(pod)[-1][2] == copies and not torn, (len(whole), copies)
    row["note"] = "; ".join(notes)
    return row


def _kill_init(case, pod, silent):
    """While it waits for a store that says nothing. Then nobody takes connections any more."""
    pod.wait("in init", lambda _: pod.ids.get("warmcache-init") and
             case.started("warmcache-init", pod))
    case.kill("warmcache-init", pod)
    silent.close()
    return time.time()


def _patient(silent):
    return [*KEY, *_env(WARM_DEADLINE="60s", **dict(CREDENTIALS)), "--store", silent.url]


def init_killed(case):
    """The kubelet runs it again."""
    silent = stores.Silent()
    pod = case.serving("5", flags=_patient(silent))
    killed = _kill_init(case, pod, silent)
    took = pod.wait_ready() - killed
    _serves(pod)
    assert pod.restarts("warmcache-init") == 1
    row = _ends(case, pod)
    row["note"] = "Ready %.1f s after the kill" % took
    return row


def init_killed_in_a_job(case):
    """With restartPolicy Never the pod has failed; the Job has another one."""
    silent = stores.Silent()
    template = case.plain("5", "--then", "end", restartPolicy="Never")
    template["metadata"] = {"labels": {"app": case.name}}
    case.create("jobs", case.inject(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": case.name},
         "spec": {"template": {n: template[n] for n in ("metadata", "spec")}}}, *_patient(silent)))
    pod, = case.adopt("app=" + case.name)
    killed = _kill_init(case, pod, silent)
    case.job_complete(case.name)
    return {"note": "Complete %.1f s after the kill; the first pod: %s" % (
        time.time() - killed, pod.now["status"]["phase"])}


def init_out_of_memory(case):
    """Init has too little memory for its work, and is killed each time: the pod starts cold."""
    case.fill(["60", "--bytes", "1000000"])
    pod = case.serving("60", "--bytes", "1000000", flags=[*STORE, "--init-memory=8Mi"])
    took = _serves(pod)
    row = _ends(case, pod)
    row["note"] = "Ready after %.1f s, %d restarts of init" % (took, pod.restarts("warmcache-init"))
    return row


# ---- full ----

def _small(case, script, flags):
    """A volume of the user's own that holds 2 MB."""
    return case.serving(flags=flags, volumes=[
        {"name": "caches", "hostPath": {"path": case.store, "type": "Directory"}},
        {"name": "warmcache", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}}],
        container={"command": ["sh", "-c", script + "; exec model /tmp/x 0 --serve 8080"]})


def volume_that_is_too_small(case):
    """For what is restored."""
    case.fill(["100", "--bytes", "370000"])
    pod = _small(case, "true", [*STORE, *FAST])
    assert pod.wait_ready()
    _serves(pod)
    row = _ends(case, _quiet(pod))
    assert pod.message("warmcache-init")["status"] == "partial", pod.message("warmcache-init")
    return row


def volume_that_gets_full(case):
    """Then a new sidecar finds it full."""
    pod = _small(case, "model $TRITON_CACHE_DIR 5 --then end; cat /dev/zero >/warmcache/fill",
                 [*STORE, *FAST])
    _serves(pod)
    time.sleep(3)
    case.kill("warmcache-sidecar", pod)
    pod.wait("restarted", lambda _: pod.restarts("warmcache-sidecar") == 1)
    pod.wait("Ready again", kube.is_ready)
    time.sleep(3)
    assert kube.is_ready(pod.now) and pod.restarts("warmcache-sidecar") == 1
    _serves(pod)
    row = _ends(case, pod)
    assert "no space" in pod.text("warmcache-sidecar"), row
    return row


def volume_without_a_limit(case):
    """In a pod that is Guaranteed, and stays so."""
    amount = {"cpu": "100m", "memory": "64Mi"}
    pod = case.serving("5", flags=STORE, container={
        "resources": {"requests": amount, "limits": amount}})
    _serves(pod)
    assert pod.now["status"]["qosClass"] == "Guaranteed", pod.now["status"]["qosClass"]
    volumes = {volume["name"]: volume for volume in pod.now["spec"]["volumes"]}
    assert volumes["warmcache"] == {"name": "warmcache", "emptyDir": {}}, volumes
    return _ends(case, _quiet(pod), "ended")


# ---- drained ----

def drain(case):
    """The model goes on compiling for 3 s; the sidecar is told at once."""
    pod = case.serving("10", "--every", "500", "--on-term", "drain:3", flags=STORE)
    _serves(pod)
    time.sleep(3)
    kube.request("POST", kube.path("pods", name=pod.name) + "/eviction", {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name}})
    pod.wait_gone()
    message = pod.message("warmcache-sidecar")
    assert pod.terminated("warmcache-sidecar")["exitCode"] == 0, message
    assert pod.terminated("model")["exitCode"] == 0
    told = pod.said("warmcache-sidecar", "sidecar: draining: ")
    assert told and told < pod.said("warmcache-sidecar", "sidecar: ending: ") - 1
    written = case.events(pod)[-1][2]
    assert message["status"] == "ended" and message["groups"] == written, (message, written)
    return {"init": "cold", "sidecar": message["status"], "note": "%d groups" % written}


# ---- users ----

def _as(case, flags=STORE, namespace="default", **how):
    """Cold, then warm; the warm one goes on writing in what was restored."""
    os.chmod(case.store, 0o777)
    flags = [*flags, *FAST]
    pod = case.serving("5", flags=flags, namespace=namespace, **how)
    _serves(pod)
    _ends(case, _quiet(pod), "ended")
    pod = case.serving("10", flags=flags, namespace=namespace, **how)
    _serves(pod)
    row = _ends(case, _quiet(pod), "ended")
    assert case.report("found", pod) == [5] and case.report("end", pod) == [10], pod.text("model")
    message = pod.message("warmcache-sidecar")
    assert message["groups"] == 5, message
    return row


def user_1000(case):
    return _as(case, securityContext={"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True})


def root_without_capabilities(case):
    return _as(case, securityContext={"runAsUser": 0}, container={
        "securityContext": {"capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}})


def model_of_another_user(case):
    """Ours run as the image says."""
    return _as(case, container={"securityContext": {
        "runAsUser": 1000, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}})


def model_that_is_root(case):
    return _as(case, container={"securityContext": {
        "runAsUser": 0, "capabilities": {"drop": ["ALL"]}}})


def fs_group_of_the_pod(case):
    context = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}
    row = _as(case, securityContext=context)
    pod = case.serving("5", flags=STORE, securityContext=context)
    _serves(pod)
    volume = os.stat(case.volume(pod))
    assert volume.st_gid == 2000, volume
    for place in ("initContainers", "containers"):
        for container in pod.now["spec"][place]:
            assert "runAsUser" not in container.get("securityContext", {}), container
    assert pod.now["spec"]["securityContext"] == context
    _ends(case, _quiet(pod), "ended")
    return row


def restricted_namespace(case):
    """Nothing may be mounted from the node there."""
    kube.request("POST", "/api/v1/namespaces", {
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": case.name, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted"}}})
    case.objects.append("/api/v1/namespaces/" + case.name)
    s3 = stores.S3(case)
    end = time.time() + 20
    while time.time() < end:
        try:
            kube.request("GET", kube.path("serviceaccounts", case.name, "default"))
            break
        except kube.ApiError:
            time.sleep(0.1)
    return _as(case, [*KEY, *_env(**s3.keys()), "--store", s3.url], case.name, caches=False,
               securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
               container={"securityContext": {
                   "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                   "capabilities": {"drop": ["ALL"]}}})
