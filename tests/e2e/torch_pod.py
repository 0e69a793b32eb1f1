#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""torch.compile in the Cog server, in the pods of a Deployment: make e2e-torch

The Deployment is made by `warmcache inject`. Its pods: version v1 cold, v1 warm, and v2 after
`warmcache-prewarm run` has filled its key. Each one's start and first prediction are measured; what
is asserted are compilers' counters, and what init, sidecar, store and `warmcache pods` say.

The model's container has the machine's own programs, libraries and torch, mounted read-only into
an image without any of these."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import kube  # noqa: E402
import pods  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(HERE))
VENV = os.path.realpath(os.path.join(
    os.environ.get("WARM_PARTS", os.path.join(ROOT, "build/parts")), "torch"))
NAME, PORT = "torch", 5000
INPUT = {"seed": 7, "batch": 3}  # setup() compiles for a batch of 1, this for any
IMAGE = "e2e.local/warmcache:1"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
COLUMNS = ["version", "init", "ready s", "first prediction s", "hits", "misses", "restored", "used",
           "inert", "published"]


def run(*command, **how):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)
    assert done.returncode == 0, "%s: %d\n%s" % (" ".join(command), done.returncode, done.stderr)
    return done


def python_home():
    """Where the venv's interpreter is installed."""
    with open(VENV + "/pyvenv.cfg", encoding="utf-8") as f:
        home = re.search(r"^home *= *(.+)/bin$", f.read(), re.MULTILINE).group(1)
    return [] if home.startswith("/usr") else [home]


def deployment(store):
    """As the model's owner would write it."""
    volumes, mounts = [], []

    def mount(path, source=None, writable=False):
        volumes.append({"name": "v%d" % len(volumes), "hostPath": {
            "path": os.path.realpath(source or path), "type": "Directory"}})
        mounts.append({"name": volumes[-1]["name"], "mountPath": path, "readOnly": not writable})
    # g++ and Python.h are among them, which Inductor needs for CPU kernels.
    for path in ["/usr", "/lib", "/bin", "/etc", VENV] + python_home():
        mount(path)
    if os.path.exists("/lib64"):
        mount("/lib64")
    mount("/src", os.path.join(ROOT, "examples/torch-cog"))
    # At the same path as here, so that `warmcache-prewarm run` sees the store, too.
    mount(store, writable=True)
    volumes.append({"name": "tmp", "emptyDir": {}})
    mounts.append({"name": "tmp", "mountPath": "/tmp"})
    env = {"PATH": VENV + "/bin:/usr/bin:/bin", "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1",
           "PORT": str(PORT), "COG_PREDICT_TYPE_STUB": "predict.py:Predictor"}
    labels = {"app": NAME}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "volumes": volumes,
                "containers": [{
                    "name": "model", "image": "e2e.local/model:1", "workingDir": "/src",
                    "command": ["python", "-m", "cog.server.http"],
                    "env": [{"name": n, "value": v} for n, v in env.items()],
                    "ports": [{"containerPort": PORT}],
                    # Cog makes this file in Kubernetes.
                    "readinessProbe": {"exec": {"command": ["test", "-e", "/var/run/cog/ready"]},
                                       "periodSeconds": 1},
                    "securityContext": {"runAsUser": 0},  # as most of Cog's images, unlike ours
                    "volumeMounts": mounts}]}}}}


