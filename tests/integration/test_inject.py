# SPDX-License-Identifier: Apache-2.0
"""warmcache inject: real manifests, what of them changes and what doesn't, and what it refuses."""

import difflib
import json
import os
import subprocess

from support import (INVALID, LIMIT, NO_MEMORY, NOT_FOUND, Failures, Skip, counts, sweep)

IMAGE = "registry.test/warmcache:1"

VLLM = """\
---
# Source: vllm/templates/service.yaml
apiVersion: v1
kind: Service
metadata:
  name: "vllm-llama"
  namespace: default
  labels:
    helm-release-name: vllm
spec:
  ports:
    - name: "engine-port"
      port: 80
      targetPort: 8000
      protocol: TCP
---
# Source: vllm/templates/configmap.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: scripts}
data:
  8080: "a key that is a number"
  start.sh: |
    #!/bin/sh
    # spec:
    #   containers:
    exec vllm serve "$@"
---
# Source: vllm/templates/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: "vllm-llama-deployment"
  labels:
    model: llama
spec:
  replicas: 1
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 100%, maxUnavailable: 0}
  selector:
    matchLabels:
      model: llama
  progressDeadlineSeconds: 1200   # large models take long
  template:
    metadata:
      labels:
        model: llama
    spec:
      # only trusted nodes
      nodeSelector: {"nvidia.com/gpu.present": 'true'}
      initContainers: []
      containers:
        # the engine
        - name: "vllm"
          image: "vllm/vllm-openai:v0.9.1"   # pinned
          command:
          - "vllm"
          - "serve"
          - "meta-llama/Llama-3.1-8B-Instruct"
          env:
          - name: HF_HOME
            value: /data
          - name: HUGGING_FACE_HUB_TOKEN   # from the hub
            valueFrom:
              secretKeyRef:
                name: hf-token
                key: token
          - {name: LMCACHE_USE_EXPERIMENTAL, value: "True"}

          # Probes
          readinessProbe:
            httpGet: {path: /health, port: 8000}
            periodSeconds: 5
          resources:
            requests:
              memory: "16Gi"
              nvidia.com/gpu: "1"
            limits:
              nvidia.com/gpu: "1"
          volumeMounts:
          - name: vllm-storage
            mountPath: /data
        - name: metrics   # m\u00e9trique \u65e5\u672c
          image: exporter:2
      volumes:
        - name: vllm-storage
          persistentVolumeClaim:
            claimName: "vllm-storage-claim"
      # the end of the pod

# the end of the file
"""

KSERVE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: llama   # \u03bb
  annotations:
    serving.kserve.io/deploymentMode: RawDeployment
spec:
  predictor:
    minReplicas: 1
    containers:
    - name: kserve-container
      image: kserve/huggingfaceserver:v0.15.0-gpu
      args: [--model_name=llama, --model_id=meta-llama/Llama-3.1-8B]
      resources:
        limits: {cpu: "6", memory: 24Gi, nvidia.com/gpu: "1"}   # one
"""

LWS = """\
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata:
  name: vllm
spec:
  replicas: 2
  leaderWorkerTemplate:
    size: 2
    restartPolicy: RecreateGroupOnPodRestart
    leaderTemplate:
      metadata:
        labels:
          role: leader
      spec:
        containers:
          - name: vllm-leader
            image: vllm/vllm-openai:latest
            command:
              - sh
              - -c
              - "bash /vllm-workspace/examples/multi-node-serving.sh leader --ray_cluster_size=$(LWS_GROUP_SIZE);
                 python3 -m vllm.entrypoints.openai.api_server --port 8080 --tensor-parallel-size 8"
            resources:
              limits:
                nvidia.com/gpu: "8"
            volumeMounts:
              - mountPath: /dev/shm
                name: dshm
        volumes:
        - name: dshm
          emptyDir:
            medium: Memory
            sizeLimit: 15Gi
    workerTemplate:
      spec:
        containers:
          - name: vllm-worker
            image: vllm/vllm-openai:latest
            resources: {limits: {nvidia.com/gpu: "8"}}
        # no volumes yet
