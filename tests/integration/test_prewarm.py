# SPDX-License-Identifier: Apache-2.0
"""warmcache-prewarm without a cluster: the Jobs that it renders, what runs within them, and waiting;
and `warmcache pods`, before an API that isn't one."""

import copy
import glob
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import fakes
import servers
from support import (CANCELED, DENIED, INVALID, LIMIT, MACHINE, NOT_FOUND, ROOT, TRANSIENT, Skip,
                     Tree, check_store, inductor_file, small_tree, triton_group, wait_until)

IMAGE = "registry/warmcache:1"
READY = "http://127.0.0.1:8000/health"
NEEDED = ["--image", IMAGE, "--ready-url", READY]
DNS = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _yaml():
    try:
        import yaml
    except ImportError:
        found = glob.glob(ROOT + "/build/parts/kubernetes-validate/lib/python*/site-packages")
        if not found:
            raise Skip("needs PyYAML") from None
        sys.path.append(found[0])
        import yaml
    return yaml


def _run(t, *args, code=0, env=None, text=None, timeout=60):
    p = subprocess.run([os.path.join(t.bin, "warmcache-prewarm"), *args], env=env or _env(t),
                       input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=timeout)
    t.written += [p.stdout, p.stderr]
    assert "Sanitizer" not in p.stderr and "runtime error:" not in p.stderr, p.stderr
    assert p.returncode == code, "exit %d: %s\n%s" % (p.returncode, p.stdout, p.stderr)
    return p


def _env(t, **more):
    """No cluster is found by it."""
    env = t.env(HOME=t.dir("home"), **more)
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        if name not in more:
            env.pop(name, None)
    return env


def _render(t, manifest, *args, needed=NEEDED):
    """All objects that are printed."""
    p = _run(t, "render", "-", *needed, *args, text=json.dumps(manifest))
    return list(_yaml().safe_load_all(p.stdout))


def _job(t, manifest, *args, **how):
    jobs = _render(t, manifest, *args, **how)
    assert len(jobs) == 1 and jobs[0]["kind"] == "Job", jobs
    return jobs[0]


def _refused(t, manifest, *args, words=(), code=INVALID, needed=NEEDED):
    p = _run(t, "render", "-", *needed, *args, text=json.dumps(manifest), code=code)
    assert p.stdout == "", p.stdout
    for word in words:
        assert word in p.stderr, (word, p.stderr)
    assert len(p.stderr.splitlines()) == 1, p.stderr


def _spec(job):
    return job["spec"]["template"]["spec"]


def _name(job):
    return job["metadata"]["name"]


def _main(job):
    (main,) = _spec(job)["containers"]
    return main


def _sidecars(job):
    return {c["name"]: c for c in _spec(job)["initContainers"]}


def _variables(container):
    names = [e["name"] for e in container["env"]]
    assert len(names) == len(set(names)), names
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container["env"]}


def _pod_spec(image="registry/llm:v7", **more):
    return {"containers": [{"name": "server", "image": image,
                            "resources": {"limits": {"nvidia.com/gpu": "2"}}}], **more}


def _deployment(name="llm", annotations=None, **spec):
    return {"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "labels": {"app": "llm"}},
            "spec": {"selector": {"matchLabels": {"app": "llm"}}, "template": {
                "metadata": {"labels": {"app": "llm"}, "annotations": annotations or {}},
                "spec": _pod_spec(**spec)}}}


def _inject(t, manifest, *args, image=IMAGE):
    p = subprocess.run([os.path.join(t.bin, "warmcache"), "inject", "-", "--image", image, *args],
                       input=json.dumps(manifest), env=t.env(), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True)
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout)


def _is_whole(job, workload="llm", container="server"):
    """What holds for every Job."""
    spec, main, template = _spec(job), _main(job), job["spec"]["template"]
    assert job["apiVersion"] == "batch/v1" and job["kind"] == "Job"
    assert DNS.fullmatch(_name(job)), _name(job)
    own = {"app.kubernetes.io/name": "warmcache-prewarm",
           "app.kubernetes.io/managed-by": "warmcache", "warmcache.dev/prewarm": workload}
    assert job["metadata"]["labels"] == own and template["metadata"]["labels"] == own, job
    mark = job["metadata"]["annotations"]["warmcache.dev/template"]
    assert _name(job).endswith("-warm-" + mark) and _variables(main)["WARM_COMPLETE"] == mark
    assert main["name"] == "warmcache-prewarm" and main["command"] == ["warmcache-prewarm", "fill"]
    assert "restartPolicy" not in main and "lifecycle" not in main and "args" not in main
    assert main["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["restartPolicy"] == "Never"
    beside = _sidecars(job)
    assert "warmcache-sidecar" not in beside and "restartPolicy" not in beside["warmcache-init"]
    assert beside[container]["restartPolicy"] == "Always"
    order = [c["name"] for c in spec["initContainers"]]
    assert order.index("warmcache-init") < order.index(container), order
    for c in (main, beside[container], beside["warmcache-init"]):
        assert {"name": "warmcache", "mountPath": "/warmcache"} in c["volumeMounts"], c
    assert [v for v in spec["volumes"] if v["name"] == "warmcache"][0]["emptyDir"] == {}
    assert main["resources"] == beside["warmcache-init"]["resources"]
    assert job["spec"]["backoffLimit"] == 2 and job["spec"]["ttlSecondsAfterFinished"] == 86400
    assert job["spec"]["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}], job
    key = [{n: _variables(c).get(n) for n in ("WARM_STORE", "WARM_MODEL", "WARM_VERSION",
                                              "WARM_PLATFORM")}
           for c in (main, beside["warmcache-init"])]
    assert key[0] == key[1], key
    return job


# ---- render: workloads ----

def _workloads():
    template = _deployment()["spec"]["template"]
    claim = {"metadata": {"name": "weights"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "9Gi"}}}}
    other = {"metadata": template["metadata"], "spec": {"containers": [
        {"name": "worker", "image": "registry/llm:v7"}]}}
    return {
        "Deployment": _deployment(),
        "StatefulSet": {"apiVersion": "apps/v1", "kind": "StatefulSet",
                        "metadata": {"name": "llm"},
                        "spec": {"template": template, "volumeClaimTemplates": [claim]}},
        "DaemonSet": {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "llm"},
                      "spec": {"template": template}},
        "LeaderWorkerSet": {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet",
                            "metadata": {"name": "llm"},
                            "spec": {"leaderWorkerTemplate": {"leaderTemplate": template,
                                                              "workerTemplate": other}}},
        "CronJob": {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "llm"},
                    "spec": {"schedule": "@daily", "jobTemplate": {"spec": {
                        "template": template}}}},
        "Job": {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "llm"},
                "spec": {"template": template}},
        "Pod": {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "llm", **template["metadata"]},
                "spec": {**template["spec"], "nodeName": "node-3", "ephemeralContainers": [
                    {"name": "debug", "image": "busybox"}]}},
        "List": {"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llm"},
             "spec": {"selector": {"app": "llm"}}}, _deployment()]},
    }


