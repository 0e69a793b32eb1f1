# SPDX-License-Identifier: Apache-2.0
"""What pods that `warmcache inject` made are for: a cold one fills the store, a warm one compiles
nothing; whatever kind of workload they belong to, and whichever store it is."""

import glob
import json
import os
import subprocess
import time

import kube
import stores
from pods import FAST, KEY, STORE, Skip
from test_rule import _ends, _env, _quiet, _serves

OLD = "e2e.local/warmcache-old:1"


# ---- the compiler library, NVRTC and three CUDA programs ----

def _compiler(case):
    """compiler/examples/model.c in a pod."""
    found = glob.glob(os.path.join(os.environ.get("WARM_PARTS", "build/parts"),
                                   "nvrtc/lib/python3*/site-packages/nvidia/cu13"))
    if not found:
        raise Skip("needs NVRTC")
    manifest = case.plain()
    manifest["spec"]["volumes"].append({"name": "nvrtc", "hostPath": {
        "path": os.path.realpath(found[0]), "type": "Directory"}})
    manifest["spec"]["containers"] = [{
        "name": "model", "image": "e2e.local/compiler:1",
        "command": ["/examples/model", "/nvrtc/include"],
        "env": [{"name": "WARM_NVRTC_LIBRARY", "value": "/nvrtc/lib/libnvrtc.so.13"}],
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "caches", "mountPath": "/caches"},
                         {"name": "nvrtc", "mountPath": "/nvrtc", "readOnly": True}]}]
    return manifest


def _compiled(case, *flags):
    """One start: what the model says, and what was told of it."""
    pod = case.run(case.inject(_compiler(case), "--for=nvrtc", *flags))
    pod.wait_said("model", "compiled", 60)
    said = json.loads(pod.text("model"))
    row = _ends(case, _quiet(pod), "ended")
    return {**said, "init": row["init"], "published": pod.message("warmcache-sidecar")["groups"]}


def compiler_library(case):
    """Cold; warm; and a next version, which takes what doesn't depend on the version."""
    flags = ["--store=/caches", "--model=m", "--env=WARM_COMPLETE_AFTER=0"]
    cold, warm, following = (_compiled(case, *flags, "--version=" + v) for v in ("v1", "v1", "v2"))
    assert (cold["compiled"], cold["hits"], cold["published"]) == (3, 0, 3), cold
    assert (warm["compiled"], warm["hits"], warm["published"]) == (0, 3, 0), warm
    assert (following["compiled"], following["hits"]) == (0, 3), following
    assert (cold["init"], warm["init"], following["init"]) == ("cold", "warm", "fallback")
    return {"init": warm["init"], "note": "ready after %.2f s cold, %.2f s warm" % (
        cold["ready_seconds"], warm["ready_seconds"])}


# ---- stores ----

def _cold_then_warm(case, *flags):
    for n, (status, found) in enumerate((("cold", 0), ("warm", 20))):
        pod = case.serving("20", flags=[*KEY, *flags])
        _serves(pod)
        row = _ends(case, _quiet(pod), "ended")
        assert row["init"] == status and case.report("found", pod) == [found], row
        message = pod.message("warmcache-sidecar")
        assert message["groups"] == (20, 0)[n], message
    row["note"] = "20 groups"
    return row


def store_in_s3(case):
    s3 = stores.S3(case)
    return _cold_then_warm(case, *_env(**s3.keys()), "--store", s3.url)


def store_in_s3_by_config_map_and_secret(case):
    s3 = stores.S3(case)
    for kind, data in (("ConfigMap", {"data": {"WARM_STORE": s3.url}}),
                       ("Secret", {"stringData": s3.keys()})):
        case.create(kind.lower() + "s", {"apiVersion": "v1", "kind": kind,
                                         "metadata": {"name": case.name}, **data})
    return _cold_then_warm(case, "--config", case.name)


def store_in_a_registry(case):
    return _cold_then_warm(case, "--store", stores.Registry(case).url)