"""

ROLLOUT = """\
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: llm}
spec:
  replicas: 3
  strategy:
    canary:
      steps:
      - setWeight: 20
      - pause: {duration: 10m}   # look at it
  template:
    metadata:
      annotations:
        warmcache.dev/model: llama
        cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes: scratch
    spec:
      initContainers:
      - name: istio-proxy
        image: istio/proxyv2:1.26.0
        restartPolicy: Always
      # afterwards
      - name: fetch
        image: fetch:1
      containers:
      - name: llm
        image: registry/llm@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        args:
        - |
          --prompt
          # no comment

        env: []
"""

KNATIVE = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/min-scale: "1"
    spec:
      containerConcurrency: 8
      containers:
        - image: ghcr.io/team/hello:1.2   # its only one
          ports:
            - containerPort: 8080
          # nothing more
"""

PYTORCH = """\
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata:
  name: train
spec:
  pytorchReplicaSpecs:
    Master: &replica
      replicas: 1
      restartPolicy: OnFailure
      template:
        spec:
          containers:
            - name: pytorch
              image: train:7
    Worker:
      replicas: 4
      template:
        spec:
          containers:
            - name: pytorch
              image: train:7
"""

RAY = """\
apiVersion: ray.io/v1
kind: RayCluster
metadata:
  name: ray
spec:
  rayVersion: '2.46.0'
  headGroupSpec:
    rayStartParams: {}
    template:
      spec:
        containers:
        - name: ray-head
          image: rayproject/ray:2.46.0-gpu
  workerGroupSpecs:
  - groupName: gpu
    replicas: 1
    rayStartParams:
      num-gpus: "1"
    template:
      spec:
        containers:
        - name: ray-worker   # works
          image: rayproject/ray:2.46.0-gpu
  # more groups
  - groupName: more
    template:
      spec:
        containers:
        - {name: ray-worker, image: "rayproject/ray:2.46.0-gpu"}
"""

# A workload, how many templates it has, and how many of its lines change.
REAL = {"vllm": (VLLM, 1, 1), "kserve": (KSERVE, 1, 0), "lws": (LWS, 2, 0), "rollout": (ROLLOUT, 1, 2),
        "knative": (KNATIVE, 1, 0), "pytorch": (PYTORCH, 2, 0), "ray": (RAY, 3, 1)}


def _inject(t, text, *args, code=0, image=True):
    """stdout and stderr of inject with `text` as its input."""
    line = [os.path.join(t.bin, "warmcache"), "inject", "-"] + list(args)
    p = subprocess.run(line + (["--image", IMAGE] if image else []), input=text.encode(), env=t.env(),
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    err = p.stderr.decode()
    t.written += [err]
    assert p.returncode == code, "exit %d: %s" % (p.returncode, err)
    return p.stdout.decode(), err


def _lost(before, after):
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines())
            if line.startswith("- ")]


def of_real_manifests_lines_are_added_and_none_is_lost(t):
    failures = Failures()
    for name, (text, templates, changed) in REAL.items():
        with failures:
            out, err = _inject(t, text)
            lost = _lost(text, out)
            assert len(lost) == changed, (name, lost, out)
            assert out.count("name: warmcache-init\n") == templates, (name, out)
            assert "anew" not in err, (name, err)
            for comment in [line.split("#", 1)[1] for line in text.splitlines() if " # " in line]:
                assert comment in out, (name, comment)
    failures.tell()


def twice_is_once_and_remove_gives_back_what_was_there(t):
    failures = Failures()
    for name, (text, _, _) in REAL.items():
        with failures:
            once, _ = _inject(t, text)
            again, err = _inject(t, once)
            assert again == once, (name, _lost(once, again))
            assert "brought up to date" in err, err
            back, err = _inject(t, once, "--remove", image=False)
            assert "removed" in err, err
            # What was written as an empty list is gone with what came into it.
            lost = [line for line in _lost(text, back) if not line.endswith(("[]", "{}"))]
            assert not [line for line in lost if "ray-worker" not in line], (name, lost)
            left, err = _inject(t, back, "--remove", image=False)
            assert left == back and "nothing of warmcache" in err, err
    failures.tell()


def a_deployment_is_changed_in_these_lines(t):
    out, err = _inject(t, VLLM)
    added = [line[2:] for line in difflib.ndiff(VLLM.splitlines(), out.splitlines())
             if line.startswith("+ ")]
    want = """\
      annotations:
        cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes: warmcache
      initContainers:
      - name: warmcache-init"""
    assert "\n".join(added).startswith(want), added
    assert "          - name: TRITON_CACHE_DIR\n            value: /warmcache/triton\n" in out
    assert "          - name: warmcache\n            mountPath: /warmcache\n        - name: metrics" in out
    assert "        - name: warmcache\n          emptyDir: {}\n      # the end of the pod\n" in out
    assert "container vllm, key vllm+vllm-openai/v0.9.1/auto" in err, err


