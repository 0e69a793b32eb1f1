# SPDX-License-Identifier: Apache-2.0
"""k8s/ on a real cluster. What the admission policy and the Kustomize component make of a pod is
held to what `warmcache inject` makes of it, as the API server then sees both; roles and CronJobs
are tried."""

import contextlib
import copy
import difflib
import glob
import http.client
import itertools
import json
import os
import random
import re
import subprocess
import tempfile
import threading
import time

import kube
from pods import USER, layer

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
PARTS = os.environ.get("WARM_PARTS", os.path.join(ROOT, "build/parts"))
VALIDATE = os.path.join(PARTS, "kubernetes-validate/bin")
IMAGE = "e2e.local/warmcache:1"
MODEL = "e2e.local/model:1"
OURS = ["warmcache-init", "warmcache-sidecar"]
SAFE = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
LABEL = {"warmcache.dev/inject": "true"}
SERIAL = itertools.count()
STAMP = "%x" % int(time.time())


# ---- the API ----

_thread = threading.local()


def _call(method, path, body=None, user=None):
    """(status, answer), as a service account "NAMESPACE:NAME" where one is given."""
    headers = {"Content-Type": "application/json"}
    if method == "PATCH":
        headers["Content-Type"] = "application/strategic-merge-patch+json"
    if user:
        headers["Impersonate-User"] = "system:serviceaccount:" + user
    # The server closes one that nobody used for long.
    if time.time() - getattr(_thread, "used", 0) > 20:
        _thread.connection = kube._connect(30)
    _thread.used = time.time()
    try:
        _thread.connection.request(method, path, None if body is None else json.dumps(body),
                                   headers)
        response = _thread.connection.getresponse()
        if "watch=1" in path and response.status == 200:
            _thread.connection.close()
            return 200, {}
        text = response.read().decode()
    except (OSError, http.client.HTTPException):
        _thread.connection.close()
        raise
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text


def _must(method, path, body=None):
    status, answer = _call(method, path, body)
    assert status < 300, "%s %s: %d %s" % (method, path, status, json.dumps(answer)[:800])
    return answer


def _in(namespace, kind, name="", group="api/v1"):
    return "/%s/namespaces/%s/%s%s" % (group, namespace, kind, "/" + name if name else "")


def _until(what, test, seconds=30):
    end = time.time() + seconds
    while True:
        found = test()
        if found:
            return found
        assert time.time() < end, "not %s after %d s" % (what, seconds)
        time.sleep(0.05)


def _namespace(data=None, labels=None):
    """A new one, with a ConfigMap of the policy's where `data` is given."""
    name = "m-%s-%d" % (STAMP, next(SERIAL))
    _must("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels or {}}})
    if data is not None:
        _must("POST", _in(name, "configmaps"), {"metadata": {"name": "warmcache"}, **data})
    _until("there: the service account of " + name,
           lambda: _call("GET", _in(name, "serviceaccounts", "default"))[0] == 200)
    return name


def _with_image(**more):
    return {"data": {"image": IMAGE, **more}}


def _kubectl(*args, text=None, code=0):
    done = subprocess.run(["kubectl", *args], input=text, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    assert done.returncode == code, "kubectl %s: %s" % (" ".join(args), done.stderr)
    return done.stdout


def _read(path):
    with open(os.path.join(ROOT, path)) as f:
        return f.read().replace("IMAGE", IMAGE) if "/examples/" not in path else f.read()


def _documents(text):
    program = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)"
    return [d for d in json.loads(subprocess.run(
        [VALIDATE + "/python", "-c", program], input=text, stdout=subprocess.PIPE, text=True,
        check=True).stdout) if d]


# ---- pods ----

def _inject(manifest, *options):
    """What inject makes of it; None where it declines."""
    env = {n: v for n, v in os.environ.items() if not n.startswith("WARM_")}
    done = subprocess.run(["warmcache", "inject", "-", "--image", IMAGE, *options], env=env,
                          input=json.dumps(manifest), text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    return json.loads(done.stdout) if done.returncode == 0 else None


def _pod(*containers, annotations=None, labels=LABEL, **spec):
    """The name of a container's image is its own unless it says otherwise."""
    metadata = {"name": "pod", "labels": dict(labels)}
    if annotations is not None:
        metadata["annotations"] = {("" if "/" in n else "warmcache.dev/") + n: v
                                   for n, v in annotations.items()}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
        "containers": [c if isinstance(c, dict) else _container(c) for c in containers], **spec}}


def _container(name="server", image="registry/team/model:v7", **more):
    return {"name": name, "image": image, **more}


def _gpu(name, resource="nvidia.com/gpu", **more):
    return _container(name, resources={"limits": {resource: "1"}}, **more)


def _normal(pod):
    """Without what differs between two pods of one manifest."""
    pod = copy.deepcopy(pod)
    pod.pop("status", None)
    metadata, spec = pod["metadata"], pod["spec"]
    for name in ("uid", "creationTimestamp", "namespace", "managedFields", "generation", "name",
                 "resourceVersion", "ownerReferences", "generateName", "finalizers"):
        metadata.pop(name, None)
    for name in ("pod-template-hash", "controller-uid", "batch.kubernetes.io/controller-uid"):
        metadata.get("labels", {}).pop(name, None)
    spec.pop("nodeName", None)
    for owner, lists in [(spec, ["volumes"])] + [
            (c, ["volumeMounts"]) for c in spec["containers"] + spec.get("initContainers", [])]:
        for name in lists:
            kept = [v for v in owner.pop(name, []) if not v["name"].startswith("kube-api-access-")]
            if kept:
                owner[name] = kept
    return pod


