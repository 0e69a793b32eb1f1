# SPDX-License-Identifier: Apache-2.0
"""Volumes as they come: of another uid, read-only, noatime, after a reboot; and many writers."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import layer
from support import (DENIED, ROOT, Skip, Tree, check_store, check_whole, fxgraph_file,
                     inductor_file, other_file, small_tree, snapshot, triton_group)


def a_volume_of_another_uid_is_restored_for_everybody(t):
    tree = small_tree()
    t.publish(tree, volume=t.volume)
    t.clear()
    os.chown(t.volume, 12345, 12345) if os.geteuid() == 0 else None
    # Not os.umask(): other tests run beside this one in the same process.
    r = t.init(prefix=["sh", "-c", 'umask 077; exec "$@"', "sh"])
    assert r.status == "warm", r
    for top, dirs, files in os.walk(os.path.join(t.volume, "triton")):
        assert os.stat(top).st_mode & 0o777 == 0o777, top
        for name in files:
            assert os.stat(os.path.join(top, name)).st_mode & 0o666 == 0o666, name


def a_model_and_a_sidecar_of_other_uids_share_a_volume(t):
    prefix = t.as_nobody()
    tree = Tree([triton_group("a"), inductor_file("a")])
    tree.write(t.volume)
    os.chmod(t.volume, 0o777)
    os.makedirs(t.store)
    os.chmod(t.store, 0o777)
    # No lease is to be had on files of others; what is proven or renamed goes all the same.
    t.publish(None, volume=t.volume, prefix=prefix)
    assert len(check_store(t.store, tree)) == 2
    t.clear()
    os.chmod(t.volume, 0o777)
    r = t.init(prefix=prefix)
    assert r.status == "warm", r
    assert check_whole(t.volume, tree) == 2
    r = t.init()  # and root after it
    assert r.status == "warm" and r.json["files"] == 0, r


def a_directory_of_the_model_that_is_closed_to_us_does_not_keep_the_rest_out(t):
    prefix = t.as_nobody()
    tree = Tree([{"aaa/x": b"x"}, inductor_file("i"), {"zzz/x": b"x"}])
    t.publish(tree)
    os.mkdir(os.path.join(t.volume, "inductor"), 0o755)  # root's, with nothing of ours in it
    os.chmod(t.volume, 0o777)
    r = t.init("--require", prefix=prefix)
    assert r.code == DENIED and r.status == "partial", r
    assert check_whole(t.volume, tree) == 2, (r, sorted(snapshot(t.volume)))


def a_read_only_volume_fails_open(t):
    t.publish(Tree([inductor_file("a")]))
    ro = t.dir("ro")
    t.mount("-t", "tmpfs", "-o", "ro", "tmpfs", ro)
    r = t.init(volume=ro)
    assert r.code == 0 and r.status == "error" and r.json["reason"], r
    assert t.init("--require", volume=ro).code == DENIED
    s = t.sidecar("--settle=0", volume=ro)
    s.wait_for("publish-failed")
    assert s.process.poll() is None
    assert s.stop(8) == 0, s.log


def a_read_only_volume_that_is_complete_is_warm(t):
    tree = Tree([inductor_file("a")])
    t.publish(tree)
    t.init()
    ro = t.dir("ro")
    t.mount("--bind", t.volume, ro)
    import subprocess
    if subprocess.call(["mount", "-o", "remount,ro,bind", ro]) != 0:
        raise Skip("no read-only bind mounts here")
    r = t.init(volume=ro)
    assert r.code == 0 and r.status in ("warm", "error"), r


def on_a_noatime_volume_everything_restored_counts_as_used(t):
    na = t.dir("na")
    t.mount("-t", "tmpfs", "-o", "noatime,size=20m,mode=777", "tmpfs", na)
    tree = Tree([inductor_file("a"), inductor_file("b")])
    t.publish(tree)
    t.init(volume=na)
    log = t.publish(None, volume=na)
    assert "used=2 inert=0" in log, log


def on_other_volumes_what_was_opened_counts_as_used(t):
    tree = Tree([inductor_file("a"), inductor_file("b")])
    t.publish(tree)
    t.init()
    log = t.publish(None, volume=t.volume)
    if "used=2 inert=0" in log:
        raise Skip("this file system keeps no atime")
    assert "used=0 inert=2" in log, log
    with open(os.path.join(t.volume, sorted(tree.files)[0]), "rb") as f:
        f.read()
    log = t.publish(None, volume=t.volume)
    assert "used=1 inert=1" in log, log


# ---- a reboot ----

def _boot(t, n):
    path = t.path("boot%d" % n)
    with open(path, "w") as f:
        f.write(("%d" % n) * 8 + "-1111-1111-1111-111111111111\n")
    return t.env(WARM_FAULT_BOOT_ID=path)


def after_a_reboot_files_that_lost_their_bytes_are_not_kept(t):
    tree = small_tree() + Tree([other_file("o")])
    t.publish(tree, volume=t.volume, env=_boot(t, 1))
    t.clear()
    assert t.init(env=_boot(t, 1)).status == "warm"
    for path in list(tree.files)[::2]:
        os.truncate(os.path.join(t.volume, path), 0)
    own = Tree([inductor_file("own")])
    own.write(t.volume)
    r = t.init(env=_boot(t, 2))
    assert r.status == "warm" and "restarted" in r.err, r
    assert check_whole(t.volume, tree, foreign=own.files) == len(tree.groups)
    r = t.init(env=_boot(t, 2))
    assert "restarted" not in r.err and r.json["files"] == 0, r


def after_a_reboot_what_a_cold_start_left_is_not_kept(t):
    """The first boot had nothing to restore, the model compiled, the node crashed."""
    assert t.init(env=_boot(t, 1)).status == "cold"
    torn = Tree([inductor_file("torn"), triton_group("torn")])
    Tree([{p: b"" for p in g} for g in torn.groups]).write(t.volume)
    r = t.init(env=_boot(t, 2))
    assert snapshot(t.volume) == {}, (r, sorted(snapshot(t.volume)))


def after_a_reboot_an_unreachable_store_leaves_no_torn_files(t):
    tree = small_tree()
    t.publish(tree, volume=t.volume)
    t.clear()
    t.init(env=_boot(t, 1))
    for path in list(tree.files)[::2]:
        os.truncate(os.path.join(t.volume, path), 0)
    os.rename(t.store, t.path("away"))
    r = t.init(env=_boot(t, 2))
    assert r.code == 0 and snapshot(t.volume) == {}, (r, sorted(snapshot(t.volume)))


def after_a_reboot_a_ledger_that_cannot_be_read_is_no_proof(t):
    """One open that fails must not make files of the last boot pass for whole."""
    tree = Tree([inductor_file("a"), fxgraph_file("b")])
    t.publish(tree)
    with open(t.path("boot2"), "w") as f:
        f.write("2" * 36 + "\n")
    for n in range(1, 8):
        t.clear()
        t.init(env=_boot(t, 1))
        for path in tree.files:
            os.truncate(os.path.join(t.volume, path), 0)
        r = t.init("--require", env=t.env("fail:open:%d" % n, WARM_FAULT_BOOT_ID=t.path("boot2")))
        kept = [p for p, d in snapshot(t.volume).items() if d == b""]
        assert not kept or r.code != 0, ("fail:open:%d" % n, kept, r)


def a_sidecar_after_a_crash_publishes_nothing_that_lost_its_bytes(t):
    """Without an init in the pod nobody dropped the caches of before the crash."""
    tree = Tree([inductor_file("a"), inductor_file("b")])
    t.publish(tree, volume=t.volume, env=_boot(t, 1))
    for path in tree.files:
        full = os.path.join(t.volume, path)
        os.truncate(full, 0)
        st = os.stat(full)
        os.utime(full, ns=(st.st_atime_ns, st.st_mtime_ns - 5 * 10 ** 9))
    t.publish(None, volume=t.volume, env=_boot(t, 2))
    for path in layer.objects(t.store):
        for name, data in layer.read(path)[1].items():
            assert data == tree.files[name], "%s went out with %d bytes" % (name, len(data))


# ---- many writers ----

def ten_writers_at_once_with_clocks_an_hour_apart_lose_nothing(t):
    clock = t.compile(os.path.join(ROOT, "tests/fault/clock.c"), "libclock.so")
    shared = Tree([triton_group("shared", 500), inductor_file("shared")])
    own, sidecars = [], []
    for i in range(10):
        volume = t.fresh("w")
        own.append(Tree([fxgraph_file("w%d.%d" % (i, k)) for k in range(5)] +
                        [inductor_file("w%d" % i)]))
        (own[i] + shared).write(volume)
        offset = (i - 5) * 3600
        sidecars.append(t.sidecar("--settle=0", "--interval=1s", volume=volume,
                                  env=t.env(preload=clock, WARM_CLOCK_OFFSET=offset)))
    for s in sidecars:
        s.wait_for("state=started")
    for s in sidecars:
        s.signal(signal.SIGTERM)
    for s in sidecars:
        assert s.wait(40) == 0, s.log
    every = Tree(shared.groups + [g for tree in own for g in tree.groups])
    names = check_store(t.store, every)
    assert set(p for tree in own for p in tree.files) <= set(names)
    r = t.init()
    assert r.status == "warm", r
    # Triton's group is bound to its own writer's path and stays out.
    assert check_whole(t.volume, every) == len(every.groups) - 1, r


def a_writer_with_a_slow_clock_comes_after_what_it_has_seen(t):
    clock = t.compile(os.path.join(ROOT, "tests/fault/clock.c"), "libclock.so")
    path, = inductor_file("a")
    t.publish(Tree([{path: b"first"}]), volume=t.volume,
              env=t.env(preload=clock, WARM_CLOCK_OFFSET=3600))
    Tree([{path: b"second"}]).write(t.volume)
    t.publish(None, volume=t.volume, env=t.env(preload=clock, WARM_CLOCK_OFFSET=-3600))
    out = t.fresh("out")
    assert t.init(volume=out).status == "warm"
    assert snapshot(out) == {path: b"second"}


def restores_while_others_publish_are_whole(t):
    trees = [Tree([fxgraph_file("p%d.%d" % (i, k)) for k in range(6)]) for i in range(6)]
    every = Tree([g for tree in trees for g in tree.groups])
    stop = threading.Event()
    failures = []

    def restore():
        while not stop.is_set():
            out = t.path("r%d" % threading.get_ident())
            shutil.rmtree(out, ignore_errors=True)
            os.mkdir(out)
            try:
                r = t.init(volume=out)
                assert r.status in ("cold", "warm"), r
                check_whole(out, every)
            except AssertionError as e:
                failures.append(str(e))
                return
    threads = [threading.Thread(target=restore) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for tree in trees:
            t.publish(tree)
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]
    assert t.init().status == "warm"
    assert check_whole(t.volume, every) == len(every.groups)


def two_inits_at_once_leave_whole_groups(t):
    """A pod that was started twice, or a hung one beside its successor."""
    tree = small_tree(triton=10, others=20)
    t.publish(tree, volume=t.volume)
    for _ in range(3 if t.quick else 10):
        t.clear()
        results = []
        threads = [threading.Thread(target=lambda: results.append(t.init())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 2 and all(r.code == 0 for r in results), results
        check_whole(t.volume, tree, str(results))
        assert t.init().status == "warm"
        assert check_whole(t.volume, tree) == len(tree.groups)


def starts_that_were_killed_are_followed_by_a_cold_one(t):
    """What kills a restore each time, lack of memory perhaps, must not keep the pod from starting."""
    tree = Tree([triton_group("k0", 500)])
    t.publish(tree, volume=t.volume)
    t.clear()
    for _ in range(2):
        assert t.init(env=t.env("kill:fs:12")).code == -signal.SIGKILL
    r = t.init()
    assert r.code == 0 and r.status == "cold" and "were killed" in r.json["reason"], r
    assert t.init().status == "warm"


def a_restore_that_crashes_in_a_container_is_a_cold_start(t):
    if os.geteuid() != 0:
        raise Skip("needs root for a PID namespace")
    tree = Tree([triton_group("k0", 500)])
    t.publish(tree, volume=t.volume)
    t.clear()
    result = os.path.join(t.dir("told"), "result")
    code = subprocess.run(
        ["unshare", "--pid", "--fork", os.path.join(t.bin, "warmcache-init")] +
        t.target(None, None, "m", "v1") + ["--result=" + result], env=t.env("kill:fs:12"),
        stderr=subprocess.DEVNULL).returncode
    with open(result) as f:
        told = json.load(f)
    assert code == 0 and told["status"] == "error" and "signal 9" in told["reason"], (code, told)
    assert t.init().status == "warm", "one that is killed isn't two"


def sigterm_ends_a_restore_in_a_container_at_once(t):
    if os.geteuid() != 0:
        raise Skip("needs root for a PID namespace")
    tree = Tree([triton_group("k0", 500)])
    t.publish(tree, volume=t.volume)
    t.clear()
    p = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child=SIGTERM",
         os.path.join(t.bin, "warmcache-init")] + t.target(None, None, "m", "v1") + ["--result="],
        env=t.env("stop:fs:12"), stderr=subprocess.DEVNULL)
    time.sleep(1)
    children = subprocess.run(["pgrep", "-P", str(p.pid)], capture_output=True, text=True)
    began = time.time()
    os.kill(int(children.stdout), signal.SIGTERM)
    assert p.wait(10) == 0 and time.time() - began < 2