def every_workload_becomes_a_job(t):
    names = set()
    for kind, manifest in _workloads().items():
        job = _is_whole(_job(t, manifest))
        assert "nodeName" not in _spec(job) and "ephemeralContainers" not in _spec(job), kind
        assert _variables(_main(job))["WARM_MODEL"] == "registry+llm", kind
        assert _variables(_main(job))["WARM_VERSION"] == "v7", kind
        if kind == "StatefulSet":
            (volume,) = [v for v in _spec(job)["volumes"] if v["name"] == "weights"]
            assert volume["ephemeral"]["volumeClaimTemplate"]["spec"]["accessModes"] == \
                ["ReadWriteOnce"], volume
        else:
            names.add(_name(job))
        assert "app" not in json.dumps(job["spec"]["template"]["metadata"]["labels"]).replace(
            "app.kubernetes.io", ""), kind
    assert len(names) == 1, "the same template, the same Job: %s" % names


def what_inject_made_keeps_its_options(t):
    for kind, manifest in _workloads().items():
        made = _inject(t, manifest, "--container", "server", "--store=s3://b/x", "--read-only",
                       "--ready-url=http://127.0.0.1:1/r", "--ready-match=UP", "--model=mine",
                       "--env=AWS_REGION=eu", "--init-memory=1Gi", "--sidecar-cpu=300m",
                       "--platform=h100", image="other/image:9")
        job = _is_whole(_job(t, made, needed=["--container", "server"]))
        env = _variables(_main(job))
        for name, value in (("STORE", "s3://b/x"), ("READY_URL", "http://127.0.0.1:1/r"),
                            ("READY_MATCH", "UP"), ("MODEL", "mine"), ("VERSION", "v7"),
                            ("PLATFORM", "h100")):
            assert env["WARM_" + name] == value, (kind, name, env)
        assert env["AWS_REGION"] == "eu" and "WARM_MODE" not in env, (kind, env)
        assert _main(job)["image"] == "other/image:9", kind
        assert _main(job)["resources"]["limits"]["memory"] == "1Gi", kind
        job = _job(t, made, "--container", "server", "--ready-url=http://127.0.0.1:2/",
                   "--store=/a", "--store=/b", "--model=other", "--platform=p", needed=[])
        env = _variables(_is_whole(job) and _main(job))
        assert env["WARM_READY_URL"] == "http://127.0.0.1:2/" and env["WARM_STORE"] == "/a,/b", env
        assert env["WARM_MODEL"] == "other" and env["WARM_PLATFORM"] == "p", env


def injected_or_not_the_key_is_the_same(t):
    for image in ("registry/llm:v7", "registry/llm", "r:5000/a/b@sha256:" + "a" * 64):
        plain = _job(t, _deployment(image=image))
        made = _job(t, _inject(t, _deployment(image=image)))
        a, b = (_variables(_main(j)) for j in (plain, made))
        for name in ("WARM_MODEL", "WARM_VERSION", "WARM_PLATFORM", "WARM_STORE"):
            assert a.get(name) == b.get(name), (name, a, b)


def several_workloads_need_a_name(t):
    two = {"apiVersion": "v1", "kind": "List", "items": [_deployment("a"), _deployment("b")]}
    _refused(t, two, words=["several workloads", "Deployment a", "Deployment b", "--workload"])
    assert _name(_job(t, two, "--workload", "b")).startswith("b-warm-")
    _refused(t, two, "--workload", "c", words=["'c'"])
    text = "\n---\n".join(json.dumps(_deployment(n)) for n in "ab")
    p = _run(t, "render", "-", *NEEDED, "--workload=a", text=text)
    assert "name: a-warm-" in p.stdout, p.stdout


def rendered_jobs_are_taken_as_they_are(t):
    jobs = _render(t, _deployment(), "--gpu-product=A,B")
    text = "\n---\n".join(json.dumps(j) for j in jobs)
    p = _run(t, "render", "-", text=text)
    assert list(_yaml().safe_load_all(p.stdout)) == jobs
    listed = {"apiVersion": "v1", "kind": "List", "items": jobs}
    assert _render(t, listed, needed=[]) == jobs, "as a hook has them"


# ---- render: versions ----

def a_version_follows_the_image(t):
    injected = _inject(t, _deployment())
    for manifest, needed in ((_deployment(), NEEDED), (injected, NEEDED[2:])):
        job = _job(t, manifest, "--set-image=registry/llm:v8", needed=needed)
        env = _variables(_is_whole(job) and _main(job))
        assert env["WARM_VERSION"] == "v8" and env["WARM_MODEL"] == "registry+llm", env
        assert _sidecars(job)["server"]["image"] == "registry/llm:v8"
        digest = "sha256:" + "b" * 64
        env = _variables(_main(_job(t, manifest, "--set-image=server=registry/other@" + digest,
                                    needed=needed)))
        assert env["WARM_VERSION"] == digest and env["WARM_MODEL"] == "registry+other", env
        env = _variables(_main(_job(t, manifest, "--set-image=registry/llm:latest",
                                    needed=needed)))
        assert env["WARM_VERSION"] == "", env
        env = _variables(_main(_job(t, manifest, "--set-image=registry/llm:v8", "--version=x",
                                    needed=needed)))
        assert env["WARM_VERSION"] == "x", env
        names = {_name(_job(t, manifest, *more, needed=needed)) for more in (
            [], ["--set-image=registry/llm:v8"], ["--version=x"])}
        assert len(names) == 3, names
        assert _name(_job(t, manifest, "--set-image=registry/llm:v7", needed=needed)) == \
            _name(_job(t, manifest, needed=needed))


def a_version_that_was_given_has_to_be_given_again(t):
    for manifest in (_inject(t, _deployment(), "--version=fixed"),
                     _inject(t, _deployment(annotations={"warmcache.dev/version": "fixed"}))):
        job = _is_whole(_job(t, manifest))
        _refused(t, manifest, "--set-image=registry/llm:v8",
                 words=["'fixed'", "--version is missing"])
        env = _variables(_main(_job(t, manifest, "--set-image=registry/llm:v8", "--version=v8")))
        assert env["WARM_VERSION"] == "v8" and env["WARM_MODEL"] == "registry+llm", env
        assert _name(job) == _name(_job(t, manifest, "--set-image=registry/llm:v7"))
    # Where the annotation says what the image's tag says, too; without our containers, as with the policy.
    notes = {"warmcache.dev/model": "m", "warmcache.dev/version": "v7"}
    for manifest in (_deployment(annotations=notes), _inject(t, _deployment(annotations=notes))):
        for image in ("registry/llm:v8", "registry/other:v7"):
            _refused(t, manifest, "--set-image=" + image, words=["--version is missing"])
    # Another image with the same tag, or two tags that move, and the model is given.
    for old, new in (("registry/llm:v7", "registry/other:v7"), ("a:latest", "a:main")):
        manifest = _deployment()
        manifest["spec"]["template"]["spec"]["containers"][0]["image"] = old
        manifest = _inject(t, manifest, "--model=mine")
        _refused(t, manifest, "--set-image=" + new, words=["--version is missing"])
    model = _inject(t, _deployment(), "--model=mine")
    env = _variables(_main(_job(t, model, "--set-image=registry/other:v8")))
    assert env["WARM_MODEL"] == "mine" and env["WARM_VERSION"] == "v8", env