# ---- kinds of workloads ----

def _template(case, *model, **spec):
    plain = case.plain(*model, **spec)
    return {"metadata": {"labels": {"app": case.name}}, "spec": plain["spec"]}


def job_that_fills_the_store(case):
    """By itself, and what it compiled is in the store then."""
    template = _template(case, "20", "--then", "end", restartPolicy="Never")
    case.create("jobs", case.inject({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": case.name},
        "spec": {"backoffLimit": 0, "template": template}}, *STORE))
    pod, = case.adopt("app=" + case.name)
    began = time.time()
    case.job_complete(case.name)
    groups = len(case.groups()[0])
    assert groups == 20, groups
    pod.wait("told", lambda _: pod.message("warmcache-sidecar"))
    message = pod.message("warmcache-sidecar")
    assert message["status"] == "ended" and pod.terminated("warmcache-sidecar")["exitCode"] == 0
    return {"sidecar": message["status"], "note": "Complete after %.1f s" % (time.time() - began)}


def stateful_set(case):
    """Its pod comes back under its name, with a volume that is new, and is warm."""
    case.create("statefulsets", case.inject({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": case.name},
        "spec": {"replicas": 1, "serviceName": "none",
                 "selector": {"matchLabels": {"app": case.name}},
                 "template": _template(case, "20")}}, *STORE))
    cold, = case.adopt("app=" + case.name)
    _serves(cold)
    assert _ends(case, _quiet(cold), "ended")["init"] == "cold"
    warm, = case.adopt("app=" + case.name)
    assert warm.name == cold.name and warm.uid != cold.uid
    took = _serves(warm)
    first = warm.wait("told", lambda _: warm.message("warmcache-init")) and \
        warm.message("warmcache-init")
    assert first["status"] == "warm" and first["files"] == 80, first
    assert case.report("found", warm) == [20]
    return {"ready": took, "init": first["status"], "note": "%d files" % first["files"]}


# ---- processes of one pod ----

def model_in_a_crash_loop(case):
    """What it compiled before it crashed is there when it starts again, and is published."""
    pod = case.serving("10", "--then", "crash", flags=[*STORE, *FAST])
    pod.wait("crashed", lambda _: pod.ids.get("model") and pod.restarts("model") >= 2, 60)
    pod.wait_said("warmcache-sidecar", "published: ")
    found = case.report("found", pod)
    assert found[:2] == [0, 10], found
    assert pod.restarts("warmcache-init") == 0 and pod.restarts("warmcache-sidecar") == 0
    assert len(pod.ids["warmcache-init"]) == 1
    pod.delete()
    pod.wait_gone()
    message = pod.message("warmcache-sidecar")
    assert message["status"] == "ended" and message["groups"] == 10, message
    whole, torn, copies = case.groups()
    assert len(whole) == copies == 10 and not torn, (len(whole), copies)
    return {"sidecar": message["status"], "note": "groups found by each start: %s" % found}


def several_ranks(case):
    """Two containers of two processes each, all in one directory, half of it the same."""
    script = ("model $TRITON_CACHE_DIR 12 --seed {0} --every 200 --on-term drain:2 & a=$!; "
              "model $TRITON_CACHE_DIR 12 --seed 9 --every 200 --on-term drain:2 & b=$!; "
              "trap \"kill $a $b\" TERM; wait $a $b; wait $a && wait $b")
    manifest = case.plain()
    one = manifest["spec"]["containers"][0]
    del one["readinessProbe"]
    manifest["spec"]["containers"] = [
        {**one, "name": "rank%d" % n, "command": ["sh", "-c", script.format(n)]} for n in (1, 2)]
    pod = case.run(case.inject(manifest, *STORE, *FAST, "--container=rank1", "--container=rank2"))
    pod.wait_ready()
    pod.wait_said("warmcache-sidecar", "published: ")
    triton = case.volume(pod) + "/triton"
    pod.delete()
    written = set()
    while not pod.over:
        if os.path.isdir(triton):
            written |= {name for name in os.listdir(triton) if len(name) == 52}
        time.sleep(0.05)
    message = pod.message("warmcache-sidecar")
    whole, torn, copies = case.groups()
    for rank in ("rank1", "rank2"):
        assert pod.terminated(rank)["exitCode"] == 0, (rank, pod.text(rank))
    assert message["status"] == "ended", message
    published = {os.path.basename(name).partition("@")[0] for name in whole}
    assert written == published and not torn, (written ^ published, torn)
    assert len(whole) == message["groups"] > 36, (len(whole), message)
    return {"sidecar": message["status"], "note": "%d groups of four processes, %d copies" % (
        len(whole), copies)}


