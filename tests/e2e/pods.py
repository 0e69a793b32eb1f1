# SPDX-License-Identifier: Apache-2.0
"""The pods of the tests: init, native sidecar with preStop, model, and a directory of the node for
a store; and what is found of them afterwards."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import kube

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../integration"))
import layer  # noqa: E402

USER = 65532
SILENT = "10.77.2.1"  # an address of the node that drops what it gets: run_pods.py makes it so
SILENT_S3 = "s3://caches/x?endpoint=http://%s:9000" % SILENT
CREDENTIALS = [("AWS_ACCESS_KEY_ID", "e2e"), ("AWS_SECRET_ACCESS_KEY", "e2e"),
               ("AWS_REGION", "us-east-1")]


IMAGE = "e2e.local/warmcache:1"
KEY = ("--model=m", "--version=v1")
STORE = ("--store=/caches", *KEY)
FAST = ("--env=WARM_SPREAD=0", "--env=WARM_SETTLE=1s", "--env=WARM_INTERVAL=1s")


class Skip(Exception):
    """Of a test that this machine can't run."""


class Case:
    """One test: a directory with the store and the model's report, and its pods."""

    tasks = None  # kube.Tasks, made by run_pods.py

    def __init__(self, name):
        self.name = name.replace("_", "-")
        self.dir = os.path.join(kube.INSIDE, "work", name)
        self.store, self.reports = self.dir + "/store", self.dir + "/report"
        shutil.rmtree(self.dir, ignore_errors=True)  # of a run before
        for path in (self.store, self.reports):
            os.makedirs(path)
            os.chown(path, USER, USER)
        self.pods = []
        self.objects = []  # paths of what else was created

    def close(self):
        """Delete what is left."""
        for path in self.objects + [kube.path("pods", pod.namespace, pod.name)
                                    for pod in self.pods if not pod.over]:
            try:
                kube.request("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions",
                                              "propagationPolicy": "Background",
                                              "gracePeriodSeconds": 0})
            except kube.ApiError:
                pass

    # ---- pods that `warmcache inject` makes ----

    def plain(self, *model, container=None, metadata=None, caches=True, **spec):
        """A pod without anything of ours: a model that serves, in the directory that a variable will
        name, and a directory of the node that can be a store, at /caches."""
        mounts = [{"name": "caches", "mountPath": "/caches"}]
        volumes = [{"name": "caches", "hostPath": {"path": self.store, "type": "Directory"}}]
        return {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "%s-%d" % (self.name[:50].rstrip("-"), len(self.pods)),
                         **(metadata or {})},
            "spec": {"automountServiceAccountToken": False, "enableServiceLinks": False,
                     **({"volumes": volumes} if caches else {}), **spec,
                     "containers": [{
                         "name": "model", "image": "e2e.local/model:1",
                         "command": ["model", "$(TRITON_CACHE_DIR)", *model, "--serve", "8080"],
                         "readinessProbe": {"httpGet": {"path": "/", "port": 8080},
                                            "periodSeconds": 1},
                         **({"volumeMounts": mounts} if caches else {}), **(container or {})}]}}

    @staticmethod
    def inject(manifest, *flags):
        """What `warmcache inject` makes of it. The node is small: a start shall take no whole CPU."""
        done = subprocess.run(
            ["warmcache", "inject", "-", "--image", IMAGE, "--init-cpu=200m", *flags],
            input=json.dumps(manifest), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def create(self, kind, manifest, namespace="default"):
        answer = kube.request("POST", kube.path(kind, namespace), manifest)
        self.objects.append(kube.path(kind, namespace, answer["metadata"]["name"]))
        return answer

    def run(self, manifest, namespace="default"):
        self.pods.append(kube.Pod(manifest, namespace))
        return self.pods[-1]

    def serving(self, *model, flags=STORE, namespace="default", **how):
        return self.run(self.inject(self.plain(*model, **how), *flags), namespace)

    def adopt(self, label, count=1, seconds=30):
        """The pods with a label, when there are so many; those that weren't known are watched."""
        end = time.time() + seconds
        while True:
            found = kube.request("GET", kube.path("pods") + "?labelSelector=" + label)["items"]
            found = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
            if len(found) >= count:
                break
            assert time.time() < end, "%d pods of %s, not %d" % (len(found), label, count)
            time.sleep(0.1)
        known = {pod.uid: pod for pod in self.pods}
        for pod in found:
            if pod["metadata"]["uid"] not in known:
                known[pod["metadata"]["uid"]] = self.run(pod)
        return [known[pod["metadata"]["uid"]] for pod in found]

    def job_complete(self, name, seconds=60):
        end = time.time() + seconds
        while True:
            status = kube.request("GET", kube.path("jobs", name=name))["status"]
            if any(c["type"] == "Complete" and c["status"] == "True"
                   for c in status.get("conditions", [])):
                return
            assert time.time() < end, status
            time.sleep(0.2)

    # ---- pods that are written out here ----

    def manifest(self, model, store="/caches", grace=30, pre_stop=True, sidecar=(), init=(),
                 env=(), restart="Always", cpu=None,
                 parts=("warmcache-init", "warmcache-sidecar")):
        name = "%s-%d" % (self.name[:50].rstrip("-"), len(self.pods))
        env = [{"name": n, "value": v} for n, v in (
            ("WARM_STORE", store), ("WARM_MODEL", "m"), ("WARM_VERSION", "v1"), *env)]
        volume = {"name": "warmcache", "mountPath": "/warmcache"}
        mine = {"image": "e2e.local/warmcache:1", "imagePullPolicy": "Never", "env": env,
                "volumeMounts": [volume, {"name": "caches", "mountPath": "/caches"}],
                "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True,
                                    "readOnlyRootFilesystem": True,
                                    "capabilities": {"drop": ["ALL"]}}}
        first = {"name": "warmcache-init", "command": ["warmcache-init", *init], **mine}
        beside = {"name": "warmcache-sidecar", "command": ["warmcache-sidecar", *sidecar],
                  "restartPolicy": "Always", **mine}
        if cpu:
            beside["resources"] = {"limits": {"cpu": cpu, "memory": "64Mi"}}
        if pre_stop:
            beside["lifecycle"] = {"preStop": {"exec": {
                "command": ["warmcache-sidecar", "--pre-stop"]}}}
        then = ["--report", "/report/" + name]
        return {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": restart, "terminationGracePeriodSeconds": grace,
                "automountServiceAccountToken": False, "enableServiceLinks": False,
                "volumes": [{"name": "warmcache", "emptyDir": {}}] + [
                    {"name": n, "hostPath": {"path": path, "type": "Directory"}}
                    for n, path in (("caches", self.store), ("report", self.reports))],
                "initContainers": [c for c in (first, beside) if c["name"] in parts],
                "containers": [{
                    "name": "model", "image": "e2e.local/model:1", "imagePullPolicy": "Never",
                    "command": ["model", "/warmcache/triton", *model, *then],
                    "volumeMounts": [volume, {"name": "report", "mountPath": "/report"}]}]}}

    def start(self, **how):
        self.pods.append(kube.Pod(self.manifest(**how)))
        return self.pods[-1]

    def fill(self, model):
        """Have the store filled by a pod of the same kind that ends well."""
        pod = self.start(model=model)
        pod.wait_ready()
        pod.delete()
        pod.wait_gone()
        assert pod.message("warmcache-sidecar")["status"] == "ended", pod.text("warmcache-sidecar")

    def volume(self, pod):
        return "%s/kubelet/pods/%s/volumes/kubernetes.io~empty-dir/warmcache" % (
            kube.INSIDE, pod.uid)

    def kill(self, container, pod, signal="SIGKILL"):
        subprocess.run(["ctr", "--address", "/run/containerd.sock", "-n", "k8s.io",
                        "tasks", "kill", "-s", signal, pod.ids[container][-1]], check=True,
                       stderr=subprocess.DEVNULL)

    def events(self, pod=None):
        """[(time, event, number)] of the model of the last pod."""
        pod = pod or self.pods[-1]
        path = os.path.join(self.reports, pod.name)
        if os.path.exists(path):
            with open(path) as f:
                text = f.read()
        else:
            text = pod.text("model")
        lines = [line.split() for line in text.splitlines()
                 if re.fullmatch(r"[0-9.]+ \w+ \d+", line)]
        return [(float(at), event, int(n)) for at, event, n in lines]

    def report(self, event, pod=None):
        return [n for _, what, n in self.events(pod) if what == event]

    def groups(self):
        """(names of whole groups, names of torn ones, copies of groups) in the store."""
        whole, torn, copies = set(), set(), 0
        for path in layer.objects(self.store):
            found, contents = layer.read(path)
            for group in found.groups:
                if group["profile"] != "triton":
                    continue
                copies += 1
                files = {os.path.basename(f["path"]): contents[f["path"]] for f in group["files"]}
                manifest = files.get("__grp__kernel.json")
                complete = manifest and all(map(files.get, json.loads(manifest)["child_paths"]))
                (whole if complete else torn).add(group["name"])
        return whole, torn - whole, copies

    def started(self, container, pod):
        return self.tasks.started.get(pod.ids[container][-1])

    def ended(self, container, pod):
        return self.tasks.ended.get(pod.ids[container][-1])

    def row(self, pod, t0):
        events = self.events(pod)
        whole, torn, copies = self.groups()
        text = pod.text("warmcache-sidecar")
        status = [line for line in text.splitlines() if " status: " in line]

        def since(at):
            return None if at is None else round(at - t0, 2)
        before = [n for at, what, n in events if at <= t0 + 0.2 or what in ("found", "ready")]
        term = [n for _, what, n in events if what == "term"]
        return {
            "at_t0": term[-1] if term else max(before, default=0),
            "written": events[-1][2] if events else 0,
            "whole": len(whole), "torn": len(torn), "copies": copies,
            "draining": since(pod.said("warmcache-sidecar", "sidecar: draining: ")),
            "model_end": since(self.ended("model", pod)),
            "sigterm": since(pod.said("warmcache-sidecar", "sidecar: ending: ")),
            "end": since(self.ended("warmcache-sidecar", pod)),
            "gone": since(pod.seen[-1][0]) if pod.over else None,
            "exit": pod.terminated("warmcache-sidecar").get("exitCode"),
            "message": pod.message("warmcache-sidecar"),
            "last_status": re.sub(r"^.* status: ", "", status[-1]) if status else "",
            "t0": round(t0, 3),
        }
