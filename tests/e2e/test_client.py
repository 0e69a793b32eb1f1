#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""lib/kube against a real API server, by kubecall.c: tests/e2e/cluster run python3 tests/e2e/test_client.py

Needs build/e2e/kubecall (`make build/e2e/kubecall`). A test is a function whose name begins with
'test_'."""

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kube  # noqa: E402

CALL = os.path.abspath("build/e2e/kubecall")
WORK = kube.INSIDE + "/work"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
MAPS = "/api/v1/namespaces/default/configmaps"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/"


def call(*args, env=None):
    """The last line that kubecall prints, parsed."""
    r = subprocess.run([CALL, *args], env={**os.environ, **(env or {})}, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, timeout=90)
    assert r.stdout, r
    return json.loads(r.stdout.splitlines()[-1])


def ask(method, path, body=None, env=None):
    return call("request", method, path, *([] if body is None else [json.dumps(body)]), env=env)


def configmap(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": name, "labels": {"test": name.split("-")[0]}}}


def token(account, seconds=600):
    return kube.request("POST", ACCOUNTS + "/%s/token" % account,
                        {"spec": {"expirationSeconds": seconds}})["status"]["token"]


def in_pod(account):
    """The environment of a pod with this service account."""
    os.makedirs(ACCOUNT, exist_ok=True)
    with open(kube.INSIDE + "/pki/ca.crt") as f:
        put(ACCOUNT + "/ca.crt", f.read())
    put(ACCOUNT + "/namespace", "default")
    put(ACCOUNT + "/token", token(account))
    return {"KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": kube.ADDRESS[0],
            "KUBERNETES_SERVICE_PORT": str(kube.ADDRESS[1])}


def put(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


def account_with(name, *rules):
    """A ServiceAccount with a Role of `rules`: (group, resource, verbs)."""
    kube.request("POST", ACCOUNTS, {"metadata": {"name": name}})
    kube.request("POST", RBAC + "roles", {
        "metadata": {"name": name},
        "rules": [{"apiGroups": [g], "resources": [r], "verbs": v} for g, r, v in rules]})
    kube.request("POST", RBAC + "rolebindings", {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}]})


class Watch:
    def __init__(self, path, seconds, env=None):
        self.process = subprocess.Popen([CALL, "watch", path, str(seconds)], text=True,
                                        stdout=subprocess.PIPE, env={**os.environ, **(env or {})})
        self.lines = []

    def until(self, test):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))
            if test(self.lines[-1]):
                return
        raise AssertionError("the watch ended: %s" % self.lines)

    def end(self):
        self.process.kill()
        self.process.wait()

    def states(self):
        return [(e["event"], e["name"], e["version"]) for e in self.lines if "name" in e]


def named(event, name):
    return lambda e: e.get("event") == event and e.get("name") == name


def test_a_client_certificate_is_taken():
    assert ask("GET", "/version")["answer"]["major"] == "1"
    assert ask("POST", MAPS, configmap("cert-1", a="b"))["answer"]["data"] == {"a": "b"}
    r = ask("PATCH", MAPS + "/cert-1", {"data": {"c": "d"}})
    assert r["answer"]["data"] == {"a": "b", "c": "d"}, r
    assert ask("DELETE", MAPS + "/cert-1")["answer"]["status"] == "Success"


def test_certificates_within_the_kubeconfig_are_taken():
    def data(name):
        with open(kube.INSIDE + "/pki/" + name, "rb") as f:
            return base64.b64encode(f.read()).decode()
    put(WORK + "/inline", json.dumps({
        "current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {
            "server": "https://localhost.invalid:%d" % kube.ADDRESS[1],
            "certificate-authority-data": data("ca.crt")}}],
        "users": [{"name": "u", "user": {"client-certificate-data": data("admin.crt"),
                                         "client-key-data": data("admin.key")}}]})
        .replace("localhost.invalid", kube.ADDRESS[0]))
    assert "answer" in ask("GET", MAPS, env={"KUBECONFIG": WORK + "/inline"})


def test_what_is_wrong_has_its_status():
    ask("POST", MAPS, configmap("wrong-1"))
    r = ask("POST", MAPS, configmap("wrong-1"))
    assert (r["status"], r["http"]) == ("exists", 409) and "already exists" in r["message"], r
    old = ask("GET", MAPS + "/wrong-1")["answer"]
    ask("PATCH", MAPS + "/wrong-1", {"data": {"x": "y"}})
    r = ask("PUT", MAPS + "/wrong-1", old)
    assert (r["status"], r["http"]) == ("exists", 409) and "read it again" in r["message"], r
    r = ask("POST", "/apis/batch/v1/namespaces/default/jobs", {
        "metadata": {"name": "wrong"}, "spec": {"template": {"spec": {"containers": [
            {"name": "NOT VALID", "image": "x"}]}}}})
    assert (r["status"], r["http"]) == ("invalid", 422), r
    assert "spec.template.spec.containers[0].name" in r["message"], r
    r = ask("GET", MAPS + "/absent")
    assert (r["status"], r["http"]) == ("not-found", 404), r
    assert "configmaps \"absent\" not found" in r["message"], r
    for path in ("/apis/nowhere.example/v1/things", "/api/v1/namespaces/default/things"):
        r = ask("GET", path)
        assert r["http"] == 404 and "this server knows no things" in r["message"], r
    r = ask("POST", "/api/v1/namespaces/absent/configmaps", configmap("wrong-2"))
    assert r["http"] == 404 and "namespaces \"absent\" not found" in r["message"], r
    r = ask("POST", MAPS, {"metadata": 5})
    assert (r["status"], r["http"]) == ("invalid", 400), r


def test_a_service_account_that_lacks_a_verb_is_told():
    account_with("reader", ("", "configmaps", ["get", "list", "watch"]))
    env = in_pod("reader")
    assert "answer" in ask("GET", MAPS, env=env)
    r = ask("POST", MAPS, configmap("no-1"), env=env)
    assert (r["status"], r["http"]) == ("denied", 403), r
    user = "system:serviceaccount:default:reader"
    assert user + " may not create configmaps in namespace default" in r["message"], r
    assert "kubectl auth can-i create configmaps -n default --as %s" % user in r["message"], r
    r = ask("GET", "/apis/batch/v1/namespaces/default/jobs?watch=1", env=env)
    assert "may not watch jobs.batch in namespace default" in r["message"], r


def test_a_token_that_rotates_is_read_again():
    account_with("rotated", ("", "configmaps", ["list"]))
    env = in_pod("rotated")
    process = subprocess.Popen([CALL, "repeat", MAPS, "10"], text=True, stdout=subprocess.PIPE,
                               env={**os.environ, **env})
    try:
        assert json.loads(process.stdout.readline()) == {"ok": True}
        # The old one is no good any more: its account is another of the same name.
        kube.request("DELETE", ACCOUNTS + "/rotated")
        kube.request("POST", ACCOUNTS, {"metadata": {"name": "rotated"}})
        put(ACCOUNT + "/token", token("rotated"))
        lines = [json.loads(line) for line in process.stdout]
    finally:
        process.kill()
        process.wait()
    assert len(lines) > 5 and lines[-5:] == [{"ok": True}] * 5, lines
    put(ACCOUNT + "/token", "no.such.token")
    r = ask("GET", MAPS, env=env)
    assert r["http"] == 401 and ACCOUNT + "/token" in r["message"], r
    assert "the pod's service account" in r["message"] and "no.such" not in r["message"], r


def test_a_list_comes_in_pieces():
    for i in range(7):
        kube.request("POST", MAPS, configmap("piece-%d" % i))
    r = ask("GET", MAPS + "?labelSelector=test%3Dpiece&limit=2")["answer"]
    names = [o["metadata"]["name"] for o in r["items"]]
    assert names == ["piece-%d" % i for i in range(7)], names
    assert "continue" not in r["metadata"] and "remainingItemCount" not in r["metadata"], r["metadata"]


def test_a_plugin_gives_the_token():
    account_with("plugin", ("", "configmaps", ["list"]))
    put(WORK + "/plugin", """#!/bin/sh