def annotations_are_the_pods(t):
    """By the downward API, so the Job's pod has to carry them."""
    notes = {"warmcache.dev/model": "m", "warmcache.dev/version": "v", "keep": "1",
             "kubectl.kubernetes.io/restartedAt": "now", "argocd.argoproj.io/tracking-id": "x",
             "prometheus.io/scrape": "true", "helm.sh/hook": "y"}
    names = set()
    for manifest in (_deployment(annotations=notes), _inject(t, _deployment(annotations=notes))):
        job = _is_whole(_job(t, manifest))
        env = _variables(_main(job))
        have = job["spec"]["template"]["metadata"]["annotations"]
        for part in ("model", "version"):
            path = env["WARM_" + part.upper()]["fieldRef"]["fieldPath"]
            assert path == "metadata.annotations['warmcache.dev/%s']" % part
            assert have["warmcache.dev/" + part] == part[0], have
        assert sorted(have) == ["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
                                "keep", "warmcache.dev/model", "warmcache.dev/version"], have
        notes["kubectl.kubernetes.io/restartedAt"] = "later"
        names.add(_name(_job(t, _deployment(annotations=notes))))
    assert len(names) == 1, "a restart of the workload is no other template"


def images_of_other_containers(t):
    manifest = _deployment()
    spec = manifest["spec"]["template"]["spec"]
    spec["containers"].insert(0, {"name": "proxy", "image": "proxy:1"})
    spec["initContainers"] = [{"name": "fetch", "image": "fetch:1"}]
    job = _job(t, manifest, "--set-image=proxy=proxy:2", "--set-image=fetch=fetch:2",
               "--set-image=registry/llm:v8")
    images = {n: c["image"] for n, c in _sidecars(job).items()}
    assert images == {"proxy": "proxy:2", "fetch": "fetch:2", "server": "registry/llm:v8",
                      "warmcache-init": IMAGE}, images
    assert _variables(_main(job))["WARM_VERSION"] == "v8"
    order = [c["name"] for c in _spec(job)["initContainers"]]
    assert order.index("fetch") < order.index("proxy") < order.index("server"), order
    _refused(t, manifest, "--set-image=nobody=x:1", words=["--set-image", "'nobody'"])
    _refused(t, manifest, "--set-image=server=", words=["--set-image", "server="])


# ---- render: GPU products, requests, labels ----

def a_job_for_each_gpu_product(t):
    h100, l40 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S"
    manifest = _deployment(nodeSelector={"pool": "gpu", "nvidia.com/gpu.product": "old"})
    jobs = _render(t, manifest, "--gpu-product", "%s,%s" % (h100, l40), "--gpu-product=T4")
    assert [_spec(_is_whole(j))["nodeSelector"] for j in jobs] == [
        {"pool": "gpu", "nvidia.com/gpu.product": p} for p in (h100, l40, "T4")]
    marks = {j["metadata"]["annotations"]["warmcache.dev/template"] for j in jobs}
    assert len({_name(j) for j in jobs}) == len(marks) == 3
    assert len({json.dumps({n: v for n, v in _variables(_main(j)).items()
                            if n != "WARM_COMPLETE"}) for j in jobs}) == 1, "the key is the same"
    _refused(t, manifest, "--gpu-product=", words=["--gpu-product"])


def _requests(job):
    return json.loads(_variables(_main(job))["WARM_REQUESTS"])


def requests_travel_in_the_job(t):
    one = {"url": "/v1/completions", "body": {"prompt": "1 $$ or $(HOME) é \" \\"},
           "headers": {"X-A": "b"}}
    more = [{"url": "/v1/x", "method": "PUT", "body": "text"}, {"url": "http://127.0.0.1:9/y"}]
    for name, what in (("one.json", one), ("more.json", more)):
        with open(t.path(name), "w") as f:
            json.dump(what, f)
    args = ["--request", t.path("one.json"), "--request", t.path("more.json"),
            "--cog", '{"prompt": "hi"}']
    job = _is_whole(_job(t, _deployment(), *args))
    cog = {"url": "/predictions", "body": {"input": {"prompt": "hi"}},
           "match": '"status": *"succeeded"'}
    assert _requests(job) == [one, *more, cog], _requests(job)
    assert "$" not in _variables(_main(job))["WARM_REQUESTS"], "the kubelet would expand it"
    assert "WARM_REQUESTS" not in _variables(_main(_job(t, _deployment())))
    assert _name(job) != _name(_job(t, _deployment())), "other requests, another cache"
    p = _run(t, "render", t.path("d.json"), *NEEDED, "--request", "-", text=json.dumps(one),
             code=NOT_FOUND)
    with open(t.path("d.json"), "w") as f:
        json.dump(_deployment(), f)
    p = _run(t, "render", t.path("d.json"), *NEEDED, "--request", "-", text=json.dumps(one))
    assert _requests(next(_yaml().safe_load_all(p.stdout))) == [one]


def bad_requests_are_refused(t):
    wrong = {"[1]": "\"url\"", "{}": "\"url\"", '{"url": 1}': "\"url\"", "{": "r.json",
             '{"url": "/", "method": 1}': "\"method\"", '{"url": "/", "bdy": 1}': "\"bdy\"",
             '{"url": "/", "headers": {"a": 1}}': "\"a\"", "": "r.json", '"x"': "r.json",
             '{"url": "/", "headers": "x"}': "\"headers\"",
             '{"url": "/", "headers": {"a": "b\\r\\nc: d"}}': "\"a\"",
             '[{"url": "/"}, {"body": 1}]': "\"url\""}
    for text, word in wrong.items():
        with open(t.path("r.json"), "w") as f:
            f.write(text)
        p = _run(t, "render", "-", *NEEDED, "--request", t.path("r.json"), code=INVALID,
                 text=json.dumps(_deployment()))
        assert word in p.stderr and p.stdout == "", (text, p.stderr)
    _refused(t, _deployment(), "--request", t.path("none"), words=["none"], code=NOT_FOUND)
    for cog, word in (("[1]", "--cog"), ("{", "--cog"), ("hi", "--cog")):
        _refused(t, _deployment(), "--cog", cog, words=[word])
    with open(t.path("large"), "w") as f:
        json.dump({"url": "/", "body": "x" * 70000}, f)
    _refused(t, _deployment(), "--request", t.path("large"), words=["65536"], code=LIMIT)


def labels_account_and_timeout(t):
    manifest = _deployment(serviceAccountName="mine", serviceAccount="mine")
    plain = _job(t, manifest)
    assert _spec(plain)["serviceAccountName"] == "mine"
    job = _job(t, manifest, "--service-account=writer", "--label=kueue.x-k8s.io/queue-name=gpu",
               "--label=a=b=c", "--namespace=ns")
    assert _spec(job)["serviceAccountName"] == "writer" and "serviceAccount" not in _spec(job)
    for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
        assert labels["kueue.x-k8s.io/queue-name"] == "gpu" and labels["a"] == "b=c", labels
        assert labels["warmcache.dev/prewarm"] == "llm"
    assert job["metadata"]["namespace"] == "ns" and "namespace" not in plain["metadata"]
    _refused(t, manifest, "--label=x", words=["--label", "'x'"])
    names = set()
    for timeout, seconds in (("90s", 90), ("2h", 7200), ("1500ms", 1)):
        job = _job(t, manifest, "--timeout=" + timeout)
        names.add(_name(job))
        assert job["spec"]["activeDeadlineSeconds"] == seconds + 600, job["spec"]
        assert _variables(_main(job))["WARM_TIMEOUT"] == "%ds" % seconds
    assert names == {_name(plain)}, names
    assert plain["spec"]["activeDeadlineSeconds"] == 3600 + 600


