# SPDX-License-Identifier: Apache-2.0
"""What warmcache-init costs a pod's start under a real kubelet: from a pod's creation until it is
ready, with and without it, warm, cold, and with a store that doesn't answer. One pod at a time."""

import os
import statistics

import kube
from pods import CREDENTIALS, SILENT_S3

ALONE = True
ROUNDS = int(os.environ.get("E2E_ROUNDS", "5"))


def _one(case, kind, **how):
    pod = case.start(model=["0"], sidecar=["--mode=readonly"], **how)
    ready = pod.wait_ready(120)
    sample = {"kind": kind, "ready": ready - pod.created}
    if "parts" not in how:
        state = pod.terminated("warmcache-init")
        sample.update(
            api=kube.when(state["finishedAt"]) - kube.when(state["startedAt"]),
            init=case.ended("warmcache-init", pod) - case.started("warmcache-init", pod),
            before=case.started("warmcache-init", pod) - pod.created,
            exit=state["exitCode"])
        message = pod.message("warmcache-init")
        if message:
            sample.update(own=message["duration_ms"] / 1000, status=message["status"],
                          reason=message["reason"], bytes=message["bytes"])
    pod.delete(0)
    pod.wait_gone()
    return sample


def _row(samples):
    def middle(name):
        return round(statistics.median(s[name] for s in samples), 3) if name in samples[0] else None
    row = {name: middle(name) for name in ("ready", "before", "init", "api", "own")}
    for name in ("status", "reason", "bytes", "exit"):
        row[name] = samples[0].get(name)
        assert all(s.get(name) == row[name] or name == "reason" for s in samples), samples
    row["spread"] = "%.2f-%.2f" % (min(s["ready"] for s in samples),
                                   max(s["ready"] for s in samples))
    return row


def init_and_the_start_of_a_pod(case):
    case.fill(["100", "--bytes", "370000"])
    samples = {}
    for _ in range(ROUNDS):
        for kind, how in (("no warmcache", {"parts": ()}),
                          ("sidecar alone", {"parts": ("warmcache-sidecar",)}),
                          ("an init that does nothing", {"init": ["--help"]}),
                          ("cold", {"store": "/caches/empty"}),
                          ("warm, 42 MB", {})):
            samples.setdefault(kind, []).append(_one(case, kind, **how))
    for kind, how in (("S3 silent", {"env": CREDENTIALS}),
                      ("S3 silent, --deadline=5s", {"env": CREDENTIALS, "init": ["--deadline=5s"]}),
                      ("S3 silent, no credentials", {})):
        how["store"] = SILENT_S3
        samples[kind] = [_one(case, kind, **how)]
    rows = {kind: _row(found) for kind, found in samples.items()}
    assert rows["cold"]["status"] == "cold" and rows["warm, 42 MB"]["status"] == "warm", rows
    assert all(row["exit"] in (0, None) for row in rows.values()), rows
    for row in rows.values():
        row["adds"] = round(row["ready"] - rows["no warmcache"]["ready"], 3)
    return rows
