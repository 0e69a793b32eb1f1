# SPDX-License-Identifier: Apache-2.0
"""The sidecar's life: when it publishes, what stops it, what doesn't."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import layer
from support import (MACHINE, Skip, Tree, alone, best_config, check_store, check_whole, elf,
                     flashinfer_group, fxgraph_file, inductor_file, need, need_root, other_file,
                     small_tree, snapshot, triton_group)


def _names(t):
    return sorted(set(check_store(t.store)))


def it_publishes_after_the_settle_time_then_at_most_every_interval(t):
    s = t.sidecar("--settle=300ms", "--interval=1h")
    s.wait_for("state=started")
    Tree([inductor_file("a")]).write(t.volume)
    s.wait_for("INFO warmcache-sidecar: published")
    assert _names(t) == list(inductor_file("a"))
    Tree([inductor_file("b")]).write(t.volume)
    time.sleep(1.2)
    assert _names(t) == list(inductor_file("a"))
    assert s.stop() == 0
    assert _names(t) == sorted({**inductor_file("a"), **inductor_file("b")})


def sigusr1_publishes_now(t):
    s = t.sidecar("--settle=0", "--interval=1h")
    Tree([inductor_file("a")]).write(t.volume)
    s.wait_for("INFO warmcache-sidecar: published")
    Tree([inductor_file("b")]).write(t.volume)
    time.sleep(0.1)
    s.signal(signal.SIGUSR1)
    s.wait_for("INFO warmcache-sidecar: published", 2)
    assert len(_names(t)) == 2
    assert s.stop() == 0


def a_second_sigterm_stops_at_once(t):
    Tree([inductor_file("a")]).write(t.volume)
    s = t.sidecar("--settle=0", env=t.env("hang:fsync:1"))
    s.wait_for("state=started")
    time.sleep(0.3)
    s.signal(signal.SIGTERM)
    s.wait_for("ending")
    time.sleep(0.3)
    assert s.process.poll() is None, "it left with a put under way"
    s.signal(signal.SIGTERM)
    s.wait(5)
    assert layer.objects(t.store) == []


def bad_options_leave_it_idle_until_sigterm(t):
    for args in (["--settle=soon"], ["--nonsense"], ["--store=ftp://x/y"], ["--model=a/b"],
                 ["--version=.."], ["--profile=x"], ["--model="]):
        s = t.sidecar(*args)
        s.wait_for("state=disabled")
        s.signal(signal.SIGUSR1)
        time.sleep(0.1)
        assert s.process.poll() is None, (args, s.log)
        assert s.stop(5) == 0, (args, s.log)
    assert layer.objects(t.store) == []


def a_sigterm_that_comes_first_of_all_is_not_lost(t):
    tree = Tree([inductor_file("a")])
    tree.write(t.volume)
    for delay in (0.0, 0.002, 0.005, 0.01):
        s = t.sidecar("--settle=0")
        time.sleep(delay)
        s.signal(signal.SIGTERM)
        # Before main() blocks it, the signal ends the process as it would any.
        assert s.wait(10) in (0, -signal.SIGTERM), s.log
    assert t.publish(None, volume=t.volume) is not None
    assert _names(t) == list(tree.files)


def a_missing_volume_keeps_it_running_and_it_ends_at_sigterm(t):
    s = t.sidecar("--settle=0", volume=t.path("gone"))
    s.wait_for("publish-failed")
    time.sleep(0.3)
    assert s.process.poll() is None, s.log
    assert s.stop(8) == 0, s.log


def a_volume_that_disappears_is_survived_and_found_again(t):
    s = t.sidecar("--settle=0", "--interval=0s")
    Tree([inductor_file("a")]).write(t.volume)
    s.wait_for("INFO warmcache-sidecar: published")
    os.rename(t.volume, t.path("away"))
    s.signal(signal.SIGUSR1)
    time.sleep(0.3)
    assert s.process.poll() is None, s.log
    t.dir("volume")
    Tree([inductor_file("b")]).write(t.volume)
    s.signal(signal.SIGUSR1)
    try:
        s.wait_for("INFO warmcache-sidecar: published", 2, timeout=12)
    finally:
        shutil.rmtree(t.path("away"))
    assert len(_names(t)) == 2, s.log
    assert s.stop() == 0


def a_volume_that_is_deleted_is_survived(t):
    s = t.sidecar("--settle=0", "--interval=0s")
    Tree([inductor_file("a")]).write(t.volume)
    s.wait_for("INFO warmcache-sidecar: published")
    shutil.rmtree(t.volume)
    s.signal(signal.SIGUSR1)
    time.sleep(0.5)
    assert s.process.poll() is None, s.log
    assert s.stop(8) == 0, s.log


def a_store_that_denies_keeps_it_running_and_it_ends_at_sigterm(t):
    prefix = t.as_nobody()
    Tree([inductor_file("a")]).write(t.volume)
    os.chmod(t.volume, 0o777)
    os.makedirs(t.store, mode=0o700)
    s = t.sidecar("--settle=0", prefix=prefix)
    s.wait_for("publish-failed")
    time.sleep(0.3)
    assert s.process.poll() is None, s.log
    assert s.stop(8) == 0, s.log


def a_store_that_comes_back_gets_what_waited(t):
    tree = Tree([inductor_file("a"), triton_group("t")])
    tree.write(t.volume)
    with open(t.store, "w") as f:
        f.write("in the way")
    s = t.sidecar("--settle=0", "--interval=1s")
    s.wait_for("publish-failed")
    os.unlink(t.store)
    s.wait_for("INFO warmcache-sidecar: published", timeout=15)
    assert check_store(t.store, tree)
    assert s.count("publish-failed") == 1, "a failure that repeats is told once a minute"
    assert s.stop() == 0


def a_store_that_comes_back_while_it_ends_gets_the_rest(t):
    """Its first three puts fail with EIO, the last of them after SIGTERM."""
    tree = Tree([inductor_file("a")])
    tree.write(t.volume)
    s = t.sidecar("--settle=0", env=t.env("fail:fsync:1,fail:fsync:2,fail:fsync:3"))
    s.wait_for("publish-failed")
    s.signal(signal.SIGTERM)
    assert s.wait(15) == 0, s.log
    check_store(t.store, tree)
    assert _names(t) == list(tree.files), s.log


def a_store_that_is_slow_but_moves_gets_the_rest(t):
    """A round that ends a sidecar is given up after 10 s in which nothing moves."""
    s = t.sidecar("--settle=0", "--interval=1h", env=t.disk(t.store, rate=1 << 20))
    s.wait_for("state=started")
    time.sleep(0.3)
    tree = Tree([other_file("large", 12 << 20)])
    tree.write(t.volume)
    start = time.monotonic()
    assert s.stop(40) == 0 and time.monotonic() - start > 11, s.log
    assert check_store(t.store, tree), s.log


def mutable_files_never_cause_a_publish_and_ride_along(t):
    config = best_config("b")
    Tree([config]).write(t.volume)
    s = t.sidecar("--settle=100ms", "--interval=1s")
    s.wait_for("state=started")
    for i in range(4):
        time.sleep(0.3)
        Tree([{p: b'{"X": %d}' % i for p in config}]).write(t.volume)
    assert s.stop() == 0
    assert layer.objects(t.store) == [], s.log
    Tree([inductor_file("a"), {p: b'{"X": 9}' for p in config}]).write(t.volume)
    t.publish(None, volume=t.volume)
    contents = {}
    for path in layer.objects(t.store):
        contents.update(layer.read(path)[1])
    assert contents == {**inductor_file("a"), **{p: b'{"X": 9}' for p in config}}
    # And alone they don't come again.
    Tree([{p: b'{"X": 10}' for p in config}]).write(t.volume)
    n = len(layer.objects(t.store))
    t.publish(None, volume=t.volume)
    assert len(layer.objects(t.store)) == n


def a_mutable_file_that_does_not_parse_stays_out(t):
    config = best_config("b")
    Tree([inductor_file("a"), {p: b'{"X": ' for p in config}]).write(t.volume)
    t.publish(None, volume=t.volume)
    assert _names(t) == list(inductor_file("a"))


def temporary_and_lock_files_never_leave(t):
    top = "inductor/ab/"
    for name in ("tmp.1.2", "x.lock", "lock", "y.py.tmp", ".lockfile", "z.tmp.123"):
        Tree([{top + name: b"x"}]).write(t.volume)
    for name in ("inductor/locks/l", "inductor/tmp/x.py", "inductor/unknown.bin",
                 "triton/notahash/k.cubin", "vllm/gpu_p2p_access_cache.json"):
        Tree([{name: b"x"}]).write(t.volume)
    Tree([inductor_file("a")]).write(t.volume)
    t.publish(None, volume=t.volume)
    assert _names(t) == list(inductor_file("a"))


def a_group_that_is_not_whole_waits(t):
    for name, group in (("triton", triton_group("w")), ("flashinfer", flashinfer_group("w"))):
        t.clear()
        last = [p for p in group if "__grp__" in p or p.endswith(".so")][0]
        Tree([{p: d for p, d in group.items() if p != last}]).write(t.volume)
        log = t.publish(None, volume=t.volume)
        assert layer.objects(t.store) == [] and "left-out" in log, (name, log)
        Tree([{last: group[last]}]).write(t.volume)
        t.publish(None, volume=t.volume)
        check_store(t.store, Tree([group]))
        assert len(layer.objects(t.store)) == 1, name
        shutil.rmtree(t.store)


def a_file_that_is_open_for_writing_waits(t):
    Tree([inductor_file("a"), inductor_file("b")]).write(t.volume)
    busy = sorted(inductor_file("b"))[0]
    with open(os.path.join(t.volume, busy), "r+b"):
        t.publish(None, volume=t.volume)
    assert _names(t) == list(inductor_file("a"))


def a_writer_that_meets_its_lease_does_not_end_it(t):
    """A lease that is broken sends SIGIO, whose default is to end the process."""
    tree = Tree([inductor_file(str(i), 50) for i in range(30)])
    tree.write(t.volume)
    s = t.sidecar("--settle=0", "--interval=0s", env=t.env("slowlease"))
    s.wait_for("state=started")
    end = time.monotonic() + 2.5
    ended, paths = False, [os.path.join(t.volume, p) for p in tree.files]
    while time.monotonic() < end and not ended:
        for path in paths:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except BlockingIOError:
                pass
        ended = s.process.poll() is not None
    assert not ended, "ended by signal %s:\n%s" % (-s.process.returncode, s.log)
    assert s.stop() == 0


def a_compiler_killed_while_it_links_leaves_nothing_in_the_store(t):
    """Real shared objects, cut anywhere, at SIGTERM: a torn one would crash every later pod."""
    need("cc")
    source = t.path("k.c")
    with open(source, "w") as f:
        f.write("int table[999] = {1}; int kernel(int x) { return table[x] + x; }\n")
    whole = t.path("k.so")
    subprocess.check_call(["cc", "-shared", "-fPIC", "-O2", "-g", "-o", whole, source])
    with open(whole, "rb") as f:
        data = f.read()
    for n in (0, 1, 63, 64, 1000, len(data) // 2, len(data) - 4096, len(data) - 64, len(data) - 1):
        t.clear()
        Tree([{"inductor/ab/cab.so": data[:n]}, inductor_file("a")]).write(t.volume)
        t.publish(None, volume=t.volume)
        assert not any("cab.so" in name for name in _names(t)), n
    Tree([{"inductor/ab/cab.so": data}]).write(t.volume)
    t.publish(None, volume=t.volume)
    assert any("cab.so@" in name for name in _names(t))
    t.clear()
    r = t.init()
    assert r.status == "warm", r
    import ctypes
    assert ctypes.CDLL(os.path.join(t.volume, "inductor/ab/cab.so")).kernel(0) == 1


def objects_for_another_cpu_stay_out(t):
    other = layer.Layer()
    other.add("inductor/ab/x.so@%016x" % 1, {"inductor/ab/x.so": elf(b"other")}, "inductor",
              layer.CPU_BOUND, 1)
    other.write(t.store)
    r = t.init()
    assert snapshot(t.volume) == {} and "other CPUs" in r.json["reason"], r


@alone
def an_overflow_of_inotify_loses_nothing(t):
    need_root()
    knob = "/proc/sys/fs/inotify/max_queued_events"
    with open(knob) as f:
        before = f.read()

    def set_to(value):
        with open(knob, "w") as f:
            f.write(value)
    try:
        set_to("4")
    except OSError:
        raise Skip("%s can't be written here" % knob)
    t.undo(set_to, before)
    tree = Tree([inductor_file("o%d" % i, 50) for i in range(400)])
    s = t.sidecar("--settle=200ms", "--interval=500ms")
    s.wait_for("state=started")
    for group in tree.groups:
        Tree([group]).write(t.volume, old=False)
    end = time.monotonic() + 15
    while len(_names(t)) < 400 and time.monotonic() < end:
        time.sleep(0.2)
    assert len(_names(t)) == 400, s.log
    assert s.stop() == 0


def too_few_watches_mean_a_scan_by_the_clock(t):
    tree = Tree([inductor_file("w%d" % i, 50) for i in range(30)])
    s = t.sidecar("--settle=100ms", "--interval=300ms", "--max-watches=2")
    s.wait_for("state=started")
    for group in tree.groups:
        Tree([group]).write(t.volume)
        time.sleep(0.02)
    end = time.monotonic() + 10
    while len(_names(t)) < 30 and time.monotonic() < end:
        time.sleep(0.1)
    assert len(_names(t)) == 30, s.log
    assert s.stop() == 0


def a_restored_volume_is_not_published_again(t):
    tree = small_tree()
    t.publish(tree, volume=t.volume)
    t.clear()
    assert t.init().status == "warm"
    before = layer.objects(t.store)
    log = t.publish(None, volume=t.volume)
    assert layer.objects(t.store) == before, log
    # But what the store has lost is.
    for path in before:
        os.unlink(path)
    t.publish(None, volume=t.volume)
    assert sorted(snapshot(t.volume)) == sorted(tree.files)
    contents = {}
    for path in layer.objects(t.store):
        contents.update(layer.read(path)[1])
    assert contents == tree.files


def a_changed_group_is_published_anew_and_wins(t):
    tree = Tree([inductor_file("a")])
    t.publish(tree, volume=t.volume)
    t.clear()
    t.init()
    changed = Tree([{p: b"changed" for p in tree.files}])
    changed.write(t.volume)
    t.publish(None, volume=t.volume)
    assert t.init(volume=t.fresh("x")).status == "warm"
    assert check_whole(t.path("x2") if os.path.isdir(t.path("x2")) else
                       [t.path(d) for d in os.listdir(t.tmp) if d.startswith("x")][0], changed) == 1


def the_complete_mark_comes_at_a_graceful_end_alone(t):
    tree = Tree([inductor_file("a")])
    t.publish(tree, "--complete-after=1h")
    assert [layer.read(p)[0].complete for p in layer.objects(t.store)] == [None]
    t.publish(tree, "--complete-after=0")
    assert "" in [layer.read(p)[0].complete for p in layer.objects(t.store)]
    assert t.init().json["complete"]


def much_new_becomes_several_layers_each_whole(t):
    tree = Tree([{"own/%02d" % i: os.urandom(3 << 20)} for i in range(14)])
    t.publish(tree)
    assert len(layer.objects(t.store)) >= 2
    check_store(t.store, tree)
    assert t.init("--max-bytes=1G").status == "warm"
    assert check_whole(t.volume, tree) == 14


def a_model_that_writes_all_the_time_is_published_whole(t):
    """Groups are rewritten, with other bytes and lengths, while rounds run one after another."""
    stop = threading.Event()

    def write():
        n = 0
        while not stop.is_set():
            n += 1
            top = os.path.join(t.volume, "own")
            os.makedirs(top, exist_ok=True)
            for name in range(8):  # in place, not renamed: only the settle time tells
                with open(os.path.join(top, "f%d" % name), "wb") as f:
                    f.write(b"%06d" % n * t.random.randrange(1, 2000))
                    f.write(b"END")
    s = t.sidecar("--settle=0", "--interval=0s")
    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(2 if t.quick else 6)
    stop.set()
    thread.join()
    assert s.stop() == 0, s.log
    for path in layer.objects(t.store):
        for name, data in layer.read(path)[1].items():
            assert data == b"" or len(set(data[i:i + 6] for i in range(0, len(data) - 6, 6))) <= 1,\
                "%s mixes two writes" % name
    assert MACHINE and other_file and fxgraph_file


def something_new_after_a_fallback_boot_goes_out_after_the_settle_time(t):
    """Not after an interval, though groups that nobody opened yet are looked at by the clock."""
    t.publish(Tree([fxgraph_file("old")]))
    assert t.init(version="v2").status == "fallback"
    s = t.sidecar("--settle=500ms", "--interval=1h", version="v2")
    s.wait_for("state=started")
    time.sleep(0.7)
    Tree([inductor_file("new")]).write(t.volume)
    s.wait_for("INFO warmcache-sidecar: published", timeout=20)
    assert s.stop() == 0, s.log


def a_group_that_never_settles_does_not_delay_another(t):
    torn = os.path.join(t.volume, "inductor/ab")
    os.makedirs(torn)
    with open(os.path.join(torn, "cabc.so"), "wb") as f:
        f.write(b"\x7fELF")
    s = t.sidecar("--settle=300ms", "--interval=1h")
    s.wait_for("state=started")
    time.sleep(3)  # a few fruitless looks, each later than the one before
    Tree([inductor_file("new")]).write(t.volume)
    s.wait_for("INFO warmcache-sidecar: published", timeout=20)
    assert s.stop() == 0, s.log


def _complete(t):
    line = [os.path.join(t.bin, "warmcache"), "show", "--json", "--store", t.url(t.store), "--model",
            "m", "--version", "v1"]
    return json.loads(subprocess.check_output(line, env=t.env()))["complete"]


def a_version_is_complete_when_nothing_new_came_for_long_enough(t):
    Tree([inductor_file("a")]).write(t.volume)
    s = t.sidecar("--settle=0", "--complete-after=1s")
    s.wait_for("INFO warmcache-sidecar: published")
    time.sleep(1.2)
    assert s.stop() == 0, s.log
    assert _complete(t), s.log


def a_version_is_not_complete_when_something_came_at_the_end(t):
    Tree([inductor_file("a")]).write(t.volume)
    s = t.sidecar("--settle=0", "--complete-after=1s")
    s.wait_for("INFO warmcache-sidecar: published")
    time.sleep(1.2)
    Tree([inductor_file("late")]).write(t.volume, old=False)
    assert s.stop() == 0, s.log
    assert len(_names(t)) == 2 and not _complete(t), s.log


def links_that_flashinfer_makes_elsewhere_keep_no_operator_out(t):
    tree = Tree([flashinfer_group("attn")])
    tree.write(t.volume)
    cubins = os.path.join(t.volume, "flashinfer/0.2/cubins/flashinfer")
    os.makedirs(cubins)
    os.symlink("/nowhere", os.path.join(cubins, "trtllmGen_export"))
    t.publish(None, volume=t.volume)
    assert _names(t) == ["flashinfer/0.2/cached_ops/attn"], _names(t)


def a_version_that_holds_nothing_is_never_complete(t):
    """Groups by fallback that nobody opened are not its own; marked, it would get no others."""
    t.publish(Tree([fxgraph_file("old")]))
    assert t.init(version="v2").status == "fallback"
    s = t.sidecar("--settle=0", "--complete-after=0s", version="v2")
    s.wait_for("state=started")
    time.sleep(0.5)
    assert s.stop() == 0, s.log
    t.clear()
    assert t.init(version="v2").status == "fallback"