def _differ(what, got, wanted):
    if got != wanted:
        lines = [json.dumps(x, indent=1, sort_keys=True).splitlines() for x in (wanted, got)]
        return "%s:\n%s" % (what, "\n".join(difflib.unified_diff(*lines, "wanted", "got",
                                                                lineterm="", n=2)))
    return ""


def _same(what, got, wanted):
    fault = _differ(what, got, wanted)
    assert not fault, fault


def _dry(namespace, pod):
    """(status, pod as it would be, or the reason)"""
    status, answer = _call("POST", _in(namespace, "pods") + "?dryRun=All", pod)
    return status, _normal(answer) if status == 201 else answer.get("message")


def _has_ours(pod):
    return [c["name"] for c in pod["spec"].get("initContainers", []) if c["name"] in OURS] == OURS


_policy_lock = threading.Lock()
_policy_is_there = False


def _policy():
    """Namespaces with and without the policy's ConfigMap, once it is in force."""
    global _policy_is_there
    with _policy_lock:
        having = _namespace(_with_image())
        if not _policy_is_there:
            _kubectl("apply", "-f", os.path.join(ROOT, "k8s/policy"))
            _until("in force: the policy", lambda: _has_ours(_dry(having, _pod("server"))[1]))
            _policy_is_there = True
        # The API server has seen this ConfigMap: and so all that were made before it.
        _until("seen: a ConfigMap", lambda: _has_ours(_dry(having, _pod("server"))[1]))
    return having, _namespace()


# ---- the policy ----

def _twenty():
    return [_container("c%d" % i, env=[{"name": "VARIABLE_%d" % j, "value": "x" * 50}
                                       for j in range(100)]) for i in range(20)]