def sidecar_killed_goes_on(case):
    """A compiler's cache, too: nothing twice, and all that came later."""
    pod = case.serving("5", "--every", "400", flags=[*STORE, *FAST])
    _serves(pod)
    pod.wait_said("warmcache-sidecar", "published: ")
    case.kill("warmcache-sidecar", pod)
    pod.wait("restarted", lambda _: pod.restarts("warmcache-sidecar") == 1)
    pod.wait("Ready again", kube.is_ready)
    time.sleep(4)
    row = _ends(case, pod, "ended")
    whole, torn, copies = case.groups()
    assert len(whole) == copies == case.events(pod)[-1][2] and not torn, (len(whole), copies)
    assert pod.restarts("warmcache-init") == 0
    row["note"] = "%d groups" % copies
    return row


# ---- two versions of ours in one pod ----

def _mixed(case, old):
    """`old` of our containers is of the older image; then one of the other kind, on the same store."""
    images = subprocess.run(["ctr", "--address", "/run/containerd.sock", "-n", "k8s.io", "images",
                             "ls", "-q"], stdout=subprocess.PIPE, text=True).stdout
    if OLD not in images:
        raise Skip("needs the older programs")
    other = {"warmcache-init": "warmcache-sidecar", "warmcache-sidecar": "warmcache-init"}[old]
    for n, (which, status, found) in enumerate(((old, "cold", 0), (old, "warm", 10),
                                                (other, "warm", 20))):
        manifest = case.inject(case.plain(str(10 * (n + 1))), *STORE, *FAST)
        for container in manifest["spec"]["initContainers"]:
            if container["name"] == which:
                container["image"] = OLD
        pod = case.run(manifest)
        _serves(pod)
        pod.wait_said("warmcache-sidecar", "published: ")
        row = _ends(case, _quiet(pod), "ended")
        message = pod.message("warmcache-sidecar")
        assert row["init"] == status and case.report("found", pod) == [found], (n, row)
        assert message["groups"] == 10 and message["failures"] == 0, (n, message)
    row["note"] = "30 groups"
    return row


def old_init_and_new_sidecar(case):
    return _mixed(case, "warmcache-init")


def old_sidecar_and_new_init(case):
    return _mixed(case, "warmcache-sidecar")


# ---- beside others ----

def behind_a_proxy(case):
    """A native sidecar of the pod's own stands between it and the store: it has to run first, and is
    there at the pod's end."""
    s3 = stores.S3(case)
    host, port = s3.address
    proxy = {"name": "proxy", "image": "e2e.local/model:1", "restartPolicy": "Always",
             "command": ["sh", "-c", "trap 'exit 0' TERM; nc -ll -p %d -e nc %s %d & wait" % (
                 port, host, port)]}
    flags = [*KEY, *_env(**s3.keys()), "--store", s3.url.replace(host, "127.0.0.1")]
    for status, found in (("cold", 0), ("warm", 10)):
        pod = case.serving("10", flags=flags, initContainers=[proxy])
        _serves(pod)
        row = _ends(case, _quiet(pod), "ended")
        assert row["init"] == status and case.report("found", pod) == [found], row
    return row