def what_a_job_must_not_have_is_left_out(t):
    check = {"httpGet": {"path": "/", "port": 8000}}
    manifest = _deployment(
        hostname="h", subdomain="s", readinessGates=[{"conditionType": "x"}], nodeName="n",
        schedulingGates=[{"name": "g"}], activeDeadlineSeconds=5,
        topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "z"}],
        nodeSelector={"pool": "gpu"}, priorityClassName="high", runtimeClassName="nvidia",
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        imagePullSecrets=[{"name": "p"}],
        affinity={"podAffinity": {"x": []}, "podAntiAffinity": {"y": []}, "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        securityContext={"runAsUser": 1000}, volumes=[{"name": "shm", "emptyDir": {
            "medium": "Memory"}}])
    server = manifest["spec"]["template"]["spec"]["containers"][0]
    server.update({"livenessProbe": check, "readinessProbe": check, "startupProbe": check,
                   "ports": [{"containerPort": 8000, "hostPort": 80}], "args": ["--tp=2"],
                   "lifecycle": {"preStop": {"sleep": {"seconds": 9}}, "postStart": {"x": 1}}})
    proxy = {"name": "proxy", "image": "p", "restartPolicy": "Always", "startupProbe": check,
             "lifecycle": {"preStop": {"sleep": {"seconds": 9}}}}
    manifest["spec"]["template"]["spec"]["initContainers"] = [proxy]
    for one in (manifest, _inject(t, manifest)):
        job = _is_whole(_job(t, one))
        spec, beside = _spec(job), _sidecars(job)
        for gone in ("hostname", "subdomain", "readinessGates", "nodeName", "schedulingGates",
                     "activeDeadlineSeconds", "topologySpreadConstraints"):
            assert gone not in spec, gone
        assert spec["affinity"] == {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
        assert spec["nodeSelector"] == {"pool": "gpu"} and spec["priorityClassName"] == "high"
        assert spec["runtimeClassName"] == "nvidia" and spec["imagePullSecrets"] == [{"name": "p"}]
        assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
        assert spec["securityContext"] == {"runAsUser": 1000}
        assert spec["volumes"][0]["name"] == "shm" and "replicas" not in job["spec"]
        s = beside["server"]
        assert s["resources"] == {"limits": {"nvidia.com/gpu": "2"}} and s["args"] == ["--tp=2"]
        assert s["ports"] == [{"containerPort": 8000}] and s["lifecycle"] == {"postStart": {"x": 1}}
        assert not [n for n in s if n.endswith("Probe")], s
        assert "startupProbe" in beside["proxy"], "others wait for it to be up"
        assert list(beside)[:2] == ["proxy", "warmcache-init"], list(beside)
    only = _deployment(affinity={"podAffinity": {"x": []}})
    assert "affinity" not in _spec(_job(t, only))


def the_same_input_gives_the_same_name(t):
    for manifest in (_deployment(), _inject(t, _deployment())):
        first = _render(t, manifest)
        assert first == _render(t, manifest)
        shuffled = json.loads(json.dumps(manifest, sort_keys=True))
        assert _name(_job(t, shuffled)) == _name(first[0]), "the order of members is no matter"
        more = copy.deepcopy(manifest)
        more["spec"].update(replicas=9, status={"readyReplicas": 1})
        more["metadata"].update(resourceVersion="77", annotations={"a": "b"}, labels={"x": "y"})
        more["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
        assert _name(_job(t, more)) == _name(first[0]), "what isn't the pod's is no matter"
        more["spec"]["template"]["spec"]["containers"][0]["args"] = ["x"]
        assert _name(_job(t, more)) != _name(first[0])


def ugly_names_become_names_of_jobs(t):
    for name in ("a" * 63, "a" * 46 + "-" + "b" * 20, "a.b.c", "x" * 253, "a" * 46 + "." * 9 + "z",
                 "9-lives", "Upper_Case", "-", "...", "", "é", "a--", "-a", "x y"):
        job = _job(t, _deployment(name))
        assert DNS.fullmatch(_name(job)) and len(_name(job)) <= 63, (name, _name(job))
        label = job["metadata"]["labels"]["warmcache.dev/prewarm"]
        assert DNS.fullmatch(label), (name, label)
        for hook in _render(t, _deployment(name), "--hook=argocd"):
            assert DNS.fullmatch(_name(hook)), (name, _name(hook))
    unnamed = _deployment()
    del unnamed["metadata"]["name"]
    assert _name(_job(t, unnamed)).startswith("workload-warm-")


# ---- render: hooks ----

def hooks_carry_the_jobs(t):
    tools = {"argocd": ("argocd.argoproj.io/hook", "PreSync", "argocd.argoproj.io/sync-wave",
                        "argocd.argoproj.io/hook-delete-policy", "BeforeHookCreation"),
             "helm": ("helm.sh/hook", "pre-upgrade", "helm.sh/hook-weight",
                      "helm.sh/hook-delete-policy", "before-hook-creation")}
    manifest = _deployment(imagePullSecrets=[{"name": "p"}], securityContext={
        "runAsNonRoot": True, "runAsUser": 1000})
    args = ["--store=s3://b/x", "--gpu-product=A,B", "--timeout=30m", "--namespace=ns"]
    jobs = _render(t, manifest, *args)
    for tool, (hook, when, order, policy, delete) in tools.items():
        config, job = _render(t, manifest, *args, "--hook", tool)
        waits = {"argocd": "1800s", "helm": "240s"}[tool]
        assert config["kind"] == "ConfigMap" and job["kind"] == "Job"
        for one in (config, job):
            notes = one["metadata"]["annotations"]
            assert notes[hook] == when and notes[policy] == delete, notes
            assert one["metadata"]["namespace"] == "ns"
        assert int(config["metadata"]["annotations"][order]) < \
            int(job["metadata"]["annotations"][order]) < 0
        assert _name(config) == "llm-prewarm" and _name(job) == "llm-prewarm-hook"
        carried = json.loads(config["data"]["jobs.json"])
        assert carried["kind"] == "List" and carried["items"] == jobs
        spec, main = _spec(job), _main(job)
        assert main["command"] == ["warmcache-prewarm", "wait", "/prewarm/jobs.json", "--create",
                                   "--timeout", waits], main
        assert 0 < job["spec"]["activeDeadlineSeconds"] - int(waits[:-1]) <= 60, job["spec"]
        assert "ttlSecondsAfterFinished" not in job["spec"] and main["image"] == IMAGE
        assert spec["serviceAccountName"] == "warmcache-prewarm"
        assert spec["volumes"] == [{"name": "prewarm", "configMap": {"name": "llm-prewarm"}}]
        assert spec["imagePullSecrets"] == [{"name": "p"}] and spec["restartPolicy"] == "Never"
        assert spec["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"}}, spec
        assert "nvidia" not in json.dumps(spec) and "nodeSelector" not in spec
        assert _variables(main)["WARM_STORE"] == "s3://b/x"
        assert "app" not in job["spec"]["template"]["metadata"]["labels"]
        again = _render(t, manifest, *args, "--hook", tool, "--set-image=registry/llm:v8")
        assert [_name(o) for o in again] == ["llm-prewarm", "llm-prewarm-hook"]
        (_, job) = _render(t, manifest, *args, "--hook", tool, "--require")
        assert "--require" in _main(job)["command"]
    _refused(t, manifest, "--hook=flux", words=["--hook", "'flux'", "argocd|helm"])


# ---- render: what is wrong ----

def bad_usage_says_why(t):
    for args, words in (([], ["subcommand"]), (["frob"], ["no such subcommand"]),
                        (["render"], ["one workload"]), (["render", "a", "b"], ["one workload"]),
                        (["fill", "x"], ["no operand"]), (["run"], ["one workload"]),
                        (["render", "x", "--bogus"], ["--bogus"]),
                        (["render", "x", "--timeout=soon"], ["soon"])):
        p = _run(t, *args, code=INVALID)
        assert all(w in p.stderr for w in words) and p.stdout == "", (args, p.stderr)
    d = _deployment()
    _refused(t, d, words=["--image"], needed=NEEDED[2:])
    _refused(t, d, words=["--ready-url is missing"], needed=NEEDED[:2])
    _refused(t, d, "--container=x", words=["'x'", "server"])
    _refused(t, d, "--for=cobol", words=["cobol"])
    _refused(t, {"apiVersion": "v1", "kind": "Service"}, words=["no pod template"])
    _run(t, "render", t.path("none.yaml"), *NEEDED, code=NOT_FOUND)
    with open(t.path("bad.yaml"), "w") as f:
        f.write("a: [1\n")
    p = _run(t, "render", t.path("bad.yaml"), *NEEDED, code=INVALID)
    assert "bad.yaml" in p.stderr, p.stderr
    two = _deployment()
    two["spec"]["template"]["spec"]["containers"] = [{"name": n, "image": n} for n in "ab"]
    _refused(t, two, words=["several containers", "name one of a, b"])
    assert "b" in _sidecars(_is_whole(_job(t, two, "--container=b"), container="b"))
    only_init = _inject(t, d)
    inits = only_init["spec"]["template"]["spec"]["initContainers"]
    inits[:] = [c for c in inits if c["name"] == "warmcache-init"]
    _refused(t, only_init, words=["warmcache-sidecar"])
    p = _run(t, "render", "deployment/llm", *NEEDED, code=NOT_FOUND)
    assert "kubeconfig" in p.stderr.lower(), p.stderr
    p = _run(t, "run", "-", *NEEDED, text=json.dumps(d), code=NOT_FOUND)
    assert "kubeconfig" in p.stderr.lower(), p.stderr


# ---- fill ----

class _Model(fakes.Fake):
    """A server that isn't ready for the first `after` questions, and compiles when it is asked."""

    def __init__(self, t, after=0, body=b"READY", status=200):
        self.after, self.body, self.status, self.got, self.compile = after, body, status, [], None
        super().__init__(t)
        self.ready = self.url + "/health"

    def handle(self, request):
        if request.path == "/health":
            self.after -= 1
            return fakes.Reply(200 if self.after < 0 else 503, body=self.body)
        self.got.append((request.method, request.path, request.body, request.headers))
        if self.compile:
            self.compile(len(self.got))
        return fakes.Reply(self.status, body=b"compiler \x1b[1mfell over")


def _fill_line(t, model, *args, store=None, mark="hash1", version="v1", requests=None):
    result = t.path("result")
    open(result, "w").close()
    line = ["fill", "--volume", t.volume, "--store", store or t.store, "--model", "m", "--version",
            version, "--ready-url", model.ready if model else READY, "--settle=0", "--complete",
            mark, "--result", result, "--timeout=30s"]
    return line + (["--requests", json.dumps(requests)] if requests else []) + list(args)


def _fill(t, model, *args, code=0, env=None, **how):
    p = _run(t, *_fill_line(t, model, *args, **how), code=code, env=env)
    with open(t.path("result")) as f:
        result = json.load(f)
    assert result["status"] == ("failed" if code else "complete"), result
    assert bool(result["reason"]) == bool(code), result
    return p, result


def _shown(t, store=None, code=0, version="v1", env=None):
    return json.loads(t.run("show", "--json", "--store", store or t.store, "--model=m",
                            "--version=" + version, code=code, env=env).stdout or "null")


def _complete(t, mark):
    """What `wait` would say of a template with this hash."""
    job = _job(t, _deployment(), "--store", t.store, "--model=m", "--version=v1")
    job["metadata"]["annotations"]["warmcache.dev/template"] = mark
    p = subprocess.run([os.path.join(t.bin, "warmcache-prewarm"), "wait", "-", "--require",
                        "--timeout=1s"], input=json.dumps(job), env=_env(t), text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.returncode in (0, CANCELED), p.stderr
    return p.returncode == 0


def fill_waits_asks_in_order_publishes_and_marks(t):
    tree = small_tree()
    model = _Model(t, after=2)
    model.compile = lambda n: tree.write(t.volume) if n == 2 else None
    requests = [{"url": "/v1/a", "body": {"prompt": "é"}, "headers": {"X-Test": "yes"}},
                {"url": model.url + "/b", "method": "PUT", "body": "plain",
                 "headers": {"Content-Type": "text/plain"}}, {"url": "rel"}]
    p, result = _fill(t, model, requests=requests)
    assert [(m, path, body) for m, path, body, _ in model.got] == [
        ("POST", "/v1/a", json.dumps({"prompt": "é"}, ensure_ascii=False,
                                     separators=(",", ":")).encode()),
        ("PUT", "/b", b"plain"), ("GET", "/rel", b"")], model.got
    first, second = ({k.lower(): v for k, v in dict(h).items()} for _, _, _, h in model.got[:2])
    assert first["x-test"] == "yes" and first["content-type"] == "application/json", first
    assert second["content-type"] == "text/plain", second
    check_store(t.store, tree)
    assert result["groups"] == len(tree.groups) and result["complete"] is True, result
    assert result["key"] == "m/v1/" + MACHINE and result["files"] == len(tree.files), result
    assert _shown(t)["complete"] is True
    assert _complete(t, "hash1") and not _complete(t, "hash2")
    assert "3 of 3" in p.stderr, p.stderr
    assert t.init(volume=t.fresh()).status == "warm"


def fill_with_a_pattern_waits_for_the_body(t):
    Tree([triton_group("a")]).write(t.volume)
    model = _Model(t, body=b'{"status": "STARTING"}')
    threading.Timer(2.5, setattr, (model, "body", b'{"status": "READY"}')).start()
    began = time.monotonic()
    _fill(t, model, "--ready-match", '"status": *"READY"')
    assert time.monotonic() - began > 2.4 and _shown(t)["complete"] is True
    never = _Model(t, body=b"STARTING")
    p, result = _fill(t, never, "--ready-match=READY", "--timeout=2s", code=CANCELED, mark="h2")
    assert "doesn't match" in p.stderr and never.ready in result["reason"], p.stderr


def a_request_that_fails_fails_the_fill(t):
    tree = small_tree()
    tree.write(t.volume)
    for status, sent in ((500, 1), (404, 1), (400, 1), (302, 1)):
        model = _Model(t, status=status)
        p, result = _fill(t, model, code=INVALID, requests=[{"url": "/a", "body": {}},
                                                            {"url": "/b"}])
        assert len(model.got) == sent, (status, model.got)
        for text in (p.stderr, result["reason"]):
            assert "HTTP %d" % status in text and "request 1 of 2, /a" in text, text
            assert "compiler" in text and "\x1b" not in text, text
    assert _shown(t)["complete"] is False, "what was there is published, without a mark"
    check_store(t.store, tree)
    assert len([x for x in _shown(t)["layers"] if x["state"] == "live"]) == 1
    model = _Model(t, status=503)
    _fill(t, model, code=INVALID, requests=[{"url": "/a"}])
    assert len(model.got) > 1, "busy is asked again"
    model = _Model(t)
    model.handle = lambda r: None if r.path == "/b" else _Model.handle(model, r)
    p, _ = _fill(t, model, code=TRANSIENT, requests=[{"url": "/a"}, {"url": "/b"}, {"url": "/c"}])
    assert "request 2 of 3, /b" in p.stderr and len(model.got) == 1, p.stderr
    assert not _complete(t, "hash1")


def nothing_new_is_marked_all_the_same(t):
    p, _ = _fill(t, _Model(t), code=NOT_FOUND)
    assert "nothing was compiled" in p.stderr and not _complete(t, "hash1"), p.stderr
    tree = small_tree()
    t.publish(tree, volume=t.volume, version="v2")
    assert _shown(t, version="v2")["complete"] is False
    _, result = _fill(t, _Model(t), version="v2")
    assert result["complete"] is True and result["layers"] == 1, result
    assert result["groups"] == 0 and _shown(t, version="v2")["complete"] is True
    _, again = _fill(t, _Model(t), version="v2")
    assert again["complete"] is True, again


def a_second_template_has_its_mark_beside_the_first(t):
    Tree([inductor_file("a")]).write(t.volume)
    _fill(t, _Model(t), mark="hash1")
    t.clear()
    Tree([inductor_file("b")]).write(t.volume)
    _fill(t, _Model(t), mark="hash2")
    assert _complete(t, "hash1") and _complete(t, "hash2") and not _complete(t, "hash3")
    volume = t.fresh()
    r = t.init(volume=volume)
    assert r.status == "warm" and r.json["complete"] is True, r
    _fill(t, _Model(t), mark="hash3")  # nothing of its own
    for mark in ("hash1", "hash2", "hash3"):
        assert _complete(t, mark), mark


def torn_groups_are_not_published(t):
    tree = Tree([triton_group("a")])
    tree.write(t.volume)
    torn = triton_group("b")
    for path, data in list(torn.items())[1:]:
        os.makedirs(os.path.dirname(os.path.join(t.volume, path)), exist_ok=True)
        with open(os.path.join(t.volume, path), "wb") as f:
            f.write(data)
    _, result = _fill(t, _Model(t))
    check_store(t.store, tree)
    assert result["torn"] == 1 and result["groups"] == 1, result


def a_store_that_is_away_for_a_moment(t):
    s3 = servers.S3(t)
    proxy = servers.Toxiproxy(t, "127.0.0.1:%d" % s3.port)
    proxy.enable(False)
    tree = small_tree()
    tree.write(t.volume)
    env = _env(t, **s3.keys())
    store = s3.url("x", endpoint=proxy.endpoint)
    threading.Timer(6, proxy.enable).start()
    p, result = _fill(t, _Model(t), store=store, env=env)
    assert result["complete"] is True and result["groups"] == len(tree.groups), result
    assert "again in" in p.stderr, p.stderr
    assert _shown(t, store=s3.url("x"), env=env)["complete"] is True
    proxy.enable(False)
    t.clear()
    Tree([triton_group("other")]).write(t.volume)
    began = time.monotonic()
    p, result = _fill(t, _Model(t), "--timeout=6s", store=store, env=env, code=TRANSIENT, mark="h2")
    assert time.monotonic() - began < 30 and result["complete"] is False, result


def a_store_that_refuses_fails_the_fill(t):
    s3 = servers.S3(t)
    small_tree().write(t.volume)
    env = _env(t, AWS_ACCESS_KEY_ID=s3.access, AWS_SECRET_ACCESS_KEY="wrong")
    p, result = _fill(t, _Model(t), store=s3.url("x"), env=env, code=DENIED)
    assert "denied" in p.stderr.lower() or "403" in p.stderr, p.stderr
    blocked = t.path("file")
    open(blocked, "w").close()
    p, _ = _fill(t, _Model(t), store=blocked + "/store", code=NOT_FOUND)
    assert blocked in p.stderr, p.stderr


def fill_that_is_given_too_little(t):
    Tree([triton_group("a")]).write(t.volume)
    p = _run(t, "fill", "--volume", t.volume, "--store", t.store, "--model=", "--ready-url", READY,
             "--result", t.path("r"), code=INVALID)
    assert "no model" in p.stderr, p.stderr
    assert json.load(open(t.path("r")))["status"] == "failed"
    p = _run(t, "fill", "--volume", t.volume, "--store", t.store, "--model=m", "--version=v1",
             "--result", t.path("r"), code=INVALID)
    assert "--ready-url is missing" in p.stderr, p.stderr
    p = _run(t, "fill", "--volume", t.volume, "--model=m", "--result", t.path("r"), code=INVALID)
    assert "store" in p.stderr, p.stderr
    for bad in ("{", "7", '[{"uri": "/"}]'):
        p, _ = _fill(t, _Model(t), "--requests", bad, code=INVALID, mark="none")
        assert "WARM_REQUESTS" in p.stderr, p.stderr
    p, _ = _fill(t, _Model(t), "--ready-match=(", code=INVALID, mark="none")
    assert not _complete(t, "none")


def a_timeout_publishes_without_a_mark(t):
    tree = small_tree()
    tree.write(t.volume)
    model = _Model(t, after=10**6)
    p, result = _fill(t, model, "--timeout=2s", code=CANCELED)
    assert "isn't ready" in p.stderr and "HTTP 503" in p.stderr, p.stderr
    check_store(t.store, tree)
    assert result["groups"] == len(tree.groups) and result["complete"] is False, result
    assert _shown(t)["complete"] is False and not _complete(t, "hash1")
    slow = _Model(t)
    slow.compile = lambda n: time.sleep(8)
    began = time.monotonic()
    p, _ = _fill(t, slow, "--timeout=3s", code=CANCELED, requests=[{"url": "/slow"}])
    assert time.monotonic() - began < 7 and "request 1 of 1, /slow" in p.stderr, p.stderr


def sigterm_publishes_without_a_mark(t):
    tree = small_tree()
    tree.write(t.volume)
    slow = _Model(t)
    slow.compile = lambda n: time.sleep(20)
    for model, requests in ((_Model(t, after=10**6), None), (slow, [{"url": "/slow"}])):
        p = subprocess.Popen([os.path.join(t.bin, "warmcache-prewarm"),
                              *_fill_line(t, model, requests=requests)], env=_env(t),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until("asked", lambda: model.got or (not requests and len(model.seen()) > 0))
        began = time.monotonic()
        p.send_signal(signal.SIGTERM)
        _, err = p.communicate(timeout=20)
        assert p.returncode == CANCELED and time.monotonic() - began < 5, (p.returncode, err)
        check_store(t.store, tree)
        assert _shown(t)["complete"] is False
        with open(t.path("result")) as f:
            assert json.load(f)["status"] == "failed"


# ---- wait ----

def wait_looks_at_the_store_alone(t):
    job = _job(t, _deployment(), "--store", t.store, "--model=m", "--version=v1")
    text = json.dumps(job)
    p = _run(t, "wait", "-", "--timeout=2s", text=text)
    assert "the rollout goes on, cold" in p.stderr and "the store alone can tell" in p.stderr
    p = _run(t, "wait", "-", "--timeout=2s", "--require", text=text, code=CANCELED)
    assert "1 of 1 jobs aren't complete" in p.stderr, p.stderr
    Tree([triton_group("a")]).write(t.volume)
    _fill(t, _Model(t), mark=job["metadata"]["annotations"]["warmcache.dev/template"])
    for more in ([], ["--require"]):
        p = _run(t, "wait", "-", "--timeout=2s", *more, text=text)
        assert "cold" not in p.stderr, p.stderr
    # Not rendered yet: a workload, the same options.
    _run(t, "wait", "-", *NEEDED, "--store", t.store, "--model=m", "--version=v1", "--require",
         "--timeout=3s", text=json.dumps(_deployment()))
    _run(t, "wait", "-", *NEEDED, "--store", t.store, "--model=m", "--version=v2", "--require",
         "--timeout=1s", text=json.dumps(_deployment()), code=CANCELED)
    p = _run(t, "wait", "-", "--timeout=2s", "--create", text=text)
    assert "the rollout goes on, cold" in p.stderr, p.stderr
    _run(t, "wait", "-", "--timeout=2s", "--create", "--require", text=text, code=NOT_FOUND)


def wait_that_is_interrupted(t):
    job = _job(t, _deployment(), "--store", t.store)
    with open(t.path("job.json"), "w") as f:
        json.dump(job, f)
    for more, code in (([], CANCELED), (["--require"], CANCELED)):
        p = subprocess.Popen([os.path.join(t.bin, "warmcache-prewarm"), "wait", t.path("job.json"),
                              *more], env=_env(t), stderr=subprocess.PIPE, text=True)
        time.sleep(1)
        p.send_signal(signal.SIGTERM)
        _, err = p.communicate(timeout=5)
        assert p.returncode == code, (p.returncode, err)


# ---- an API that isn't one ----

class _Api(fakes.Fake):
    """Answers by path; a function is called with the request."""

    def __init__(self, t, answers=()):
        self.answers = dict(answers)
        super().__init__(t)
        self.config = t.path("kubeconfig")
        with open(self.config, "w") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                       "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                       "users": [{"name": "u", "user": {}}],
                       "contexts": [{"name": "c", "context": {
                           "cluster": "c", "user": "u", "namespace": "x"}}]}, f)

    def handle(self, request):
        answer = self.answers.get((request.method, request.path),
                                  self.answers.get(request.path))
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, fakes.Reply):
            return answer
        if answer is None:
            return fakes.Reply(404, body=json.dumps(
                {"kind": "Status", "status": "Failure", "message": "not found", "code": 404,
                 "reason": "NotFound"}).encode())
        if isinstance(answer, str):
            return fakes.Reply(200, body=answer.encode())
        return fakes.Reply(200, [("Content-Type", "application/json")],
                           json.dumps(answer).encode())


