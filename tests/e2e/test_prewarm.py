# SPDX-License-Identifier: Apache-2.0
"""warmcache-prewarm: a Job fills the store, the workload's pods start warm, and nothing else in the
cluster takes notice. Each test has a namespace of its own."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time

import kube
import stores
from pods import FAST, IMAGE, STORE

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
READY = "--ready-url=http://127.0.0.1:8080/"
SMALL = ("--init-cpu=100m", "--init-memory=64Mi", "--sidecar-cpu=50m", "--sidecar-memory=64Mi")
REQUEST = {"url": "/v1/completions", "body": {"prompt": "1 $$ of $(HOME)"}}
SLOW = 'sleep %d; exec model "$TRITON_CACHE_DIR" 5 --serve 8080'


def _kubectl(*args, text=None, code=0):
    done = subprocess.run(["kubectl", *args], input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    assert code is None or done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout


class _Scene:
    """A namespace, a bucket, and a workload."""

    def __init__(self, case, secret=stores.SECRET, labels=None):
        self.case, self.namespace = case, case.name[:50].rstrip("-")
        kube.request("POST", "/api/v1/namespaces", {
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": self.namespace, "labels": labels or {}}})
        case.objects.append("/api/v1/namespaces/" + self.namespace)
        self.s3 = stores.S3(case)
        self.keys = stores.S3.keys(secret)
        self.flags = ["--image", IMAGE, *SMALL, READY, "--store", self.s3.url, "--model=m",
                      "--version=v1", "--timeout=90s", "--env=WARM_SETTLE=1s", *self.variables()]
        end = time.time() + 20
        while True:
            try:
                kube.request("GET", kube.path("serviceaccounts", self.namespace, "default"))
                break
            except kube.ApiError:
                assert time.time() < end
                time.sleep(0.1)

    def variables(self):
        return ["--env=%s=%s" % pair for pair in self.keys.items()]

    def workload(self, *model, kind="Deployment", template=None, **how):
        pod = self.case.plain(*(model or ("5",)), caches=False,
                              metadata={"labels": {"app": "llm"}}, **how)
        del pod["metadata"]["name"]
        pod = {"metadata": pod["metadata"], "spec": pod["spec"]}
        return {"apiVersion": "apps/v1", "kind": kind, "metadata": {
            "name": "llm", "namespace": self.namespace},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "llm"}}, "template": pod}}

    def line(self, command, flags=None):
        return ["warmcache-prewarm", *command,
                *(self.flags if flags is None else flags)]

    def env(self):
        return {**os.environ, **self.keys}

    def prewarm(self, command, manifest, *more, code=0, flags=None):
        done = subprocess.run(self.line((command, "-", *more), flags), input=json.dumps(manifest),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=self.env(), timeout=120)
        assert done.returncode == code, "%s: exit %d\n%s" % (command, done.returncode, done.stderr)
        return done

    @contextlib.contextmanager
    def running(self, manifest, *more, flags=None):
        """`run` beside what the test does; its log is in .stderr afterwards."""
        process = subprocess.Popen(self.line(("run", "-", *more), flags), stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=self.env())
        process.stdin.write(json.dumps(manifest))
        process.stdin.close()
        process.stdin = None
        yield process
        try:
            process.err = process.communicate(timeout=90)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(process.communicate()[1]) from None

    def render(self, manifest, *more, **job):
        """The Job; `job` is put into its spec."""
        text = self.prewarm("render", manifest, *more).stdout
        made = json.loads(_kubectl("create", "--dry-run=client", "-o", "json", "-f", "-",
                                   text=text))
        made["spec"].update(job)
        return made

    def jobs(self):
        return kube.request("GET", kube.path("jobs", self.namespace))["items"]

    def job(self):
        (job,) = self.jobs()
        return job

    def job_pods(self):
        return [pod for pod in kube.request("GET", kube.path("pods", self.namespace))["items"]
                if "batch.kubernetes.io/job-name" in pod["metadata"].get("labels", {})]

    def wait_pods(self, what, test, seconds=40):
        end = time.time() + seconds
        while True:
            found = self.job_pods()
            if test(found):
                return found
            assert time.time() < end, "not %s: %s" % (what, json.dumps(
                [pod["status"] for pod in found]))
            time.sleep(0.2)

    def deploy(self, manifest):
        """As `inject` would: its first pod, watched."""
        made = self.case.inject(manifest, *[f for f in self.flags if not f.startswith(
            ("--image", IMAGE, "--timeout"))], *FAST)
        kube.request("POST", kube.path("deployments", self.namespace), made)
        end = time.time() + 30
        while True:
            found = kube.request("GET", kube.path("pods", self.namespace) +
                                 "?labelSelector=app%3Dllm")["items"]
            if found:
                self.case.pods.append(kube.Pod(found[0], self.namespace))
                return self.case.pods[-1]
            assert time.time() < end
            time.sleep(0.1)

    def path(self, group, kind, name=None):
        return "%s/namespaces/%s/%s%s" % (group, self.namespace, kind, "/" + name if name else "")


def _condition(job, kind):
    return next((c for c in job["status"].get("conditions", [])
                 if c["type"] == kind and c["status"] == "True"), None)


def _request(case, what=REQUEST):
    path = os.path.join(case.dir, "request.json")
    with open(path, "w") as f:
        json.dump(what, f)
    return ["--request", path]


# ---- what it is for ----

def prewarm_makes_the_deployment_start_warm(case):
    """A server that never exits, and a request that has it compile one group more."""
    s = _Scene(case)
    manifest, ask = s.workload("5"), _request(case)
    began = time.time()
    done = s.prewarm("run", manifest, *ask)
    took = time.time() - began
    job = s.job()
    assert _condition(job, "Complete") and "complete: " in done.stderr, done.stderr
    (pod,) = s.job_pods()
    assert pod["status"]["phase"] == "Succeeded"
    message = json.loads(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])
    assert message["status"] == "complete" and message["groups"] == 6, message
    log = _kubectl("logs", "-n", s.namespace, pod["metadata"]["name"], "-c", "model")
    assert "asked: " + json.dumps(REQUEST["body"], separators=(",", ":")) in log.replace(
        "\\u0024", "$"), log
    # Again: there is nothing to do, and it is said without the Job, too.
    again = s.prewarm("run", manifest, *ask)
    assert "complete for this template" in again.stderr, again.stderr
    kube.request("DELETE", s.path("/apis/batch/v1", "jobs", job["metadata"]["name"]),
                 {"propagationPolicy": "Background"})
    assert "complete for this template" in s.prewarm("run", manifest, *ask).stderr
    s.prewarm("wait", manifest, *ask, "--require", "--timeout=5s",
              flags=[f for f in s.flags if f != "--timeout=90s"])
    pod = s.deploy(manifest)
    ready = pod.wait_ready() - pod.created
    init = pod.message("warmcache-init")
    assert init["status"] == "warm" and init["complete"] is True and init["files"] == 24, init
    assert case.report("found", pod) == [6], case.report("found", pod)
    return {"ready": round(ready, 1), "init": init["status"],
            "note": "run took %.1f s" % took}


def prewarm_by_force_and_after_the_cache_is_gone(case):
    s = _Scene(case)
    manifest = s.workload("3")
    s.prewarm("run", manifest)
    first = s.job()["metadata"]["uid"]
    done = s.prewarm("run", manifest, "--force")
    second = s.job()["metadata"]["uid"]
    assert second != first and _condition(s.job(), "Complete") and "--force" in done.stderr
    shutil.rmtree(s.s3.directory)
    os.makedirs(s.s3.directory)
    done = s.prewarm("run", manifest)
    assert "the cache is gone" in done.stderr, done.stderr
    assert s.job()["metadata"]["uid"] != second and _condition(s.job(), "Complete")
    assert any(files for _, _, files in os.walk(s.s3.directory)), "the store is filled again"
    return {"note": "replaced twice"}


# ---- what fails ----

def prewarm_fails_where_the_store_is_missing_and_is_replaced(case):
    """Not Complete but with the cache in the store; and the next `run` begins anew."""
    s = _Scene(case)
    os.rmdir(s.s3.directory)
    job = s.render(s.workload("3"), backoffLimit=0)
    done = s.prewarm("run", job, code=1)
    assert _condition(s.job(), "Failed") and not _condition(s.job(), "Complete")
    assert "--- event of " in done.stderr and "--- warmcache-prewarm" in done.stderr, done.stderr
    assert "--- model" in done.stderr and "1 of 1 jobs failed" in done.stderr, done.stderr
    assert s.s3.bucket in done.stderr.split("--- warmcache-prewarm")[1], done.stderr
    s.prewarm("wait", job, "--timeout=20s", "--require", code=1,
              flags=[])
    assert "cold" in s.prewarm("wait", job, "--timeout=20s", flags=[]).stderr
    os.makedirs(s.s3.directory)
    done = s.prewarm("run", job)
    assert "it had failed" in done.stderr and _condition(s.job(), "Complete"), done.stderr
    return {"note": done.stderr.splitlines()[0][25:]}


def prewarm_fails_where_the_store_is_denied(case):
    s = _Scene(case, secret="wrong")
    done = s.prewarm("run", s.render(s.workload("3"), backoffLimit=0), code=1)
    assert _condition(s.job(), "Failed"), s.job()
    assert "denied" in done.stderr.lower() or "signature" in done.stderr.lower(), done.stderr
    return {"note": done.stderr.splitlines()[-2][:120]}


def prewarm_of_a_product_that_no_node_has(case):
    s = _Scene(case)
    job = s.render(s.workload(), "--gpu-product=NVIDIA-None", activeDeadlineSeconds=6)
    began = time.time()
    done = s.prewarm("run", job, code=1)
    assert "not scheduled: " in done.stderr and "didn't match" in done.stderr, done.stderr
    assert "DeadlineExceeded" in done.stderr and time.time() - began < 40, done.stderr
    job = s.render(s.workload("7"), "--gpu-product=NVIDIA-None")
    kube.request("POST", kube.path("jobs", s.namespace), job)
    done = s.prewarm("wait", job, "--timeout=2s", flags=[])
    assert "the rollout goes on, cold" in done.stderr, done.stderr
    s.prewarm("wait", job, "--timeout=2s", "--require", flags=[], code=10)
    return {"note": "run ended after %.0f s" % (time.time() - began)}


# ---- Jobs that run ----

def prewarm_on_the_node_of_a_product(case):
    s = _Scene(case)
    node = "/api/v1/nodes/e2e-node"
    _kubectl("label", "node", "e2e-node", "nvidia.com/gpu.product=NVIDIA-" + case.name[:40])
    try:
        s.prewarm("run", s.workload(), "--gpu-product=NVIDIA-" + case.name[:40])
    finally:
        _kubectl("label", "node", "e2e-node", "nvidia.com/gpu.product-")
    assert "nvidia.com/gpu.product" not in kube.request("GET", node)["metadata"]["labels"]
    selector = s.job()["spec"]["template"]["spec"]["nodeSelector"]
    assert selector == {"nvidia.com/gpu.product": "NVIDIA-" + case.name[:40]}, selector
    return {"note": s.job()["metadata"]["name"]}


def prewarm_that_runs_already_is_followed(case):
    s = _Scene(case)
    manifest = s.workload(container={"command": ["sh", "-c", SLOW % 4]})
    with s.running(manifest) as first:
        s.wait_pods("there", lambda found: found)
        second = s.prewarm("run", manifest)
    assert first.returncode == 0, first.err
    assert "runs already" in second.stderr and "done: " in second.stderr, second.stderr
    assert len(s.jobs()) == 1 and len(s.job_pods()) == 1
    return {"note": "both ended 0"}


def prewarm_is_nobody_elses_pod(case):
    """A Service, a budget, an autoscaler and the Deployment itself don't see it."""
    s = _Scene(case)
    manifest = s.workload("2", container={"command": ["sh", "-c", SLOW % 5]})
    chosen = {"matchLabels": {"app": "llm"}}
    for path, one in (
            (s.path("/api/v1", "services"), {"spec": {
                "selector": {"app": "llm"}, "ports": [{"port": 80}]}}),
            (s.path("/apis/policy/v1", "poddisruptionbudgets"), {"spec": {
                "minAvailable": 1, "selector": chosen}}),
            (s.path("/apis/autoscaling/v2", "horizontalpodautoscalers"), {"spec": {
                "minReplicas": 1, "maxReplicas": 3, "scaleTargetRef": {
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": "llm"}}})):
        kube.request("POST", path, {"metadata": {"name": "llm"}, **one})
    pod = s.deploy(s.workload("2"))
    pod.wait_ready()

    def seen():
        slices = kube.request("GET", s.path("/apis/discovery.k8s.io/v1", "endpointslices"))["items"]
        budget = kube.request("GET", s.path("/apis/policy/v1", "poddisruptionbudgets",
                                            "llm"))["status"]
        replicas = kube.request("GET", kube.path("deployments", s.namespace, "llm") + "/scale")
        return {"addresses": [e["addresses"] for one in slices for e in one["endpoints"] or []],
                "budget": [budget[n] for n in ("expectedPods", "currentHealthy",
                                               "disruptionsAllowed")],
                "scale": replicas["status"]}
    end = time.time() + 10
    while (before := seen())["budget"] != [1, 1, 0] or not before["addresses"]:
        assert time.time() < end, before
        time.sleep(0.2)
    during = []
    with s.running(manifest) as run:
        s.wait_pods("running", lambda found: found and any(
            "running" in c.get("state", {}) for c in found[0]["status"].get(
                "containerStatuses", [])))
        for _ in range(4):
            during.append(seen())
            time.sleep(0.5)
    assert run.returncode == 0, run.err
    assert all(one == before for one in [*during, seen()]), (before, during)
    (made,) = s.job_pods()
    assert "app" not in made["metadata"]["labels"], made["metadata"]
    selector = before["scale"]["selector"]
    found = kube.request("GET", kube.path("pods", s.namespace) + "?labelSelector=" +
                         selector.replace("=", "%3D"))["items"]
    assert [p["metadata"]["name"] for p in found] == [pod.name], found
    return {"note": json.dumps(before)[:100]}


def prewarm_outlives_an_eviction(case):
    """It isn't a failure: this Job may have none."""
    s = _Scene(case)
    job = s.render(s.workload(container={"command": ["sh", "-c", SLOW % 4]},
                              terminationGracePeriodSeconds=2), backoffLimit=0)
    with s.running(job, flags=[]) as run:
        (pod,) = s.wait_pods("running", lambda found: found and any(
            "running" in c.get("state", {}) for c in found[0]["status"].get(
                "containerStatuses", [])))
        name = pod["metadata"]["name"]
        kube.request("POST", kube.path("pods", s.namespace, name) + "/eviction", {
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}})
        evicted = time.time()
    assert run.returncode == 0, run.err
    job, names = s.job(), [p["metadata"]["name"] for p in s.job_pods()]
    assert _condition(job, "Complete") and job["status"].get("failed", 0) == 0, job["status"]
    new = [n for n in names if n != name]
    assert len(new) == 1 and "%s: Running" % new[0] in run.err, (names, run.err)
    told = [line[11:23] + line.partition("pod:")[2][-60:] for line in run.err.splitlines()
            if " pod: " in line]
    return {"note": "Complete %.1f s after the eviction: %s" % (time.time() - evicted,
                                                               "; ".join(told))}


# ---- shapes and places ----

def prewarm_of_a_stateful_set(case):
    s = _Scene(case)
    manifest = s.workload("3", kind="StatefulSet", container={
        "volumeMounts": [{"name": "weights", "mountPath": "/weights"}],
        "command": ["sh", "-c", "touch /weights/x && " + SLOW % 0]})
    size = {"storage": "1Mi"}
    manifest["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "weights"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": case.name,
        "resources": {"requests": size}}}]
    directory = os.path.join(case.dir, "weights")
    os.mkdir(directory)
    os.chmod(directory, 0o777)
    kube.request("POST", "/api/v1/persistentvolumes", {
        "metadata": {"name": case.name}, "spec": {
            "capacity": size, "accessModes": ["ReadWriteOnce"], "storageClassName": case.name,
            "hostPath": {"path": directory}}})
    case.objects.append("/api/v1/persistentvolumes/" + case.name)
    s.prewarm("run", manifest)
    assert os.path.exists(directory + "/x") and _condition(s.job(), "Complete")
    return {"note": "with a claim of the Job's own"}


def prewarm_of_a_leader_worker_set(case):
    s = _Scene(case)
    pod = s.workload("3")["spec"]["template"]
    worker = {"spec": {"containers": [{"name": "worker", "image": "x:1"}]}}
    s.prewarm("run", {
        "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet",
        "metadata": {"name": "llm", "namespace": s.namespace},
        "spec": {"leaderWorkerTemplate": {"leaderTemplate": pod, "workerTemplate": worker,
                                          "size": 2}}}, "--container=model")
    assert _condition(s.job(), "Complete")
    return {"note": s.job()["metadata"]["name"]}


def prewarm_of_what_is_in_the_cluster(case):
    """deployment/NAME, injected, its ready URL in its sidecar; another image."""
    s = _Scene(case)
    pod = s.deploy(s.workload("3"))
    pod.wait_ready()
    _kubectl("label", "-n", s.namespace, "deployment/llm", "x=y")
    flags = ["--namespace", s.namespace, "--timeout=90s"]

    def run(*more):
        done = subprocess.run(["warmcache-prewarm", "run", "deployment/llm", *flags, *more],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=s.env())
        return done.returncode, done.stderr
    code, err = run()
    assert code == 0, err
    code, err = run("--set-image=e2e.local/model:2")
    assert code == 2 and "--version is missing" in err, err
    assert _condition(s.job(), "Complete")
    return {"note": err.strip()[-90:]}


RIGHTS = os.path.join(ROOT, "k8s/rbac/prewarm.yaml")


def prewarm_as_a_hook_in_a_restricted_namespace(case):
    """With the rights of k8s/rbac/prewarm.yaml and no more, store and keys from the namespace's own
    objects, and a workload that the namespace takes."""
    s = _Scene(case, labels={"pod-security.kubernetes.io/enforce": "restricted"})
    _kubectl("apply", "-n", s.namespace, "-f", RIGHTS)
    for kind, field, data in (("configmaps", "data", {"WARM_STORE": s.s3.url}),
                              ("secrets", "stringData", s.keys)):
        kube.request("POST", kube.path(kind, s.namespace), {
            "metadata": {"name": "warmcache"}, field: data})
    manifest = s.workload(
        "3", securityContext={"runAsNonRoot": True, "runAsUser": 1000,
                              "seccompProfile": {"type": "RuntimeDefault"}},
        container={"securityContext": {"allowPrivilegeEscalation": False,
                                       "capabilities": {"drop": ["ALL"]}}})
    flags = ["--image", IMAGE, *SMALL, READY, "--model=m", "--version=v1", "--timeout=90s",
             "--env=WARM_SETTLE=1s"]
    text = s.prewarm("render", manifest, "--hook=argocd", flags=flags).stdout
    name, notes = "llm-prewarm-hook", []
    for n in range(2):  # a sync, and the next one
        began = time.time()
        _kubectl("delete", "-n", s.namespace, "job", name, "--ignore-not-found")
        _kubectl("apply", "-f", "-", text=text)
        end = time.time() + 60
        while True:
            hook = kube.request("GET", kube.path("jobs", s.namespace, name))
            if _condition(hook, "Complete"):
                break
            assert not _condition(hook, "Failed") and time.time() < end, (
                hook["status"], _kubectl("logs", "-n", s.namespace, "job/" + name, code=None),
                _kubectl("get", "events", "-n", s.namespace))
            time.sleep(0.2)
        log = _kubectl("logs", "-n", s.namespace, "job/" + name)
        (job,) = [j for j in s.jobs() if j["metadata"]["name"] != name]
        assert _condition(job, "Complete") and "WARN" not in log, log
        assert ("complete for this template" in log) == (n == 1), log
        notes.append("%.1f s" % (time.time() - began))
    return {"note": "hook took " + ", ".join(notes)}


# ---- kubectl warmcache pods ----

def kubectl_warmcache_shows_pods(case):
    case.fill(["5"])
    started = {
        "warm": case.serving("5", "--every", "2000", flags=[*STORE, *FAST]),
        "cold": case.serving("5", flags=["--store=/caches", "--model=other", "--version=v1",
                                         *FAST]),
        "disabled": case.serving("5", flags=["--store=/caches", "--version=v1", *FAST],
                                 metadata={"annotations": {"warmcache.dev/model": ""},
                                           "name": case.name + "-off"})}
    for pod in started.values():
        pod.wait_ready()
    started["cold"].wait_said("warmcache-sidecar", "published: ")

    with tempfile.TemporaryDirectory(dir=case.dir) as where:
        os.symlink(shutil.which("warmcache"), where + "/kubectl-warmcache")

        def show(*more):
            done = subprocess.run(
                ["kubectl", "warmcache", "pods", "--namespace", "default", *more],
                env={**os.environ, "PATH": where + ":" + os.environ["PATH"]},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        def rows():
            found = json.loads(show("--json"))
            found = found["pods"] if isinstance(found, dict) else found
            return {what: next(r for r in found if r["pod"] == pod.name)
                    for what, pod in started.items()}
        end = time.time() + 30
        while not (seen := rows())["cold"]["published_ms"] or not seen["warm"]["published_ms"]:
            assert time.time() < end, seen
            time.sleep(0.5)
        warm, cold, off = (seen[what] for what in ("warm", "cold", "disabled"))
        assert warm["start"] == "warm" and warm["files"] == 20, warm
        assert warm["used"] == "5" and warm["inert"] == "0", warm
        assert cold["start"] == "cold" and cold["files"] == 0, cold
        assert abs(time.time() - cold["published_ms"] / 1000) < 60, cold
        assert off["sidecar"] == "disabled" and "model" in off["reason"], off
        table = show()
    lines = {what: next(line for line in table.splitlines() if line.startswith(pod.name + " "))
             for what, pod in started.items()}
    assert " warm " in lines["warm"] and " 5/0 " in lines["warm"], lines
    assert " ago " in lines["cold"] and "disabled" in lines["disabled"], lines
    return {"note": lines["warm"][:120]}
