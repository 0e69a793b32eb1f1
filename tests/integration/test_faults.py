# SPDX-License-Identifier: Apache-2.0
"""The nth call fails, n counting up until the run succeeds: no crash, no hang, nothing torn, the
right status; and the next run completes what lacked."""

import os
import shutil
import signal
import time

import layer
from support import (Failures, Tree, best_config, check_store, check_whole, counts, flashinfer_group,
                     fxgraph_file, inductor_file, other_file, snapshot, sweep, triton_group)


def _tree():
    return Tree([triton_group("k0", 400), triton_group("k1", 400), flashinfer_group("attn", 300),
                 inductor_file("i", 300), fxgraph_file("f", 300), other_file("o", 300),
                 best_config("b")])


def _calls(t, run, kind):
    path = t.path("counts." + kind)
    run(t.env(WARM_FAULT_COUNT=path))
    return counts(path)[kind]


def _look_at_init(t, tree, r, what):
    groups = check_whole(t.volume, tree, what)
    assert r.code >= 0 and r.code != 99, (what, r)
    assert r.took < 15, (what, r)
    if r.json is None:
        return  # the result's own file could not be written: then the exit code speaks
    assert r.status != "cold", (what, "a fault is no cold start", r)
    if r.status in ("warm", "fallback"):
        assert groups == len(tree.groups), (what, "warm, with %d groups" % groups, r)
        assert r.code == 0, (what, r)
    else:
        assert r.code != 0, (what, "--require, and no failure", r)
        assert r.json["reason"], (what, r)
        assert (groups > 0) == (r.status == "partial"), (what, "%d groups are in" % groups, r)


def _sweep_init(t, kind, more=""):
    tree = _tree()
    t.publish(tree, volume=t.volume)

    def run(env):
        t.clear()
        # Without memory the result may lack fields; it is JSON all the same.
        return t.init("--require", env=env, strict=kind != "malloc")
    total = _calls(t, run, kind)
    assert total > 0, "no calls of %s" % kind
    failures = Failures()
    for n in sweep(total + 2, t.quick, 10 if t.quick else 60):
        what = "fail:%s:%d of %d" % (kind, n, total)
        with failures:
            r = run(t.env(more + "fail:%s:%d" % (kind, n)))
            _look_at_init(t, tree, r, what)
        with failures:
            r = t.init("--require")
            assert r.code == 0 and r.status == "warm", (what, "the next run", r)
            assert check_whole(t.volume, tree, what + ", then completed") == len(tree.groups)
    failures.tell()


def init_when_the_nth_malloc_fails(t):
    _sweep_init(t, "malloc")


def init_when_the_nth_open_fails(t):
    _sweep_init(t, "open")


def init_when_the_nth_open_fails_without_openat2(t):
    _sweep_init(t, "open", "noopenat2,")


def init_when_the_nth_write_fails(t):
    _sweep_init(t, "write")


def init_when_the_nth_rename_fails(t):
    _sweep_init(t, "rename")


def init_when_the_nth_rename_fails_without_noreplace(t):
    _sweep_init(t, "rename", "norename2,")


def init_when_the_nth_close_fails(t):
    _sweep_init(t, "close")


def init_when_the_nth_mkdir_fails(t):
    _sweep_init(t, "mkdir")


def init_when_the_nth_unlink_fails(t):
    _sweep_init(t, "unlink")


def init_when_the_nth_thread_fails(t):
    _sweep_init(t, "thread")


def init_when_every_write_fails_from_the_nth_on(t):
    """As on a disk that fills up: what is in stays, and is whole."""
    tree = _tree()
    t.publish(tree, volume=t.volume)
    for kind in ("write", "rename", "any"):
        for n in (1, 2, 3, 5, 8, 13, 21, 34):
            t.clear()
            r = t.init("--require", env=t.env("fail:%s:%d+:28" % (kind, n)))
            groups = check_whole(t.volume, tree, "%s %d+" % (kind, n))
            assert r.code != 0 or groups == len(tree.groups), (kind, n, r)
            assert r.took < 15, r
            assert t.init().status == "warm", (kind, n)
            assert check_whole(t.volume, tree) == len(tree.groups)


def init_with_short_writes_restores_all(t):
    tree = _tree()
    t.publish(tree, volume=t.volume, env=t.env("short"))
    t.clear()
    r = t.init(env=t.env("short"))
    assert r.status == "warm", r
    assert check_whole(t.volume, tree) == len(tree.groups)


def init_without_openat2_and_renameat2_restores_all(t):
    tree = _tree()
    t.publish(tree, volume=t.volume, env=t.env("noopenat2,norename2"))
    t.clear()
    r = t.init(env=t.env("noopenat2,norename2"))
    assert r.status == "warm", r
    assert check_whole(t.volume, tree) == len(tree.groups)