FIELD = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
PODS = {
    "plain": _pod("server"),
    "null lists": _pod(_container(env=None, volumeMounts=None, resources=None), annotations=None,
                       initContainers=None, volumes=None, nodeSelector=None),
    "empty lists": _pod(_container(env=[], volumeMounts=[]), annotations={}, initContainers=[],
                        volumes=[]),
    "no volumes at all": _pod("server", automountServiceAccountToken=False),
    "two containers, one by annotation": _pod("proxy", "server", annotations={
        "container": "server"}),
    "several by annotation": _pod("a", _container("b", "other:v2"), "c", annotations={
        "container": "b, a"}),
    "one by annotation twice": _pod("a", "b", annotations={"container": ",b,b"}),
    "an annotation without a name": _pod("a", annotations={"container": " ,"}),
    "one of two has a GPU": _pod("proxy", _gpu("server")),
    "of AMD": _pod(_gpu("server", "amd.com/gpu"), "proxy"),
    "of Intel": _pod(_gpu("server", "gpu.intel.com/i915"), "proxy"),
    "a claim": _pod("proxy", _container(resources={"claims": [{"name": "gpu"}]}), resourceClaims=[
        {"name": "gpu", "resourceClaimTemplateName": "gpu"}]),
    "other resources are no GPU": _pod(_gpu("proxy", "example.com/nvidia"), _gpu("server")),
    "native sidecars first": _pod("server", initContainers=[
        _container("proxy", restartPolicy="Always"), _container("first"),
        _container("second", restartPolicy="Always"), _container("last")]),
    "init containers alone": _pod("server", initContainers=[_container("a"), _container("b")]),
    "a native sidecar last": _pod("server", initContainers=[
        _container("a"), _container("proxy", restartPolicy="Always")]),
    "variables that are there": _pod(_container(env=[
        {"name": "OTHER", "value": "x"}, {"name": "TRITON_CACHE_DIR", "value": "/mine"},
        {"name": "JAX_COMPILATION_CACHE_DIR", **FIELD}, {"name": "WARM_CACHE_DIR"}])),
    "all variables are there": _pod(_container(env=[
        {"name": "TRITON_CACHE_DIR", "value": "/mine"}]), annotations={"for": "triton"}),
    "a list of volumes": _pod("server", annotations={SAFE: "a,b"}),
    "a list with ours": _pod("server", annotations={SAFE: "warmcache,b"}),
    "a list with another of a like name": _pod("server", annotations={SAFE: "warmcache2"}),
    "an empty list": _pod("server", annotations={SAFE: ""}),
    "a digest": _pod(_container(image="r/m@sha256:" + "0a" * 32)),
    "a tag and a digest": _pod(_container(image="r:5000/m:v1@sha256:" + "0a" * 32)),
    "a port": _pod(_container(image="registry.local:5000/a/b/c:v1.2")),
    "a port and no tag": _pod(_container(image="registry.local:5000/a/b")),
    "no tag": _pod(_container(image="model")),
    **{"the tag " + tag: _pod(_container(image="r/m:" + tag)) for tag in (
        "latest", "main", "master", "stable", "dev", "nightly", "edge", "head", "heads",
        "Latest")},
    "the model": _pod("server", annotations={"model": "llama"}),
    "the version": _pod("server", annotations={"version": "v7"}),
    "the platform": _pod("server", annotations={"platform": "h100"}),
    "the automatic platform": _pod("server", annotations={"platform": "auto"}),
    "the whole key": _pod("server", annotations={
        "model": "llama", "version": "v7", "platform": "h100"}),
    "an empty key": _pod("server", annotations={"model": "", "version": "", "platform": ""}),
    "some compilers": _pod("server", annotations={"for": "tilelang, torch"}),
    "all compilers": _pod("server", annotations={
        "for": "flashinfer,deepgemm,tilelang,nvrtc,jax,vllm,triton,torch"}),
    "unknown compilers": _pod("server", annotations={"for": "nvcc,torch,,torch2"}),
    "no compilers": _pod("server", annotations={"for": ""}),
    "a volume of ours": _pod("server", volumes=[
        {"name": "a", "emptyDir": {}}, {"name": "warmcache", "emptyDir": {"medium": "Memory"}}]),
    "a claimed volume that is mounted": _pod(
        _container(volumeMounts=[{"name": "data", "mountPath": "/data"},
                                 {"name": "warmcache", "mountPath": "/warmcache"}]),
        volumes=[{"name": "data", "emptyDir": {}},
                 {"name": "warmcache", "persistentVolumeClaim": {"claimName": "x"}}]),
    "our volume at another place": _pod(
        _container(volumeMounts=[{"name": "warmcache", "mountPath": "/other"}]),
        volumes=[{"name": "warmcache", "emptyDir": {}}]),
    "a path that another container takes": _pod(
        _container("proxy", volumeMounts=[{"name": "v", "mountPath": "/warmcache"}]),
        _gpu("server"), volumes=[{"name": "v", "emptyDir": {}}]),
    "much else": _pod(
        _container(envFrom=[{"configMapRef": {"name": "x"}}], args=["a"], stdin=True,
                   volumeMounts=[{"name": "v", "mountPath": "/v"}],
                   lifecycle={"preStop": {"sleep": {"seconds": 5}}},
                   resources={"limits": {"cpu": "2", "memory": "1Gi"}}),
        annotations={"example.com/a": "c"}, volumes=[{"name": "v", "emptyDir": {}}],
        automountServiceAccountToken=False, terminationGracePeriodSeconds=60,
        nodeSelector={"kubernetes.io/os": "linux"}, os={"name": "linux"}, hostNetwork=True,
        securityContext={"runAsUser": 1000, "fsGroup": 1000}, runtimeClassName=None),
    "resources of the pod": _pod("server", resources={"requests": {"cpu": "100m"}}),
    "a tag with a word that moves": _pod(_container(image="r/vllm:Latest-cu128")),
    "a tag with a part of such a word": _pod(_container(image="r/vllm:v1.dev3_1-x")),
    "half a CPU": _pod(_container(resources={"requests": {"cpu": "500m"}})),
    "1000m": _pod(_container(resources={"requests": {"cpu": "1000m"}})),
    "a request below its limit": _pod(_container(resources={
        "requests": {"cpu": "999m"}, "limits": {"cpu": "4"}})),
    "a limit alone": _pod(_container(resources={"limits": {"cpu": "3", "memory": "1Gi"}})),
    "a container that isn't root": _pod(_container(securityContext={"runAsNonRoot": True})),
    "such a one in a pod of root": _pod(_container(securityContext={
        "runAsNonRoot": True, "runAsUser": 1}), securityContext={"runAsUser": 0}),
    "such a one in a pod that says no": _pod(_container(securityContext={
        "runAsNonRoot": True}), securityContext={"runAsNonRoot": False}),
    "20 containers with 100 variables": _pod(*_twenty(), annotations={
        "container": ",".join("c%d" % i for i in range(16)),
        "for": "torch,triton,vllm,jax,nvrtc,flashinfer,deepgemm,tilelang"}),
}
TAKEN = {"name": "v", "emptyDir": {}}
ALONE = {
    "no label": _pod("server", labels={}),
    "another value": _pod("server", labels={"warmcache.dev/inject": "false"}),
    "an init of ours": _pod("server", initContainers=[_container("warmcache-init")]),
    "a sidecar of ours": _pod("server", initContainers=[
        _container("warmcache-sidecar", restartPolicy="Always")]),
    "a container of our name": _pod("server", "warmcache-sidecar", annotations={
        "container": "server"}),
    "two containers": _pod("a", "b"),
    "two GPUs": _pod(_gpu("a"), _gpu("b")),
    "a container that isn't there": _pod("server", annotations={"container": "other"}),
    "one of two isn't there": _pod("a", "b", annotations={"container": "a,other"}),
    "an init container is no model": _pod("a", "b", initContainers=[_container("c")],
                                          annotations={"container": "c"}),
    "the path is taken": _pod(_container(volumeMounts=[
        {"name": "v", "mountPath": "/warmcache"}]), volumes=[TAKEN]),
    "a device at the path": _pod(_container(volumeDevices=[
        {"name": "v", "devicePath": "/warmcache"}]), volumes=[
            {"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]),
    "a device of our name": _pod(_container(volumeDevices=[
        {"name": "warmcache", "devicePath": "/dev/x"}]), volumes=[
            {"name": "warmcache", "persistentVolumeClaim": {"claimName": "x"}}]),
    "Windows": _pod("server", os={"name": "windows"}),
    "a node with Windows": _pod("server", nodeSelector={"kubernetes.io/os": "windows"}),
    "a mirror": _pod("server", annotations={"kubernetes.io/config.mirror": "x"},
                     nodeName="e2e-node", automountServiceAccountToken=False),
}


def the_policy_gives_what_inject_gives(case):
    having, lacking = _policy()
    faults = []
    for name, pod in PODS.items():
        injected = _inject(pod)
        assert injected, "inject declines: " + name
        (got_status, got), (status, wanted) = _dry(having, pod), _dry(lacking, injected)
        assert status == 201 and _has_ours(wanted), (name, status, wanted)
        if got_status != 201:
            faults.append("%s: %d %s" % (name, got_status, got))
        else:
            faults.append(_differ(name, got, wanted))
    assert not any(faults), "\n".join(f for f in faults if f)


def the_policy_takes_compilers_from_the_config_map(case):
    _, lacking = _policy()
    for text in ("flashinfer", "torch, vllm", "nonsense", "", "\n"):
        having = _namespace(_with_image(**{"for": text}))
        _until("seen: the ConfigMap", lambda: _has_ours(_dry(having, _pod("server"))[1]))
        for pod in (_pod("server"), _pod("server", annotations={"for": "jax"})):
            own = pod["metadata"].get("annotations") is not None
            wanted = _inject({**pod, "metadata": {**pod["metadata"], "annotations": {
                "warmcache.dev/for": "jax" if own else text}}})
            if not own:
                del wanted["metadata"]["annotations"]["warmcache.dev/for"]
            _same(repr(text), _dry(having, pod)[1], _dry(lacking, wanted)[1])


def a_restricted_namespace_takes_them(case):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    _, lacking = _policy()
    having = _namespace(_with_image(), labels)
    plain = _namespace(labels=labels)
    pod = _pod(_container(securityContext=CONFINED), **RESTRICTED)
    _until("seen: the ConfigMap", lambda: _has_ours(_dry(having, pod)[1]))
    _same("restricted", _dry(having, pod)[1], _dry(plain, _inject(pod))[1])
    # Then ours say it, too.
    by_itself = _pod(_container(securityContext={
        **CONFINED, **RESTRICTED["securityContext"]}))
    status, got = _dry(having, by_itself)
    assert status == 201, got
    assert _has_ours(got), got
    _same("no root, by container", got, _dry(plain, _inject(by_itself))[1])


CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
RESTRICTED = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {
    "type": "RuntimeDefault"}}}


def pods_that_the_policy_leaves_alone(case):
    having, lacking = _policy()
    for name, pod in ALONE.items():
        (got_status, got), (status, wanted) = _dry(having, pod), _dry(lacking, pod)
        assert status == got_status == 201, (name, status, wanted, got_status, got)
        _same(name, got, wanted)
    injected = _inject(PODS["plain"])
    _same("injected", _dry(having, injected)[1], _dry(lacking, injected)[1])


GARBAGE = ["", " ", "A B", "::", "x\ny", "UPPER/x/Y", "../x", "-", "https://r/x", "@", "x@y", "x:",
           "x:y:z/", "/x", "x/", "$(A)", "x" * 5000 + "/X", "x" * 300, "é", "x:" + "t" * 200]
IMAGES = ["w", "w:1", "r/w", "r.local:5000/a/b-c__d.e/w:v1.2-3", "w@sha256:" + "0a" * 32,
          "R.Local/w:1@sha256:" + "0a" * 32, "e2e.local/warmcache:1\n"]


def no_config_map_makes_the_policy_reject_a_pod(case):
    variants = [None, {}, {"data": {}}, {"data": {"WARM_STORE": "x"}},
                {"binaryData": {"image": "AAAA"}}, {"data": {"Image": IMAGE}}]
    variants += [{"data": {"image": image}} for image in GARBAGE]
    left_alone = [_namespace(data) for data in variants]
    taken = [_namespace({"data": {"image": image}}) for image in IMAGES]
    _, lacking = _policy()
    for namespace, data in zip(left_alone, variants):
        status, got = _dry(namespace, PODS["plain"])
        assert status == 201, (data, status, got)
        _same(repr(data), got, _dry(lacking, PODS["plain"])[1])
    for namespace, image in zip(taken, IMAGES):
        status, got = _dry(namespace, PODS["plain"])
        assert status == 201 and _has_ours(got), (image, status, got)
        assert got["spec"]["initContainers"][0]["image"] == image.strip(), got


def a_pod_that_is_too_much_for_the_policy_is_admitted(case):
    having, lacking = _policy()
    env = [{"name": "V%d" % i, "value": ""} for i in range(200)]
    names = ["c%d" % i for i in range(250)]
    pod = _pod(*[_container(name, "i", env=env) for name in names], annotations={
        "container": ",".join(names)})
    (got_status, got), (status, plain) = _dry(having, pod), _dry(lacking, pod)
    assert status == got_status == 201, (status, plain, got_status, got)
    assert not _has_ours(got), "it isn't too much: so this says nothing of failurePolicy"
    _same("too much", got, plain)


def _odd_pod(rng):
    """Valid or not."""
    def some(*values):
        return rng.choice(values)

    def maybe(what):
        return what() if rng.random() < 0.5 else None

    def names(n):
        return [some("a", "b", "server", "warmcache", "warmcache-init", "x" * 70, "", "A")
                if rng.random() < 0.05 else "c%d" % i for i in range(n)]

    def container(name):
        c = {"name": name, "image": some(
            "m", "r/m:v1", "r:1/m", "r/m:latest", "m@sha256:" + "0a" * 32, "r/m:", ":", "@", "r/@x",
            "a:b:c", "/", "é", "r/é:é", "a/b@c@d", some("", " m", "x"))}
        for key, value in {
                "env": lambda: [{"name": some("TRITON_CACHE_DIR", "WARM_CACHE_DIR", "X", "é"),
                                 **some({}, {"value": "x"}, FIELD)}
                                for _ in range(rng.randrange(3))],
                "volumeMounts": lambda: [{"name": some("warmcache", "v", "w"), "mountPath": some(
                    "/warmcache", "/warmcache/", "/x", "/warmcache/inductor")}],
                "restartPolicy": lambda: some("Always", None, "Never"),
                "volumeDevices": lambda: some([], [], [{"name": "v", "devicePath": "/warmcache"}]),
                "resources": lambda: some({}, {"limits": {}}, {"limits": {"nvidia.com/gpu": "1"}},
                                          {"limits": {"cpu": "100m"}}, {"claims": []}),
                "securityContext": lambda: some({}, {"runAsUser": 0}, {"privileged": True}),
        }.items():
            value = maybe(value)
            if value is not None or rng.random() < 0.1:
                c[key] = value
        return c
    pod = _pod(*[container(n) for n in names(some(0, 1, 1, 1, 2, 3))])
    spec, metadata = pod["spec"], pod["metadata"]
    for c in spec["containers"]:
        c.pop("restartPolicy", None)
    if rng.random() < 0.6:
        spec["initContainers"] = [container("i" + n) for n in names(rng.randrange(4))]
    if rng.random() < 0.9:
        spec["volumes"] = [{"name": n, **some({"emptyDir": {}}, {"hostPath": {"path": "/x"}}, {})}
                           for n in ("warmcache", "v", "w") if rng.random() < 0.9]
    if rng.random() < 0.6:
        metadata["annotations"] = {"warmcache.dev/" + n: some(
            "", "c0", "c0", "c0,c1", "c1 ,", "torch,x", "é", ",", "x" * 100)
            for n in ("model", "version", "platform", "container", "for") if rng.random() < 0.3}
    spec.update(rng.choice([{}, {}, {}, {"os": {"name": "linux"}}, {"os": {"name": "windows"}},
                            {"nodeSelector": {}}, {"hostNetwork": True}, {"hostPID": True},
                            {"shareProcessNamespace": True}, {"restartPolicy": "Never"},
                            {"resources": {"limits": {"cpu": "1"}}}, {"securityContext": {}},
                            {"nodeName": "nowhere"}, {"schedulingGates": [{"name": "a.b/c"}]}]))
    return pod


def no_odd_pod_is_refused_for_the_policy(case):
    having, lacking = _policy()
    rng = random.Random(int(os.environ.get("E2E_SEED", "1")))
    taken = 0
    for i in range(int(os.environ.get("E2E_ODD", "300"))):
        pod = _odd_pod(rng)
        (got_status, got), (status, plain) = _dry(having, pod), _dry(lacking, pod)
        if status != 201:
            continue  # a volume of that name may be all that it lacked
        assert got_status == 201, (i, json.dumps(pod), got_status, got)
        injected = _inject(pod)
        wanted_status, wanted = _dry(lacking, injected) if injected else (0, None)
        # Where inject declines, or its pod would be refused, the policy does nothing.
        _same("%d %s" % (i, json.dumps(pod)), got, wanted if _has_ours(got) else plain)
        if _has_ours(got):
            taken += 1
        elif wanted_status == 201:
            assert _names(pod) & set(OURS), (i, json.dumps(pod))
    assert taken > 20, taken


def _names(pod):
    return {c["name"] for c in pod["spec"]["containers"] + pod["spec"].get("initContainers", [])}


def the_config_map_goes_while_pods_are_created(case):
    having, lacking = _policy()
    plain, injected = (_dry(lacking, pod)[1] for pod in (PODS["plain"], _inject(PODS["plain"])))
    over = threading.Event()

    def toggle():
        while not over.is_set():
            _must("DELETE", _in(having, "configmaps", "warmcache"))
            time.sleep(0.02)
            _must("POST", _in(having, "configmaps"), {"metadata": {"name": "warmcache"},
                                                      **_with_image()})
            time.sleep(0.02)
    thread = threading.Thread(target=toggle)
    thread.start()
    seen = []
    try:
        for _ in range(200):
            status, got = _dry(having, PODS["plain"])
            assert status == 201, (status, got)
            assert got in (plain, injected), _differ("neither", got, injected)
            seen.append(got == plain)
    finally:
        over.set()
        thread.join()
    assert {True, False} == set(seen), "never seen with it, or without"


def _workload(kind, pod, name="w"):
    spec = {"template": {"metadata": pod["metadata"], "spec": pod["spec"]}}
    labels = {"app": name, **pod["metadata"].get("labels", {})}
    pod["metadata"] = {**pod["metadata"], "labels": labels}
    spec["template"]["metadata"] = {k: v for k, v in pod["metadata"].items() if k != "name"}
    group = "batch/v1" if kind in ("Job", "CronJob") else "apps/v1"
    if group == "apps/v1":
        spec["selector"] = {"matchLabels": {"app": name}}
    else:
        pod["spec"]["restartPolicy"] = "Never"
    if kind == "StatefulSet":
        spec["serviceName"] = name
    if kind == "CronJob":
        spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _kind_path(namespace, manifest, name=""):
    return _in(namespace, manifest["kind"].lower() + "s", name, "apis/" + manifest["apiVersion"])


def _pods_of(namespace, test, n=1, seconds=60):
    def look():
        found = [p for p in _must("GET", _in(namespace, "pods"))["items"] if test(p)]
        return found if len(found) == n else None
    try:
        return _until("as they should be: pods", look, seconds)
    except AssertionError:
        pods = _must("GET", _in(namespace, "pods"))["items"]
        raise AssertionError("%s: %s" % (namespace, json.dumps([p["status"] for p in pods])))


def _sleeper(*command, **more):
    return _pod(_container(image=MODEL, imagePullPolicy="Never",
                           command=list(command or ("/bin/sleep", "1000")), **more),
                terminationGracePeriodSeconds=1)


def _message(pod, container):
    for status in kube.statuses(pod):
        if status["name"] == container:
            return json.loads(status["state"]["terminated"]["message"])
    raise AssertionError(container)


# The node has CPU for one init at a time, or two.
_node_lock = threading.Lock()


@contextlib.contextmanager
def _running(*placed):
    """Workloads, each in a namespace, while it lasts."""
    with _node_lock:
        try:
            for namespace, manifest in placed:
                _must("POST", _kind_path(namespace, manifest), manifest)
            yield
        finally:
            for namespace, manifest in placed:
                _call("DELETE", _kind_path(namespace, manifest, manifest["metadata"]["name"]),
                      {"propagationPolicy": "Background"})


NO_STORE = "--store is missing"


def a_deployment_scales_without_a_config_map_and_with_one(case):
    _, lacking = _policy()
    namespace = _namespace()
    deployment = _workload("Deployment", _sleeper())
    with _running((namespace, deployment)):
        first, = _pods_of(namespace, kube.is_ready)
        assert not _has_ours(first)
        _must("POST", _in(namespace, "configmaps"), {"metadata": {"name": "warmcache"},
                                                     **_with_image()})
        _until("seen: the ConfigMap", lambda: _has_ours(_dry(namespace, _pod("server"))[1]))
        _must("PATCH", _kind_path(namespace, deployment, "w"), {"spec": {"replicas": 2}})
        got, = _pods_of(namespace, lambda p: kube.is_ready(p) and _has_ours(p))
    assert _message(got, "warmcache-init")["reason"] == NO_STORE, got["status"]
    with _running((lacking, _inject(deployment))):
        wanted, = _pods_of(lacking, _has_ours)
    _same("a Deployment's pod", _normal(got), _normal(wanted))


def a_job_with_the_label_completes(case):
    having, _ = _policy()
    lacking = _namespace()
    job = _workload("Job", _sleeper("/bin/true"))
    with _running((having, job)):
        got, = _pods_of(having, lambda p: p["status"]["phase"] == "Succeeded")
    assert _message(got, "warmcache-init")["reason"] == NO_STORE, got["status"]
    with _running((lacking, _inject(job))):
        wanted, = _pods_of(lacking, _has_ours)
    _same("a Job's pod", _normal(got), _normal(wanted))


# ---- the component ----

def _component(*manifests):
    text = _read("k8s/component/kustomization.yaml").replace("CONTAINER", "server")
    with tempfile.TemporaryDirectory() as top:
        os.mkdir(top + "/warmcache")
        for path, content in (("warmcache/kustomization.yaml", text),
                              ("kustomization.yaml", "resources: [all.yaml]\n"
                                                     "components: [warmcache]\n"),
                              ("all.yaml", "\n---\n".join(map(json.dumps, manifests)))):
            with open(os.path.join(top, path), "w") as f:
                f.write(content)
        return _documents(_kubectl("kustomize", top))


def _template(manifest):
    spec = manifest["spec"]
    return (spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec)["template"]


def _ordered(manifest):
    """Where the component says another order: ours first, variables and containers."""
    manifest = copy.deepcopy(manifest)
    manifest["metadata"] = {"name": manifest["metadata"]["name"]}
    manifest.pop("status", None)
    spec = _template(manifest)["spec"]
    for name in ("containers", "initContainers", "volumes"):
        spec.get(name, []).sort(key=lambda c: c["name"])
    for c in spec["containers"]:
        for name in ("env", "volumeMounts"):
            c.get(name, []).sort(key=lambda e: e["name"])
    # Of a Job: chosen anew by the API server.
    if manifest["kind"] == "Job":
        manifest["spec"].pop("selector", None)
        for name in list(_template(manifest)["metadata"].get("labels", {})):
            if "controller-uid" in name:
                del _template(manifest)["metadata"]["labels"][name]
    return manifest


def the_component_gives_what_inject_gives(case):
    namespace = _namespace()
    key = {"warmcache.dev/model": "llama", "warmcache.dev/version": "v7"}
    mine = {"warmcache.dev/container": "server"}
    for kind in ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"):
        pod = _pod("proxy", _container(env=[{"name": "X", "value": "y"}], volumeMounts=[
            {"name": "v", "mountPath": "/v"}]), labels={}, annotations=key, volumes=[TAKEN],
            initContainers=[_container("first")])
        manifest = _workload(kind, pod)
        manifest["metadata"]["annotations"] = mine
        other = _workload(kind, _pod("other", labels={}), "other")
        by_name = {m["metadata"]["name"]: m for m in _component(manifest, other)}
        assert by_name["other"] == other, by_name["other"]
        got = by_name["w"]
        assert [c["name"] for c in _template(got)["spec"]["initContainers"]] == OURS + ["first"]
        answers = [_ordered(_must("POST", _kind_path(namespace, m) + "?dryRun=All", m))
                   for m in (got, _inject(manifest, "--container", "server"))]
        _same(kind, *answers)


def a_workload_of_the_component_starts_without_a_key(case):
    namespace = _namespace()
    deployment = _workload("Deployment", _sleeper())
    deployment["metadata"]["annotations"] = {"warmcache.dev/container": "server"}
    with _running((namespace, _component(deployment)[0])):
        pod, = _pods_of(namespace, kube.is_ready)
    assert _message(pod, "warmcache-init")["reason"] == "disabled: no model is given", pod["status"]


# ---- what the API server and the schemas say ----

MANIFESTS = ["policy/policy.yaml", "rbac/prewarm.yaml", "rbac/viewer.yaml",
             "maintenance/serviceaccount.yaml", "maintenance/compact.yaml", "maintenance/gc.yaml",
             "examples/publish.yaml", "examples/read-only.yaml"]


def all_manifests_are_valid(case):
    there = {os.path.relpath(p, ROOT + "/k8s") for p in glob.glob(ROOT + "/k8s/*/*.yaml")}
    assert there == set(MANIFESTS) | {"component/kustomization.yaml"}, there
    namespace = _namespace()
    with tempfile.TemporaryDirectory() as top:
        for path in MANIFESTS:
            text = _read("k8s/" + path)
            _kubectl("apply", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-",
                     text=text)
            with open(top + "/" + os.path.basename(path), "w") as f:
                f.write(text)
        workload = _workload("Deployment", _pod("server", labels={}))
        workload["metadata"]["annotations"] = {"warmcache.dev/container": "server"}
        with open(top + "/component.yaml", "w") as f:
            json.dump(_component(workload)[0], f)
        done = subprocess.run([VALIDATE + "/kubernetes-validate", "--strict", "-k", "1.36",
                               *glob.glob(top + "/*.yaml")], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout


def the_maintenance_manifests_can_be_put_in_one_stream(case):
    text = "".join(_read("k8s/maintenance/" + name) for name in (
        "compact.yaml", "gc.yaml", "serviceaccount.yaml"))
    assert [d["kind"] for d in _documents(text)] == ["CronJob", "CronJob", "ServiceAccount"]


def the_examples_are_what_inject_makes_of_them(case):
    for path in glob.glob(ROOT + "/k8s/examples/*.yaml"):
        with open(path) as f:
            text = f.read()
        options = re.search(r"warmcache inject llm.yaml ((?:.*\\\n)*.*)\n", text).group(1)
        options = re.sub(r"\\\n#", "", options).split()
        again = subprocess.run(["warmcache", "inject", path, *options], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, check=True).stdout
        assert again == text, "".join(difflib.unified_diff(text.splitlines(True),
                                                           again.splitlines(True)))
        without = subprocess.run(["warmcache", "inject", path, "--remove"], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True, check=True).stdout
        assert "warmcache-init" not in without, without


# ---- rights ----

LWS = "apis/leaderworkerset.x-k8s.io/v1"
PREWARM = {  # (resource, verb): a request that needs it
    **{("jobs", verb): (method, "apis/batch/v1", "jobs" + rest) for verb, method, rest in (
        ("get", "GET", "/x"), ("list", "GET", ""), ("watch", "GET", "?watch=1"),
        ("create", "POST", "?dryRun=All"), ("delete", "DELETE", "/x"))},
    **{("pods", verb): ("GET", "api/v1", "pods" + rest) for verb, rest in (
        ("get", "/x"), ("list", ""), ("watch", "?watch=1"))},
    ("pods/log", "get"): ("GET", "api/v1", "pods/x/log"),
    ("events", "list"): ("GET", "api/v1", "events"),
    **{(kind, "get"): ("GET", "apis/apps/v1", kind + "/x") for kind in (
        "deployments", "statefulsets", "daemonsets")},
    ("cronjobs", "get"): ("GET", "apis/batch/v1", "cronjobs/x"),
    ("leaderworkersets", "get"): ("GET", LWS, "leaderworkersets/x"),
}
VIEWER = {k: PREWARM[k] for k in (("pods", "list"), ("pods/log", "get"))}
FORBIDDEN = [
    ("GET", "api/v1", "secrets/x"), ("GET", "api/v1", "secrets"), ("GET", "api/v1", "configmaps/x"),
    ("POST", "api/v1", "pods?dryRun=All"), ("DELETE", "api/v1", "pods/x"),
    ("PATCH", "api/v1", "pods/x"), ("POST", "api/v1", "pods/x/exec?command=a"),
    ("POST", "api/v1", "pods/x/attach"), ("POST", "api/v1", "pods/x/portforward"),
    ("POST", "api/v1", "pods/x/eviction"), ("PATCH", "api/v1", "pods/x/ephemeralcontainers"),
    ("POST", "api/v1", "serviceaccounts/x/token"), ("GET", "api/v1", "serviceaccounts"),
    ("POST", "api/v1", "configmaps?dryRun=All"), ("POST", "api/v1", "events?dryRun=All"),
    ("GET", "apis/apps/v1", "deployments"), ("PATCH", "apis/apps/v1", "deployments/x"),
    ("PATCH", "apis/apps/v1", "deployments/x/scale"), ("POST", "apis/apps/v1", "deployments"),
    ("PATCH", "apis/batch/v1", "jobs/x"), ("PUT", "apis/batch/v1", "jobs/x"),
    ("DELETE", "apis/batch/v1", "jobs"), ("POST", "apis/batch/v1", "cronjobs?dryRun=All"),
    ("POST", "apis/rbac.authorization.k8s.io/v1", "rolebindings?dryRun=All"),
    ("GET", "apis/rbac.authorization.k8s.io/v1", "roles"),
]


def _ask(namespace, request, user):
    """Whether it is allowed. What is asked for needn't be there, nor the body be right."""
    method, group, rest = request
    body = None
    if method in ("POST", "PUT", "PATCH"):
        body = {"apiVersion": group.split("/", 1)[1], "kind": "Job", "metadata": {"name": "x"}}
        if rest.startswith("jobs?"):
            body = _workload("Job", _pod("server", labels={}), "x")
    status, answer = _call(method, _in(namespace, rest, group=group), body, user)
    assert status != 401 and status < 500, (request, status, answer)
    return status != 403


def _triples(role):
    return {(resource, verb): group for rule in role["rules"] for group in rule["apiGroups"]
            for resource in rule["resources"] for verb in rule["verbs"]}


def _check_role(path, needed):
    namespace, other = _namespace(), _namespace()
    manifests = _documents(_read(path))
    _kubectl("apply", "-n", namespace, "-f", os.path.join(ROOT, path))
    role, = (m for m in manifests if m["kind"] == "Role")
    account, = (m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount")
    assert set(_triples(role)) == set(needed), set(_triples(role)) ^ set(needed)
    user = "%s:%s" % (namespace, account)
    rbac = "apis/rbac.authorization.k8s.io/v1"
    lesser = {}  # the same without one verb: service account
    for n, missing in enumerate(needed):
        name = "without-%d" % n
        rules = [{"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                 for (resource, verb), group in _triples(role).items()
                 if (resource, verb) != missing]
        _must("POST", _in(namespace, "roles", group=rbac), {
            "metadata": {"name": name}, "rules": rules})
        _must("POST", _in(namespace, "rolebindings", group=rbac), {
            "metadata": {"name": name}, "subjects": [
                {"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}})
        lesser[missing] = "%s:%s" % (namespace, name)
    last = next(what for what in needed if what != missing)
    _until("seen: the roles", lambda: _ask(namespace, needed[last], lesser[missing]))
    for what, request in needed.items():
        assert _ask(namespace, request, user), "%s may not: %s" % (account, what)
        assert not _ask(other, request, user), "%s may elsewhere: %s" % (account, what)
        for missing, without in lesser.items():
            assert _ask(namespace, request, without) == (what != missing), (what, missing)
    for request in FORBIDDEN + [r for what, r in PREWARM.items() if what not in needed]:
        assert not _ask(namespace, request, user), "%s may: %s" % (account, request)
    for path in ("/api/v1/namespaces", "/api/v1/nodes", "/api/v1/pods", "/apis/batch/v1/jobs"):
        assert _call("GET", path, user=user)[0] == 403, path


def the_prewarm_role_is_what_prewarm_needs(case):
    _check_role("k8s/rbac/prewarm.yaml", PREWARM)


def the_viewer_role_is_what_pods_needs(case):
    _check_role("k8s/rbac/viewer.yaml", VIEWER)


# ---- maintenance ----

def _layer(case, version, n, hours=0):
    id = (int((time.time() - 3600 * hours) * 1000) + n, n + 1)
    made = layer.Layer(key=("m", version, "x86_64"), id=id)
    path = "own/%s-%d.bin" % (version, n)
    made.add(path, {path: os.urandom(500)})
    path = made.write(case.store)
    os.utime(path, (time.time() - 3600 * hours,) * 2)


def _layers(case, version):
    return sorted(os.path.basename(p)[0] for p in layer.objects(case.store)
                  if "/%s/" % version in p)


def _run_cron(case, namespace, name):
    """A Job of the CronJob, whose store is a directory of the node."""
    text = _kubectl("create", "job", "-n", namespace, "--from=cronjob/" + name, name,
                    "--dry-run=client", "-o", "json")
    job = json.loads(text)
    spec = job["spec"]["template"]["spec"]
    spec.setdefault("volumes", []).append(
        {"name": "store", "hostPath": {"path": case.store, "type": "Directory"}})
    spec["containers"][0].setdefault("volumeMounts", []).append(
        {"name": "store", "mountPath": "/store"})
    with _running((namespace, job)):
        pod, = _pods_of(namespace, lambda p: p["metadata"]["labels"].get("job-name") == name and
                        p["status"]["phase"] in ("Succeeded", "Failed"))
        log = _kubectl("logs", "-n", namespace, pod["metadata"]["name"])
    assert pod["status"]["phase"] == "Succeeded", log
    for volume in pod["spec"]["volumes"]:
        assert volume["name"] in ("work", "store"), "a token: %s" % volume
    return log


def the_cron_jobs_do_what_they_should(case):
    namespace = _namespace({"data": {"WARM_STORE": "/store"}}, {
        "pod-security.kubernetes.io/warn": "restricted"})
    confined = _namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"})
    for path in glob.glob(ROOT + "/k8s/maintenance/*.yaml"):
        text = _read(os.path.relpath(path, ROOT))
        _kubectl("apply", "-n", namespace, "-f", "-", text=text)
        manifest, = _documents(text)
        if manifest["kind"] == "ServiceAccount":
            _kubectl("apply", "-n", confined, "-f", "-", text=text)
            continue
        spec = manifest["spec"]
        assert spec["concurrencyPolicy"] == "Forbid" and spec["startingDeadlineSeconds"], spec
        assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"], spec
        template = _template(manifest)
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
               "metadata": {"name": "x", **template["metadata"]}}
        status, answer = _dry(confined, pod)
        assert status == 201, answer
    for n in range(5):
        _layer(case, "v9", n)
    for version in range(1, 6):
        for n in range(2):
            _layer(case, "v%d" % version, n, hours=100 - version)
    for top, dirs, files in os.walk(case.store):
        for name in dirs + files:
            os.chown(os.path.join(top, name), USER, USER)
    _run_cron(case, namespace, "warmcache-compact")
    assert _layers(case, "v9") == ["B"] + ["L"] * 5, _layers(case, "v9")
    assert _layers(case, "v1") == ["L"] * 2, "a key with few layers was compacted"
    log = _run_cron(case, namespace, "warmcache-gc")
    left = [v for v in range(1, 10) if _layers(case, "v%d" % v)]
    assert left == [4, 5, 9], (left, log)