PODS = "/api/v1/namespaces/x/pods"
STATUS = ("2026-01-01T00:00:00.5Z 2026-01-01T00:00:00.123Z INFO warmcache-sidecar: status: "
          "state=%s key=m/v1/p published_layers=1 unused=7 used=5 inert=2 complete=%s "
          "last_publish_s=%d kernel_hits=0\n")


def _api_pod(name, init=None, sidecar=None, inits=("warmcache-init", "warmcache-sidecar")):
    states = [{"name": n, "restartCount": (s or {}).pop("restarts", 0), "state": s or {}}
              for n, s in (("warmcache-init", init), ("warmcache-sidecar", sidecar))
              if n in inits]
    return {"metadata": {"name": name, "namespace": "x"},
            "spec": {"initContainers": [{"name": n} for n in inits], "containers": []},
            "status": {"phase": "Running", "initContainerStatuses": states}}


def _ended(message="", code=0, reason="Completed", **more):
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}, **more}


def _pods(t, pods, logs, *args, code=0):
    api = _Api(t, {PODS: {"kind": "PodList", "metadata": {}, "items": pods},
                  "/api/v1/pods": {"kind": "PodList", "metadata": {}, "items": pods},
                  **{"%s/%s/log" % (PODS, n): text for n, text in logs.items()}})
    return t.run("pods", "--kubeconfig", api.config, *args, code=code)