def a_file_is_read_as_standard_input_is(t):
    with open(t.path("m.yaml"), "w", encoding="utf-8") as f:
        f.write(LWS)
    out = t.run("inject", t.path("m.yaml"), "--image", IMAGE).stdout
    assert out == _inject(t, LWS)[0]
    p = subprocess.run([os.path.join(t.bin, "warmcache"), "inject", t.path("m.yaml")],
                       env=t.env(WARM_IMAGE=IMAGE), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stdout.decode() == out
    assert "no version" in p.stderr.decode(), "latest is no version"


def json_stays_json(t):
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"},
           "spec": {"containers": [{"name": "c", "image": "i:\u00e9", "args": ["\U0001f600"]}]}}
    for text in [json.dumps(pod), json.dumps(pod, indent=4, ensure_ascii=False) + "\n",
                 json.dumps(pod) + "\n" + json.dumps(dict(pod, kind="Other"))]:
        out, _ = _inject(t, text)
        decoder, found = json.JSONDecoder(), []
        rest = out.strip()
        while rest:
            value, at = decoder.raw_decode(rest)
            found.append(value)
            rest = rest[at:].strip()
        assert all(v["spec"]["containers"][0]["args"] == ["\U0001f600"] for v in found), out
        assert all(v["spec"]["volumes"] == [{"name": "warmcache", "emptyDir": {}}] for v in found)
        assert [v["kind"] for v in found] == ["Pod", "Other"][:len(found)]
        assert ("\n    " in out) == ("\n    " in text)


def documents_without_a_template_keep_their_bytes(t):
    first = "# nothing \u00e9\n---\n\na:   'x'   # odd\nb: {c : 1}\n...\n---\n"
    out, _ = _inject(t, first + KNATIVE + "---\n# empty\n---\nlist: [ ]\n")
    assert out.startswith(first), out
    assert out.endswith("---\n# empty\n---\nlist: [ ]\n"), out


def windows_line_ends_stay(t):
    out, _ = _inject(t, KSERVE.replace("\n", "\r\n"))
    assert out.replace("\r\n", "") == out.replace("\r", "").replace("\n", ""), "a lone \\n or \\r"
    assert not _lost(KSERVE, out.replace("\r\n", "\n"))


def what_an_anchor_names_is_written_anew_with_a_warning(t):
    text = "# lost\nkind: Pod\napiVersion: v1\nspec: &s\n  containers: [{name: c, image: i:1}]\nother: *s\n"
    _, err = _inject(t, text.replace("other: *s\n", ""))
    assert "anew" not in err, err
    text = text.replace("other: *s", "other: {spec: *s}")
    out, err = _inject(t, text)
    assert out.count("warmcache-init") >= 2, out


def bad_input_is_exit_2_with_its_place(t):
    template = "spec:\n  template:\n    spec:\n      containers:\n      - image: {{ .Values.image }}\n"
    for text, words in [(template, ["standard input:5:", "helm template"]),
                        ("{{- if .x }}\na: 1\n{{- end }}\n", ["standard input:1:", "helm template"]),
                        ("a: 1\n b: 2\n", ["standard input:2:3:"]), ("a: 1\na: 2\n", ["standard input:2:1:", "'a'"]),
                        ("a: *x\n", ["standard input:1:4:"]), ("", ["no pod template in 0 documents"]),
                        ("a: \x01", ["standard input:1:4:"]),
                        ("kind: Service\n---\na: 1\n", ["no pod template in 2 documents"]),
                        ("# c\n---\n" + KSERVE.replace("    minReplicas: 1\n", "").replace(
                            "    - name: kserve", "    - name: other\n    - name: kserve").replace(
                                "nvidia.com/gpu", "x"), ["standard input:3:", "other, kserve-container"])]:
        out, err = _inject(t, text, code=INVALID)
        assert out == "" and all(w in err for w in words), (text, err)
    _, err = _inject(t, "- " * 200 + "a", code=LIMIT)
    assert "100 levels" in err, err
    _, err = _inject(t, "#" * (17 << 20), code=LIMIT)
    assert "16 MiB" in err, err


