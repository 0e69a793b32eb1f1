# SPDX-License-Identifier: Apache-2.0
"""A small client of the API of tests/e2e/cluster, pods of it, and what is seen of them. Works
inside the cluster's namespaces alone (`cluster run`)."""

import glob
import http.client
import json
import re
import ssl
import subprocess
import threading
import time
import urllib.request
from datetime import datetime

INSIDE = "/run/e2e"
ADDRESS = ("10.77.1.1", 6443)


class ApiError(Exception):
    pass


def _connect(timeout):
    context = ssl.create_default_context(cafile=INSIDE + "/pki/ca.crt")
    context.load_cert_chain(INSIDE + "/pki/admin.crt", INSIDE + "/pki/admin.key")
    return http.client.HTTPSConnection(*ADDRESS, context=context, timeout=timeout)


def request(method, path, body=None):
    connection = _connect(30)
    try:
        connection.request(method, path, None if body is None else json.dumps(body),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read().decode()
        if response.status >= 300:
            raise ApiError("%s %s: %d %s" % (method, path, response.status, answer[:500]))
        return json.loads(answer)
    finally:
        connection.close()


def path(kind, namespace="default", name=None):
    """Of objects of a namespace, or of one of them."""
    group = {"deployments": "/apis/apps/v1", "statefulsets": "/apis/apps/v1",
             "jobs": "/apis/batch/v1"}.get(kind, "/api/v1")
    return "%s/namespaces/%s/%s%s" % (group, namespace, kind, "/" + name if name else "")


def get(url):
    """The status of an answer, by HTTP, without a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return response.status


def when(text):
    """Seconds since 1970 of an RFC 3339 time with any number of decimals."""
    whole, fraction = re.match(r"([^.Z+]*)(\.\d+)?", text).groups()
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(fraction or 0)


class Tasks:
    """When containers started and ended, to the microsecond: containerd's events. The API tells
    seconds."""

    def __init__(self):
        self.started, self.ended = {}, {}
        self.process = subprocess.Popen(
            ["ctr", "--address", "/run/containerd.sock", "-n", "k8s.io", "events"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            match = re.match(r"(\S+) (\S+) \S+ UTC \S+ /tasks/(start|exit) (\{.*)", line)
            if not match:
                continue
            event = json.loads(match.group(4))
            name = event["container_id"]
            if event.get("id", name) != name:
                continue  # an exec
            at = when("%sT%sZ" % match.group(1, 2))
            (self.started if match.group(3) == "start" else self.ended).setdefault(name, at)

    def close(self):
        self.process.kill()
        self.process.wait()


class Pod:
    """A pod, watched from its creation to its end. One that a controller has made is watched as well."""

    def __init__(self, manifest, namespace="default"):
        self.name, self.namespace = manifest["metadata"]["name"], namespace
        self.seen = []  # (time, event type, object)
        self.ids = {}  # container: the ids of its instances, in order
        self.files = {}  # (container, file name): open log
        self.news = threading.Condition()
        self.over = False
        self.created = time.time()
        self.uid = manifest["metadata"].get("uid") or request(
            "POST", path("pods", namespace), manifest)["metadata"]["uid"]
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._watch, self._logs)]
        for thread in self.threads:
            thread.start()

    def _watch(self):
        version = "0"
        while not self.over:
            connection = _connect(600)
            try:
                connection.request("GET", "%s?watch=1&resourceVersion=%s&fieldSelector=metadata.name"
                                   "%%3D%s" % (path("pods", self.namespace), version, self.name))
                for line in connection.getresponse():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        version = "0"
                        break
                    pod = event["object"]
                    version = pod["metadata"]["resourceVersion"]
                    if pod["metadata"]["uid"] == self.uid:
                        self._note(event["type"], pod)
                    if self.over:
                        break
            except (OSError, http.client.HTTPException):
                time.sleep(0.2)
            finally:
                connection.close()

    def _note(self, kind, pod):
        with self.news:
            self.seen.append((time.time(), kind, pod))
            for status in statuses(pod):
                for state in (status.get("lastState", {}).get("terminated"),
                              status.get("state", {}).get("terminated"), status):
                    name = (state or {}).get("containerID", "").rpartition("//")[2]
                    names = self.ids.setdefault(status["name"], [])
                    if name and name not in names:
                        names.append(name)
            self.over = self.over or kind == "DELETED"
            self.news.notify_all()

    def _logs(self):
        """Hold the logs open: they are read when the kubelet has deleted them."""
        where = "/var/log/pods/%s_%s_%s/" % (self.namespace, self.name, self.uid)
        while not self.over:
            for file in glob.glob(where + "*/*.log"):
                key = tuple(file[len(where):].split("/"))
                if key not in self.files:
                    try:
                        self.files[key] = open(file, encoding="utf-8", errors="replace")
                    except OSError:
                        pass
            time.sleep(0.05)

    def log(self, container):
        """[(time, line)] of all instances of a container, in order."""
        lines = []
        for key in sorted(self.files, key=lambda k: (k[0], int(k[1].split(".")[0]))):
            if key[0] != container:
                continue
            self.files[key].seek(0)
            for line in self.files[key]:
                parts = line.rstrip("\n").split(" ", 3)
                lines.append((when(parts[0]), parts[3] if len(parts) > 3 else ""))
        return lines

    def text(self, container):
        return "\n".join(line for _, line in self.log(container))

    def said(self, container, pattern):
        """When a line first matched, or None."""
        return next((at for at, line in self.log(container) if re.search(pattern, line)), None)

    @property
    def now(self):
        return self.seen[-1][2] if self.seen else {}

    def wait(self, what, test, seconds=60):
        """Until test(pod object) is true."""
        end = time.time() + seconds
        with self.news:
            while not (self.seen and test(self.now)):
                left = end - time.time()
                if left <= 0 or (self.over and not test(self.now)):
                    raise AssertionError("%s: not %s after %d s: %s" % (
                        self.name, what, seconds, json.dumps(self.now.get("status"))))
                self.news.wait(left)
        return self.now

    def wait_ready(self, seconds=60):
        self.wait("ready", lambda pod: is_ready(pod), seconds)
        return next(at for at, _, pod in self.seen if is_ready(pod))

    def wait_said(self, container, pattern, seconds=60):
        end = time.time() + seconds
        while self.said(container, pattern) is None:
            if time.time() > end:
                raise AssertionError("%s: %s never said %s:\n%s" % (
                    self.name, container, pattern, self.text(container)))
            time.sleep(0.1)
        return self.said(container, pattern)

    def delete(self, grace=None):
        """Returns T0."""
        at = time.time()
        request("DELETE", path("pods", self.namespace, self.name),
                {"apiVersion": "v1", "kind": "DeleteOptions",
                 **({} if grace is None else {"gracePeriodSeconds": grace})})
        return at

    def wait_gone(self, seconds=90):
        end = time.time() + seconds
        while not self.over and time.time() < end:
            time.sleep(0.05)
        assert self.over, "%s: not gone after %d s" % (self.name, seconds)
        return self.seen[-1][0]

    def terminated(self, container):
        """The last state in which a container had ended, by all that was seen of the pod."""
        for _, _, pod in reversed(self.seen):
            for status in statuses(pod):
                if status["name"] == container:
                    for state in ("state", "lastState"):
                        if "terminated" in status.get(state, {}):
                            return status[state]["terminated"]
        return {}

    def message(self, container):
        text = self.terminated(container).get("message", "")
        try:
            return json.loads(text)
        except ValueError:
            return text or None

    def unready(self, since):
        """[(when, for how long)] it was not Ready after having been so, from a time on."""
        spans, began = [], None
        for at, _, pod in self.seen:
            if at < since:
                continue
            if not is_ready(pod) and began is None:
                began = at
            elif is_ready(pod) and began is not None:
                spans.append((round(began - since, 1), round(at - began, 1)))
                began = None
        return spans + ([(round(began - since, 1), None)] if began is not None else [])

    def restarts(self, container):
        return next(s["restartCount"] for s in statuses(self.now) if s["name"] == container)


def statuses(pod):
    status = pod.get("status", {})
    return status.get("initContainerStatuses", []) + status.get("containerStatuses", [])


def is_ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True"
               for c in pod.get("status", {}).get("conditions", []))
