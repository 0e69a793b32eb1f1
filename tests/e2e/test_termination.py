# SPDX-License-Identifier: Apache-2.0
"""The pod's end, and what must not hinder it, under a real kubelet. Each test returns a row of what
it saw; times differ from run to run and are shown, not judged."""

import os
import subprocess
import time

import kube
from pods import CREDENTIALS, SILENT_S3

FAST = ["--spread=0", "--settle=1s"]  # for what isn't about the end


def _end(case, grace, on_term, delete_grace=None, model=("20",), **how):
    """A model that goes on compiling until it ends; the sidecar has its defaults, so that nothing
    was published before T0."""
    pod = case.start(model=[*model, "--every", "500", "--on-term", on_term], grace=grace, **how)
    pod.wait_ready()
    time.sleep(4)
    t0 = pod.delete(delete_grace)
    pod.wait_gone()
    row = case.row(pod, t0)
    assert row["torn"] == 0, "torn groups in the store: %s" % row
    return row


def _published_all(row):
    assert row["whole"] == row["written"], row
    assert row["message"]["status"] == "ended" and row["message"]["reason"] == "", row
    assert "state=ended" in row["last_status"], row
    return row


def model_that_exits_at_once(case):
    return _published_all(_end(case, 30, "exit"))


def model_that_exits_at_once_without_pre_stop(case):
    return _published_all(_end(case, 30, "exit", pre_stop=False))


def model_that_drains_10_s_and_compiles(case):
    return _published_all(_end(case, 30, "drain:10"))


def model_that_drains_10_s_and_compiles_without_pre_stop(case):
    return _published_all(_end(case, 30, "drain:10", pre_stop=False))


def model_that_ignores_sigterm(case):
    row = _end(case, 6, "ignore")
    assert row["whole"] >= row["at_t0"], "what was there at T0 is lost: %s" % row
    return row


def model_that_ignores_sigterm_without_pre_stop(case):
    return _end(case, 6, "ignore", pre_stop=False)


LARGE = {"model": ("400", "--bytes", "370000"), "cpu": "100m"}  # 166 MB, and a tenth of a CPU


def model_that_ignores_sigterm_with_a_large_cache(case):
    return _end(case, 6, "ignore", **LARGE)


def model_that_ignores_sigterm_with_a_large_cache_without_pre_stop(case):
    return _end(case, 6, "ignore", pre_stop=False, **LARGE)


def deletion_with_a_shorter_grace(case):
    row = _end(case, 60, "ignore", delete_grace=5)
    assert row["whole"] >= row["at_t0"], "what was there at T0 is lost: %s" % row
    return row


def deletion_with_a_shorter_grace_without_pre_stop(case):
    return _end(case, 60, "ignore", pre_stop=False, delete_grace=5)


def sidecar_killed_beside_a_living_model(case):
    pod = case.start(model=["20", "--every", "1000"], sidecar=FAST + ["--interval=1s"])
    pod.wait_ready()
    pod.wait_said("warmcache-sidecar", "published: ")
    case.kill("warmcache-sidecar", pod)
    killed = time.time()
    pod.wait("restarted", lambda _: pod.ids and pod.restarts("warmcache-sidecar") == 1)
    pod.wait("ready again", kube.is_ready)
    time.sleep(3)
    pod.wait("still ready", kube.is_ready)
    unready = [at for at, _, seen in pod.seen if at > killed and not kube.is_ready(seen)]
    again = next(at for at, _, seen in pod.seen if at > max(unready or [killed]) and
                 kube.is_ready(seen))
    assert pod.restarts("model") == 0
    t0 = pod.delete()
    pod.wait_gone()
    row = _published_all(case.row(pod, t0))
    assert row["copies"] == row["whole"], "published twice: %s" % row
    row["note"] = "not Ready for %.1f s" % (again - unready[0]) if unready else "Ready throughout"
    return row