def bad_options_are_exit_2_and_named(t):
    for args, word in [([], "--image"), (["--image", IMAGE, "--mount", "x"], "--mount"),
                       (["--image", IMAGE, "--env", "x"], "--env"),
                       (["--image", IMAGE, "--for", "cuda"], "cuda"),
                       (["--image", IMAGE, "--init-cpu", "many"], "--init-cpu"),
                       (["--image", IMAGE, "--sidecar-memory", "1GB"], "--sidecar-memory"),
                       (["--image", IMAGE, "--bogus"], "--bogus")]:
        out, err = _inject(t, KSERVE, *args, code=INVALID, image=False)
        assert out == "" and word in err, (args, err)
    t.run("inject", "--image", IMAGE, code=INVALID)
    t.run("inject", t.path("not-there"), "--image", IMAGE, code=NOT_FOUND)


def of_many_workloads_those_without_the_container_are_left_alone(t):
    text = KSERVE + "---\n" + KNATIVE + "---\n" + PYTORCH
    out, err = _inject(t, text, "--container", "pytorch")
    assert out.startswith(KSERVE + "---\n" + KNATIVE), out
    assert err.count("left alone") == 2 and out.count("name: warmcache-init\n") == 2, err
    again, err = _inject(t, out, "--container", "kserve-container")
    assert again.endswith(out[len(KSERVE + "---\n" + KNATIVE):]), "left alone means as it was"
    out, err = _inject(t, text, "--container", "x", code=INVALID)
    assert out == "" and "none of 4 pod templates" in err, err
    named = ROLLOUT.replace("warmcache.dev/model: llama", "warmcache.dev/container: x")
    out, err = _inject(t, named, code=INVALID)
    assert "'x'" in err and "none of 1 pod templates" in err, err


def options_reach_the_pod(t):
    out, err = _inject(t, ROLLOUT, "--store", "/caches/team", "--version", "v9", "--for", "jax",
                       "--env", "A=b c", "--config", "", "--read-only", "--mount", "/cache",
                       "--ready-url", "http://127.0.0.1:8000/health", "--init-memory", "1Gi")
    for line in ["value: /caches/team", "value: v9", "value: b c", "value: readonly", "memory: 1Gi",
                 "value: http://127.0.0.1:8000/health", "mountPath: /cache", "value: /cache/jax",
                 "fieldPath: metadata.annotations['warmcache.dev/model']",
                 "safe-to-evict-local-volumes: scratch,warmcache"]:
        assert line in out, (line, out)
    assert "TRITON" not in out and "configMapRef" not in out, out
    names = [line.split("name: ")[1] for line in out.splitlines() if line.startswith("      - name: ")]
    assert names == ["istio-proxy", "warmcache-init", "warmcache-sidecar", "fetch", "llm",
                     "warmcache"], names
    assert "key llama/v9/auto" in err, err


def a_full_disk_is_no_success(t):
    line = [os.path.join(t.bin, "warmcache"), "inject", "-", "--image", IMAGE]
    with open("/dev/full", "w") as full:
        p = subprocess.run(line, input=KSERVE.encode(), stdout=full, stderr=subprocess.PIPE, env=t.env())
    assert p.returncode != 0, p.stderr


def when_the_nth_malloc_fails_it_says_so(t):
    whole, _ = _inject(t, VLLM)
    with open(t.path("m.yaml"), "w", encoding="utf-8") as f:
        f.write(VLLM)
    line = [os.path.join(t.bin, "warmcache"), "inject", t.path("m.yaml"), "--image", IMAGE]

    def run(env):
        return subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=env, timeout=60)
    run(t.env(WARM_FAULT_COUNT=t.path("counts")))
    total = counts(t.path("counts"))["malloc"]
    assert total > 500, total
    failures, refused = Failures(), 0
    for n in sweep(total + 2, t.quick, 60 if t.quick else 1500):
        p = run(t.env("fail:malloc:%d" % n))
        with failures:
            assert p.returncode in (0, 1, NO_MEMORY), (n, p.returncode, p.stderr)
            if p.returncode == 0:
                assert p.stdout.decode() == whole, (n, _lost(whole, p.stdout.decode()))
            else:
                assert p.stdout == b"" and p.stderr != b"", (n, p.stdout)
                refused += 1
    failures.tell()
    if not refused:
        raise Skip("no malloc failed")