def pods_says_what_is_odd(t):
    warm = json.dumps({"status": "warm", "files": 12, "bytes": 3000, "reason": "",
                       "complete": True})
    cold = json.dumps({"status": "cold", "files": 0, "bytes": 0, "reason": "no layer"})
    running = {"running": {}}
    pods = [
        _api_pod("warm", _ended(warm), dict(running)),
        _api_pod("cold", _ended(cold), dict(running)),
        _api_pod("silent", _ended(""), dict(running)),
        _api_pod("cut", _ended(warm[:30]), dict(running)),
        _api_pod("array", _ended("[1]"), dict(running)),
        _api_pod("json", _ended(warm), dict(running)),
        _api_pod("off", _ended(warm), dict(running)),
        _api_pod("off-json", _ended(warm), dict(running)),
        _api_pod("young", _ended(warm), dict(running)),
        _api_pod("again", _ended(warm, restarts=1), dict(running, restarts=3)),
        _api_pod("oom", _ended(warm), _ended("", 137, "OOMKilled", restarts=2)),
        _api_pod("pull", {"waiting": {"reason": "ImagePullBackOff"}}, {"waiting": {
            "reason": "PodInitializing"}}),
        _api_pod("loop", _ended(warm), {"waiting": {"reason": "CrashLoopBackOff"}, "restarts": 4}),
        _api_pod("killed", _ended("", 137, "Error"), None),
        _api_pod("pending"),
        _api_pod("job", _ended(warm), inits=("warmcache-init",)),
        _api_pod("other", inits=()),
    ]
    del next(p for p in pods if p["metadata"]["name"] == "pending")["status"]
    json_line = ('2026-01-01T00:00:00.5Z {"time":"x","level":"info","program":"warmcache-sidecar",'
                 '"event":"status","text":"state=%s"}\n')
    logs = {
        "warm": "noise\n" + STATUS % ("idle", "false", -1) + STATUS % ("watching", "true", 30) +
                "2026-01-01T00:00:01Z other line\n",
        "young": STATUS % ("started", "false", -1), "cold": "",
        "cut": "2026-01-01T00:00:00Z nothing",
        "json": json_line % "watching used=5 inert=2 complete=true last_publish_s=30",
        "off": "2026-01-01T00:00:00Z x INFO warmcache-sidecar: status: state=disabled "
               "reason=--store: 'x y' is wrong\n",
        "off-json": json_line % "disabled reason=--store: \\\"x\\\" is wrong",
        "again": STATUS % ("watching", "true", 30), "oom": STATUS % ("watching", "true", 30),
        "array": STATUS % ("watching", "true", 30)}
    out = _pods(t, pods, logs, "--json").stdout
    rows = json.loads(out)
    rows = rows["pods"] if isinstance(rows, dict) else rows
    rows = {r["pod"]: r for r in rows}
    assert set(rows) == {p["metadata"]["name"] for p in pods} - {"other"}, sorted(rows)
    r = rows["warm"]
    assert (r["start"], r["files"], r["bytes"], r["sidecar"], r["used"], r["inert"],
            r["complete"]) == ("warm", 12, 3000, "watching", "5", "2", "true"), r
    assert r["published_ms"] == 1767225600000 - 30000, r
    assert rows["cold"]["start"] == "cold" and rows["cold"]["reason"] == "no layer"
    assert rows["cold"]["sidecar"] == "running" and rows["cold"]["published_ms"] == 0
    r = rows["young"]
    assert (r["sidecar"], r["used"], r["complete"]) == ("started", "", "true"), r
    for name in ("silent", "cut", "array"):
        assert rows[name]["start"] == "ended 0 Completed", rows[name]
    for name in ("sidecar", "used", "inert", "complete", "published_ms"):
        assert rows["json"][name] == rows["warm"][name], rows["json"]
    assert rows["off"]["sidecar"] == "disabled", rows["off"]
    assert rows["off"]["reason"] == "--store: 'x y' is wrong", rows["off"]
    assert rows["off-json"]["reason"] == '--store: "x" is wrong', rows["off-json"]
    assert rows["again"]["sidecar"] == "watching (3 restarts)", rows["again"]
    assert rows["oom"]["sidecar"] == "ended 137 OOMKilled (2 restarts)", rows["oom"]
    assert rows["oom"]["used"] == "5", rows["oom"]
    assert rows["pull"]["start"] == "waiting: ImagePullBackOff", rows["pull"]
    assert rows["loop"]["sidecar"] == "waiting: CrashLoopBackOff (4 restarts)", rows["loop"]
    assert rows["killed"]["start"] == "ended 137 Error", rows["killed"]
    assert rows["killed"]["sidecar"] == "not started"
    assert rows["pending"]["start"] == rows["pending"]["sidecar"] == "-", rows["pending"]
    assert rows["job"]["sidecar"] == "-" and rows["job"]["start"] == "warm", rows["job"]
    text = _pods(t, pods, logs).stdout.splitlines()
    assert text[0].startswith("POD") and len(text) == len(pods), text
    assert re.match(r"warm +warm +12 .*5/2 .* watching *$", text[1]), text[1]
    text = _pods(t, pods, logs, "--all-namespaces").stdout.splitlines()
    assert text[1].startswith("x/warm "), text
    assert "no pod has warmcache" in _pods(t, pods[-1:], {}).stdout
    assert json.loads(_pods(t, pods[-1:], {}, "--json").stdout) in ([], {"pods": []})