class Adopted(kube.Pod):
    """A pod that a controller has made."""

    def __init__(self, pod, began):
        super().__init__(pod)
        self.created = began
        self.row = {}

    def model(self, path, body=None):
        request = urllib.request.Request(
            "http://%s:%d%s" % (self.now["status"]["podIP"], PORT, path),
            None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"})
        with OPENER.open(request, timeout=600) as response:
            return json.load(response)

    def wait_model(self, seconds=300):
        """Until Cog says READY."""
        self.wait("running", lambda pod: pod["status"].get("podIP"), 60)
        end, status = time.time() + seconds, None
        while status != "READY":
            assert time.time() < end and not self.over, "the server is %s" % status
            time.sleep(0.1)
            try:
                status = self.model("/health-check")["status"]
            except OSError:
                continue
            assert status in ("UNKNOWN", "STARTING", "READY"), status
        self.row["ready s"] = round(time.time() - self.created, 1)

    def predict(self):
        began = time.time()
        answer = self.model("/predictions", {"input": INPUT})
        self.row["first prediction s"] = round(time.time() - began, 2)
        assert answer["status"] == "succeeded", answer
        output = answer["output"]
        self.row.update(hits=output["fxgraph_cache_hit"], misses=output["fxgraph_cache_miss"],
                        checksum=output["checksum"])


class Life:
    """The store, and the pods one after another."""

    def __init__(self):
        self.case = pods.Case("torch_compile")
        self.plain = deployment(self.case.store)
        self.pods = self.case.pods

    def manifest(self, version):
        """The path of the Deployment of a version with warmcache."""
        path = os.path.join(self.case.dir, version + ".json")
        with open(path, "w", encoding="utf-8") as f:
            f.write(run(
                "warmcache", "inject", "-", "--image", IMAGE, "--for", "torch",
                "--ready-url", "http://127.0.0.1:%d/health-check" % PORT,
                # BUSY: ready, and at work for as many as it takes at once.
                "--ready-match", '"status": *"(READY|BUSY)"', "--container", "model",
                "--store", self.case.store, "--model", NAME, "--version", version,
                input=json.dumps(self.plain)).stdout)
        return path

    def scale(self, replicas):
        run("kubectl", "scale", "deployment/" + NAME, "--replicas=%d" % replicas)

    def boot(self, version):
        """A pod of a version, which has answered once."""
        began = time.time()
        run("kubectl", "apply", "-f", self.manifest(version))
        known = {pod.uid for pod in self.pods}
        while True:
            found = [pod for pod in kube.request(
                "GET", kube.path("pods") + "?labelSelector=app=" + NAME)["items"]
                if pod["metadata"]["uid"] not in known]
            if found:
                break
            assert time.time() < began + 60, "no pod of the Deployment"
            time.sleep(0.1)
        pod = Adopted(found[0], began)
        self.pods.append(pod)
        pod.wait_model()
        pod.predict()
        pod.wait_ready()
        init = pod.message("warmcache-init")
        pod.row.update(version=version, init=init["status"], restored=init["files"])
        pod.row["pods"] = self.tell(pod.name)
        assert pod.row["pods"]["start"] == init["status"], pod.row
        assert pod.row["pods"]["sidecar"] in ("started", "running"), pod.row
        return pod

    def end(self, pod):
        self.scale(0)
        pod.wait_gone(120)
        message = pod.message("warmcache-sidecar")
        assert message["status"] == "ended" and message["complete"] and message["ready"] and \
            not (message["torn"] or message["withheld"] or message["failures"]), message
        # A mark that a library could be loaded: when it's missing, that is tried again.
        left = [line for line in pod.text("warmcache-sidecar").splitlines()
                if " left-out: " in line and ".so.load_ok@" not in line]
        assert not left and message["waiting"] <= 1, (message, left)
        for what in ("used", "inert"):
            pod.row[what] = sum(groups for groups, _ in message[what].values())
        pod.row.update(published=message["files"], message=message)
        assert pod.terminated("model").get("exitCode") in (0, 143), pod.terminated("model")
        assert all(pod.restarts(c) == 0 for c in ("model", "warmcache-sidecar")), pod.now

    def tell(self, name):
        rows = json.loads(run("warmcache", "pods", "--json").stdout)
        return next(row for row in rows if row["pod"] == name)

    def stored(self, version):
        """What the store holds of a version."""
        return json.loads(run("warmcache", "show", "--json", "--store", self.case.store,
                              "--model", NAME, "--version", version).stdout)

    def prewarm(self, version):
        began = time.time()
        done = run("warmcache-prewarm", "run", self.manifest("v1"), "--version", version,
                   "--image", IMAGE, "--cog", json.dumps(INPUT))
        return done.stderr, round(time.time() - began, 1)

    def job(self):
        job, = kube.request("GET", kube.path("jobs"))["items"]
        assert any(c["type"] == "Complete" and c["status"] == "True"
                   for c in job["status"]["conditions"]), job["status"]
        pod, = kube.request("GET", kube.path("pods") + "?labelSelector=batch.kubernetes.io/job-name=" +
                            job["metadata"]["name"])["items"]
        return self.tell(pod["metadata"]["name"])


def live(life):
    cold = life.boot("v1")
    life.end(cold)
    assert cold.row["init"] == "cold" and cold.row["restored"] == 0, cold.row
    assert cold.row["hits"] == 0 and cold.row["misses"] > 0, cold.row
    stored = life.stored("v1")
    assert stored["complete"] and sum(p["files"] for p in stored["profiles"]) > 0, stored

    warm = life.boot("v1")
    life.end(warm)
    check_warm(warm, cold)

    log, seconds = life.prewarm("v2")
    print(log)
    job = life.job()
    assert job["start"] == "fallback" and job["files"] > 0, job  # v1's graphs, without its kernels
    stored = life.stored("v2")
    assert stored["complete"], stored
    again, again_seconds = life.prewarm("v2")
    assert "is complete for this template" in again, again
    life.job()  # and no other one

    filled = life.boot("v2")
    print(run("warmcache", "pods").stdout)
    life.end(filled)
    check_warm(filled, cold)
    return {"cold": cold.row, "warm": warm.row, "prewarmed": filled.row,
            "prewarm": {"run s": seconds, "again s": again_seconds, "pods": job}}


def check_warm(pod, cold):
    row = pod.row
    assert row["init"] == "warm" and row["restored"] > 0, row
    assert row["hits"] > 0 and row["misses"] == 0, row
    assert row["checksum"] == cold.row["checksum"], (row, cold.row)
    assert row["used"] > 0, row
    assert pod.said("warmcache-sidecar", " inert: ") is None, row
    # Ten times as fast where nobody else works: no noise takes all of that.
    assert row["first prediction s"] * 2 < cold.row["first prediction s"], (row, cold.row)


def main():
    life, began = Life(), time.time()
    try:
        rows = live(life)
    except Exception:
        for pod in life.pods:
            for container in ("warmcache-init", "warmcache-sidecar", "model"):
                print("--- %s: %s: %s\n%s" % (pod.name, container, pod.terminated(container),
                                              pod.text(container)))
        raise
    with open("build/e2e-torch.json", "w", encoding="utf-8") as f:
        json.dump(rows, f, indent=1)
    lines = [["pod"] + COLUMNS] + [[name] + [str(rows[name][c]) for c in COLUMNS]
                                   for name in ("cold", "warm", "prewarmed")]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    for name in ("warm", "prewarmed"):
        print("%s: ready in 1/%.1f of the cold pod's time, first prediction in 1/%.1f" % (
            name, *(rows["cold"][c] / rows[name][c] for c in ("ready s", "first prediction s"))))
    print("prewarm: %.1f s; once more, when it is complete: %.1f s; all of it %.0f s" % (
        rows["prewarm"]["run s"], rows["prewarm"]["again s"], time.time() - began))


if __name__ == "__main__":
    main()