def a_mutable_file_and_a_group_of_two_directories_are_restored(t):
    """Both go in beneath a parent directory that is opened by O_PATH."""
    for group in (best_config("b"), flashinfer_group("attn")):
        tree = Tree([inductor_file("i"), group])
        store = t.fresh("store")
        t.clear()
        t.publish(tree, volume=t.volume, store=store)
        t.clear()
        r = t.init(store=store)
        assert r.status == "warm", r
        assert check_whole(t.volume, tree) == 2


def init_that_hangs_ends_soon_after_its_deadline(t):
    tree = _tree()
    t.publish(tree, volume=t.volume)
    for step in ("open:8", "write:2", "rename:1", "rename:3"):
        t.clear()
        r = t.init("--deadline=300ms", env=t.env("hang:" + step))
        assert r.code == 0 and r.status == "partial" and "hang" in r.json["reason"], (step, r)
        assert r.took < 8, (step, r)
        check_whole(t.volume, tree, step)
        assert t.init("--require", "--deadline=300ms", env=t.env("hang:" + step),
                      volume=t.fresh()).code != 0
        assert t.init().status == "warm"


# ---- sidecar ----

def _publish(t, env=None, patience=15):
    s = t.sidecar("--settle=0", "--interval=1s", volume=t.volume, env=env)
    s.wait_for("status: state=")
    s.signal(signal.SIGTERM)
    start = time.monotonic()
    code = s.wait(patience)
    return code, s, time.monotonic() - start


def _sweep_sidecar(t, kind):
    tree = Tree([triton_group("k0", 400), flashinfer_group("attn", 300), inductor_file("i", 300),
                 best_config("b")])

    def run(env):
        shutil.rmtree(t.store, ignore_errors=True)
        t.clear()
        tree.write(t.volume)
        return _publish(t, env)
    total = _calls(t, run, kind)
    assert total > 0, "no calls of %s" % kind
    failures = Failures()
    for n in sweep(total + 2, t.quick, 5 if t.quick else 40):
        what = "fail:%s:%d of %d" % (kind, n, total)
        with failures:
            code, s, _ = run(t.env("fail:%s:%d" % (kind, n)))
            assert code == 0, (what, code, s.log)
            check_whole(t.volume, tree, what)
            names = set(check_store(t.store, tree))
            disabled = s.count("state=disabled") > 0
            assert disabled or len(names) >= 3, (what, names, s.log)
            left = [f for top, _, files in os.walk(t.store) for f in files if f.startswith(".")]
            assert not left or kind == "unlink", (what, left)
            code, s, _ = _publish(t)
            assert code == 0 and len(set(check_store(t.store, tree))) >= 3, (what, s.log)
    failures.tell()


def sidecar_when_the_nth_malloc_fails(t):
    _sweep_sidecar(t, "malloc")


def sidecar_when_the_nth_open_fails(t):
    _sweep_sidecar(t, "open")


def sidecar_when_the_nth_write_fails(t):
    _sweep_sidecar(t, "write")


def sidecar_when_the_nth_fsync_fails(t):
    _sweep_sidecar(t, "fsync")


def sidecar_when_the_nth_rename_fails(t):
    _sweep_sidecar(t, "rename")


def sidecar_when_the_nth_close_fails(t):
    _sweep_sidecar(t, "close")


def sidecar_when_the_nth_mkdir_fails(t):
    _sweep_sidecar(t, "mkdir")


def sidecar_when_the_nth_thread_fails(t):
    _sweep_sidecar(t, "thread")


def sidecar_whose_poll_fails_stays_until_sigterm(t):
    s = t.sidecar("--settle=0", env=t.env("fail:poll:1+"))
    s.wait_for("state=started")
    time.sleep(1)
    assert s.process.poll() is None, "it ended by itself:\n" + s.log
    assert s.stop() == 0


def objects_are_synced_before_they_get_their_name(t):
    """A put whose fsync fails leaves no object, as the bytes may not be on the disk."""
    Tree([inductor_file("a")]).write(t.volume)
    s = t.sidecar("--settle=0", env=t.env("fail:write:1+"))
    s.wait_for("publish-failed")
    s.kill()
    assert layer.objects(t.store) == []
    path = t.path("counts")
    t.publish(None, volume=t.volume, env=t.env(WARM_FAULT_COUNT=path))
    assert counts(path)["fsync"] >= 2, "the file and its directory"


def init_syncs_nothing(t):
    """Thousands of fsyncs would cost more than the compile saved; the boot id covers crashes."""
    t.publish(_tree(), volume=t.volume)
    t.clear()
    path = t.path("counts")
    t.init(env=t.env(WARM_FAULT_COUNT=path))
    assert counts(path)["fsync"] == 0
    assert snapshot(t.volume)