def pods_says_what_right_is_missing(t):
    def refuse(what):
        return fakes.Reply(403, body=json.dumps({
            "kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
            "message": "%s is forbidden: User \"u\" cannot" % what}).encode())
    api = _Api(t, {PODS: refuse("pods")})
    assert "pods" in t.run("pods", "--kubeconfig", api.config, code=DENIED).stderr
    api.answers = {PODS: {"items": [_api_pod("p", _ended(""), {"running": {}})]},
                   PODS + "/p/log": refuse("pods/log")}
    assert "log" in t.run("pods", "--kubeconfig", api.config, code=DENIED).stderr
    assert t.run("pods", "--kubeconfig", t.path("none"), code=NOT_FOUND).stderr


# ---- run, before such an API ----

JOBS = "/apis/batch/v1/namespaces/x/jobs"


class _Cluster(_Api):
    """Jobs that are created, and pods that a test changes."""

    def __init__(self, t):
        super().__init__(t)
        self.jobs, self.pods, self.finished = {}, [], threading.Event()
        self.answers[("POST", JOBS)] = self._create
        self.answers[PODS] = self._pods
        self.answers["/api/v1/namespaces/x/events"] = {"items": [
            {"reason": "Sad", "message": "it is so"}]}

    def handle(self, request):
        name = request.path.rpartition("/")[2]
        if request.path == JOBS + "/" + name:
            if request.method == "DELETE":
                self.jobs.pop(name, None)
                return fakes.Reply(200, body=b"{}")
            self.answers[request.path] = self.jobs.get(name)
        return super().handle(request)

    def _create(self, request):
        job = json.loads(request.body)
        if _name(job) in self.jobs:
            return fakes.Reply(409, body=json.dumps({
                "kind": "Status", "reason": "AlreadyExists", "code": 409,
                "message": "exists"}).encode())
        self.jobs[_name(job)] = job
        return job

    def _pods(self, request):
        if "watch" not in str(request.query):
            return {"kind": "PodList", "metadata": {"resourceVersion": "1"}, 
                    "items": sorted(self.pods, key=lambda p: p["metadata"]["name"])}
        if not self.finished.wait(1):
            return ""
        pod = self.pods[-1] if self.pods else self.pod("done", "Failed", "2026-01-01T00:00:30Z")
        pod = {**pod, "status": {"phase": "Failed"}}
        pod["metadata"]["resourceVersion"] = "99"
        return json.dumps({"type": "MODIFIED", "object": pod}) + "\n"

    def finish(self, kind):
        for job in self.jobs.values():
            job["status"] = {"conditions": [{"type": kind, "status": "True"}]}
        self.finished.set()

    def pod(self, name, phase, made):
        self.pods.append({"metadata": {"name": name, "creationTimestamp": made,
                                       "resourceVersion": str(len(self.pods) + 1)},
                          "status": {"phase": phase}})
        self.answers["%s/%s/log" % (PODS, name)] = "log of %s\n" % name
        return self.pods[-1]