def model_in_a_crash_loop_gets_rid_of_the_cache(case):
    case.fill(["10"])
    pod = case.start(model=["10", "--then", "crash"], sidecar=FAST + [
        "--ready-url=http://127.0.0.1:9/", "--ready-within=5s"])
    at = pod.wait_said("warmcache-sidecar", "quarantined: ", 90)
    moved = os.path.join(case.volume(pod), ".warmcache/quarantine")
    groups = sum(len(name) == 52 for _, dirs, _ in os.walk(moved) for name in dirs)
    assert groups == 10, "%d groups in %s" % (groups, moved)
    starts = len(case.report("found"))
    end = time.time() + 90
    while len(case.report("found")) == starts and time.time() < end:
        time.sleep(0.2)
    t0 = pod.delete()
    pod.wait_gone()
    row = case.row(pod, t0)
    found = case.report("found")
    assert found[0] == 10, "the first start was warm: %s" % found
    assert found[starts] == 0, "the start after the quarantine was cold: %s" % found
    row["note"] = "quarantined %.1f s after the sidecar's start; groups found by each start: %s" % (
        at - pod.log("warmcache-sidecar")[0][0], found)
    assert row["message"]["quarantined"] == 10, row
    return row


def bad_options_in_both(case):
    pod = case.start(model=["5"], init=["--bogus"], sidecar=["--stre=x"])
    pod.wait_ready()
    pod.wait_said("warmcache-sidecar", "disabled: ")
    time.sleep(3)
    assert pod.restarts("warmcache-sidecar") == 0 and kube.is_ready(pod.now)
    t0 = pod.delete()
    pod.wait_gone()
    row = case.row(pod, t0)
    assert row["message"]["status"] == "disabled", row
    assert pod.terminated("warmcache-sidecar")["exitCode"] == 0, row
    row["note"] = "init: %s" % pod.message("warmcache-init")
    return row


def _without_store(case, store, **how):
    pod = case.start(model=["5"], store=store, sidecar=FAST, **how)
    pod.wait_ready()
    pod.wait_said("warmcache-sidecar", "publish-failed: ", 180)
    assert pod.restarts("warmcache-sidecar") == 0 and kube.is_ready(pod.now)
    t0 = pod.delete()
    pod.wait_gone()
    row = case.row(pod, t0)
    assert row["message"]["status"] == "incomplete" and row["message"]["reason"], row
    row["note"] = "init: %s" % (pod.message("warmcache-init") or {}).get("reason")
    return row


def store_that_is_not_there(case):
    return _without_store(case, "/nowhere/caches")


def store_that_is_denied(case):
    os.chown(case.store, 0, 0)
    os.chmod(case.store, 0o700)
    return _without_store(case, "/caches")


def store_that_does_not_answer(case):
    """Every packet to it is dropped."""
    return _without_store(case, SILENT_S3, env=CREDENTIALS, init=["--deadline=3s"])


def job_that_completes(case):
    """Its sidecar gets SIGTERM when the model has ended, and no preStop: the pod isn't deleted."""
    pod = case.start(model=["20", "--then", "end"], restart="Never")
    pod.wait("succeeded", lambda seen: seen["status"]["phase"] == "Succeeded", 60)
    t0 = case.ended("model", pod)
    row = case.row(pod, t0)
    pod.delete(0)
    pod.wait_gone()
    return _published_all(row)


def store_of_each_pod_verifies(case):
    """What a pod has published warms the next one."""
    case.fill(["30"])
    subprocess.run(["warmcache", "verify", "--store", case.store, "--model", "m",
                    "--version", "v1"], check=True, stdout=subprocess.DEVNULL)
    pod = case.start(model=["30"])
    pod.wait_ready()
    pod.wait("model's report", lambda _: case.report("found"))
    assert case.report("found")[-1] == 30, case.report("found")
    message = pod.message("warmcache-init")
    assert message["status"] == "warm" and message["files"] == 120, message
    t0 = pod.delete()
    pod.wait_gone()
    row = case.row(pod, t0)
    assert row["copies"] == 30, "what was restored was published again: %s" % row
    row["note"] = "init: %(status)s, %(files)d files in %(duration_ms)d ms" % message
    return row