[ -n "$KUBERNETES_EXEC_INFO" ] && [ "$WHO" = plugin ] || exit 3
echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
       "status": {"token": "%s"}}'
""" % token("plugin"))
    os.chmod(WORK + "/plugin", stat.S_IRWXU)
    put(WORK + "/exec", """
current-context: x
contexts: [{name: x, context: {cluster: c, user: u}}]
clusters:
- name: c
  cluster: {server: "https://%s:%d", certificate-authority: ../pki/ca.crt}
users:
- name: u
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: ./plugin
      interactiveMode: Never
      provideClusterInfo: true
      env: [{name: WHO, value: plugin}]
""" % kube.ADDRESS)
    env = {"KUBECONFIG": WORK + "/exec"}
    assert "answer" in ask("GET", MAPS, env=env)
    r = ask("DELETE", MAPS + "/x", env=env)
    assert "system:serviceaccount:default:plugin may not delete configmaps" in r["message"], r


def test_a_server_of_another_authority_is_not_trusted():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other",
                    "-keyout", WORK + "/other.key", "-out", WORK + "/other.crt"], check=True,
                   stderr=subprocess.DEVNULL)
    put(WORK + "/untrusted", json.dumps({
        "current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://%s:%d" % kube.ADDRESS,
                                               "certificate-authority": "other.crt"}}]}))
    r = ask("GET", MAPS, env={"KUBECONFIG": WORK + "/untrusted"})
    assert r["status"] == "denied" and "isn't trusted" in r["message"], r


def test_a_watch_tells_sixty_changes_once_each():
    watch = Watch(MAPS + "?labelSelector=test%3Dsixty&timeoutSeconds=1", 60)
    try:
        watch.until(lambda e: e["event"] == "listed")
        wanted = []
        for i in range(20):
            o = kube.request("POST", MAPS, configmap("sixty-%d" % i))
            wanted.append(("added", o["metadata"]["name"], o["metadata"]["resourceVersion"]))
            o["data"] = {"a": "b"}
            o = kube.request("PUT", MAPS + "/sixty-%d" % i, o)
            wanted.append(("modified", o["metadata"]["name"], o["metadata"]["resourceVersion"]))
            kube.request("DELETE", MAPS + "/sixty-%d" % i)
            wanted.append(("deleted", o["metadata"]["name"], None))
            time.sleep(0.15)  # over several watches of a second
        watch.until(named("deleted", "sixty-19"))
    finally:
        watch.end()
    got = [(e, n, None if e == "deleted" else v) for e, n, v in watch.states()]
    assert got == wanted, got


def restart_apiserver(meanwhile):
    """Kill it, do something to etcd, start it as it was."""
    pid = int(subprocess.run(["pgrep", "-f", "^[^ ]*/kube-apiserver "], stdout=subprocess.PIPE,
                             text=True, check=True).stdout.split()[0])
    with open("/proc/%d/cmdline" % pid, "rb") as f:
        command = f.read().rstrip(b"\0").split(b"\0")
    os.kill(pid, signal.SIGKILL)
    while subprocess.run(["pgrep", "-f", "^[^ ]*/kube-apiserver "], stdout=subprocess.DEVNULL,
                         check=False).returncode == 0:
        time.sleep(0.05)  # it may tell what happens until it is gone
    meanwhile()
    with open(kube.INSIDE + "/log/kube-apiserver-2", "ab") as log:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                         start_new_session=True)
    end = time.time() + 60
    while time.time() < end:
        try:
            return kube.request("GET", MAPS)
        except (OSError, kube.ApiError):
            time.sleep(0.2)
    raise AssertionError("the API server didn't come again")


def etcd(path, body):
    """etcd's JSON gateway; keys and values are base64."""
    import urllib.request
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request("http://127.0.0.1:2379/v3/" + path, json.dumps(body).encode())
    return json.loads(opener.open(request, timeout=10).read())