def run_follows_the_newest_pod(t):
    """After a pod has failed there are two, and the list has them by name."""
    for names in ("ab", "ba"):
        cluster = _Cluster(t)
        old, new = names
        cluster.pod(old, "Failed", "2026-01-01T00:00:00Z")
        cluster.pod(new, "Running", "2026-01-01T00:00:20Z")
        threading.Timer(4, cluster.finish, ["Failed"]).start()
        p = _run(t, "run", "-", "--kubeconfig", cluster.config, code=1, text=json.dumps(
            _job(t, _deployment(), "--store", t.store)))
        assert "%s: Running" % new in p.stderr, p.stderr
        assert p.stderr.count("%s: Running" % new) == 1, p.stderr
        assert p.stderr.count("%s: Failed" % old) <= 1, p.stderr
        assert "--- event of %s: Sad: it is so" % new in p.stderr, p.stderr
        assert "--- warmcache-prewarm\nlog of %s" % new in p.stderr, p.stderr
        assert "1 of 1 jobs failed" in p.stderr.splitlines()[-1], p.stderr


def run_and_a_job_that_is_there(t):
    job = _job(t, _deployment(), "--store", t.store, "--model=m", "--version=v1")
    text, name = json.dumps(job), _name(job)
    os.mkdir(t.store)
    for there, word, posts in (("Failed", "it had failed", 2), ("Complete", "cache is gone", 2),
                               (None, "runs already", 1)):
        cluster = _Cluster(t)
        cluster.jobs[name] = {"metadata": {"name": name}}
        if there:
            cluster.finish(there)
            cluster.finished.clear()
        threading.Timer(3, cluster.finish, ["Complete"]).start()
        p = _run(t, "run", "-", "--kubeconfig", cluster.config, text=text)
        assert word in p.stderr, (there, p.stderr)
        assert len([r for r in cluster.seen("POST") if r.path == JOBS]) == posts, there
        assert len(cluster.seen("DELETE")) == posts - 1
    # A directory that isn't on this machine tells nothing.
    os.rmdir(t.store)
    cluster = _Cluster(t)
    cluster.jobs[name] = {"metadata": {"name": name}}
    cluster.finish("Complete")
    p = _run(t, "run", "-", "--kubeconfig", cluster.config, text=text)
    assert "is Complete already" in p.stderr and not cluster.seen("DELETE"), p.stderr
    # A mark in the store, and nothing is asked for.
    Tree([triton_group("a")]).write(t.volume)
    _fill(t, _Model(t), mark=job["metadata"]["annotations"]["warmcache.dev/template"])
    cluster = _Cluster(t)
    p = _run(t, "run", "-", "--kubeconfig", cluster.config, text=text)
    assert "complete for this template" in p.stderr and not cluster.seen("POST"), p.stderr
    threading.Timer(2, cluster.finish, ["Complete"]).start()
    _run(t, "run", "-", "--kubeconfig", cluster.config, "--force", text=text)
    assert len(cluster.seen("POST")) == 1