def test_zz_a_server_that_is_killed_is_waited_for_and_what_it_compacted_is_listed():
    for name in ("kill-stays", "kill-changes", "kill-goes"):
        kube.request("POST", MAPS, configmap(name))
    watch = Watch(MAPS + "?labelSelector=test%3Dkill", 120)

    def meanwhile():
        """While nobody serves: one goes, and all history does."""
        key = base64.b64encode(b"/registry/configmaps/default/kill-goes").decode()
        header = etcd("kv/deleterange", {"key": key})["header"]
        other = base64.b64encode(b"/registry/configmaps/default/kill-changes").decode()
        value = etcd("kv/range", {"key": other})["kvs"][0]["value"]
        header = etcd("kv/put", {"key": other, "value": value})["header"]
        etcd("kv/compaction", {"revision": header["revision"], "physical": True})
    try:
        watch.until(lambda e: e["event"] == "listed")
        before = len(watch.lines)
        restart_apiserver(meanwhile)
        watch.until(lambda e: e["event"] == "listed")
        kube.request("POST", MAPS, configmap("kill-new"))
        watch.until(named("added", "kill-new"))
        assert watch.process.poll() is None
    finally:
        watch.end()
    after = [(e["event"], e.get("name")) for e in watch.lines[before:]]
    assert ("deleted", "kill-goes") in after and ("modified", "kill-changes") in after, after
    assert ("listed", None) in after, after
    assert not any(n == "kill-stays" for _, n in after), after
    states = watch.states()
    assert len(set(states)) == len(states), states


def main(names):
    os.makedirs(WORK, exist_ok=True)
    failed = 0
    for name, fn in sorted(globals().items()):
        if not name.startswith("test_") or not callable(fn) or \
                (names and not any(n in name for n in names)):
            continue
        began = time.time()
        try:
            fn()
            print("ok   %s (%.1f s)" % (name, time.time() - began), flush=True)
        except Exception:  # noqa: BLE001: a test's fault is told, whatever it is
            failed += 1
            print("FAIL %s\n%s" % (name, traceback.format_exc()), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
