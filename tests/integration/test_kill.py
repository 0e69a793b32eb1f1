# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at every step and at any time: whole groups only, and the next run ends right."""

import os
import shutil
import signal
import subprocess
import threading
import time

import layer
from support import (Tree, best_config, check_store, check_whole, flashinfer_group, fxgraph_file,
                     inductor_file, other_file, small_tree, snapshot, triton_group)

KILLED = -signal.SIGKILL


def _mixed_tree():
    return Tree([triton_group("k0", 500), triton_group("k1", 500), flashinfer_group("attn", 300),
                 inductor_file("i", 300), fxgraph_file("f", 300), other_file("o", 300),
                 best_config("b")])


def _kill_init_at_every_step(t, tree, more="", prepare=lambda: None, env=None, foreign=(),
                             right="warm"):
    """SIGKILL before the 1st, 2nd, ... step, until a run gets through. Returns the steps."""
    n = 0
    while n < 1000:
        n += 1 if not t.quick or n < 3 else 1 + n % 7
        t.clear()
        prepare()
        r = t.init(env=t.env("%skill:fs:%d" % (more, n), **(env or {})))
        what = "killed at step %d" % n
        check_whole(t.volume, tree, what, foreign)
        if r.code != KILLED:
            assert r.code == 0 and r.status == right, r
            assert n > 10, "only %d steps: the faults don't arrive" % n
            return n
        # Now and then the next one is killed too: the third restores nothing, if both had
        # begun to. Then one is left to its work.
        if n % 3 == 0:
            t.init(env=t.env("%skill:fs:%d" % (more, 1 + n % 17), **(env or {})))
            check_whole(t.volume, tree, what + ", and again", foreign)
            r = t.init(env=t.env(**env) if env else None)
            assert r.code == 0 and (r.status == right or "were killed" in r.json["reason"]), r
        r = t.init(env=t.env(**env) if env else None)
        assert r.code == 0 and r.status == right, (what, r)
        groups = len(tree.groups)
        assert check_whole(t.volume, tree, what + ", then completed", foreign) == groups, (what, r)
        left = [p for p in snapshot(os.path.join(t.volume, ".warmcache"), ours=True)
                if p.startswith("stage")]
        assert not left, (what, left)
    raise AssertionError("never got through")


def init_killed_at_every_step_leaves_whole_groups(t):
    tree = _mixed_tree()
    t.publish(tree, volume=t.volume)
    _kill_init_at_every_step(t, tree)


def init_killed_at_every_step_without_openat2_and_renameat2(t):
    tree = _mixed_tree()
    t.publish(tree, volume=t.volume)
    _kill_init_at_every_step(t, tree, "noopenat2,norename2,")


def init_killed_at_every_step_over_a_volume_in_use(t):
    tree = _mixed_tree()
    t.publish(tree, volume=t.volume)
    own = Tree([inductor_file("mine"), triton_group("mine", 200), tree.groups[0]])
    _kill_init_at_every_step(t, tree, prepare=lambda: own.write(t.volume), foreign=own.files)


def init_killed_at_every_step_after_a_reboot(t):
    """The caches of before the crash are dropped; no kill on the way leaves half a group."""
    tree = _mixed_tree()
    t.publish(tree, volume=t.volume)
    with open(t.path("boot"), "w") as f:
        f.write("11111111-1111-1111-1111-111111111111\n")
    _kill_init_at_every_step(t, tree, prepare=t.init,
                             env={"WARM_FAULT_BOOT_ID": t.path("boot")})


def _run_sidecar_to_its_end(t, volume, fault=None, store=None):
    s = t.sidecar("--settle=0", "--interval=1s", volume=volume, store=store,
                  env=t.env(fault) if fault else None)
    end = time.monotonic() + 30
    while s.count("state=started") == 0 and s.process.poll() is None:
        assert time.monotonic() < end, s.log
        time.sleep(0.002)
    if s.process.poll() is None:
        s.signal(signal.SIGTERM)
    return s.wait(), s


def sidecar_killed_at_every_step_puts_whole_layers_only(t):
    tree = Tree([triton_group("k0", 500), flashinfer_group("attn", 300), inductor_file("i", 300),
                 best_config("b")])
    n = 0
    while n < 500:
        n += 1 if not t.quick or n < 3 else 1 + n % 4
        shutil.rmtree(t.store, ignore_errors=True)
        t.clear()
        tree.write(t.volume)
        code, s = _run_sidecar_to_its_end(t, t.volume, "kill:fs:%d" % n)
        what = "killed at step %d" % n
        check_whole(t.volume, tree, what)
        check_store(t.store, tree)
        if code != KILLED:
            assert code == 0, s.log
            assert n > 8, "only %d steps" % n
            break
        code, s = _run_sidecar_to_its_end(t, t.volume)
        assert code == 0, s.log
        t.clear()
        r = t.init()
        assert r.status == "warm", (what, r)
        # What rides along does so when something else is published: it may have stayed behind.
        assert check_whole(t.volume, tree, what) >= len(tree.groups) - 1, what
    else:
        raise AssertionError("never got through")


def a_killed_run_leaves_no_litter_for_ever(t):
    """Temporary files of runs that were killed are gone after the next: a pod may live for long."""
    tree = Tree([inductor_file("i", 300)])
    tree.write(t.volume)
    for n in range(1, 30):
        _run_sidecar_to_its_end(t, t.volume, "kill:fs:%d" % n)
        shutil.rmtree(t.store, ignore_errors=True)
    _run_sidecar_to_its_end(t, t.volume)
    for n in range(1, 20):
        t.clear(t.dir("again"))
        t.init(volume=t.path("again"), env=t.env("kill:fs:%d" % n))
        t.init(volume=t.path("again"))
        left = sorted(os.listdir(t.path("again", ".warmcache")))
        assert left == ["ledger", "lock", "result"], (n, left)
    t.init()
    _run_sidecar_to_its_end(t, t.volume)
    left = sorted(os.listdir(os.path.join(t.volume, ".warmcache")))
    assert left == ["ledger", "lock", "result", "sidecar"], left


class _Model(threading.Thread):
    """Writes groups as compilers do, one after another, over and over. Holding `pause` keeps it
    between two groups."""

    def __init__(self, volume, groups, pace=0.002, renew=False):
        super().__init__(daemon=True)
        self.volume, self.groups, self.pace, self.renew = volume, groups, pace, renew
        self.pause, self.ending, self.written = threading.Lock(), False, 0
        self.failure = None

    def run(self):
        try:
            while not self.ending:
                for group in self.groups:
                    if self.ending:
                        return
                    with self.pause:
                        self._write(group)
                    self.written += 1
                    time.sleep(self.pace)
        except Exception as e:
            self.failure = e

    def _write(self, group):
        # As Triton does: a group that is there by its last file is used, else all are written.
        if os.path.exists(os.path.join(self.volume, list(group)[-1])) and not self.renew:
            return
        for path, data in group.items():
            full = os.path.join(self.volume, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            temp = os.path.join(os.path.dirname(full), "tmp.%d" % threading.get_ident())
            with open(temp, "wb") as f:
                f.write(data)
            os.replace(temp, full)

    def end(self):
        self.ending = True
        self.join()
        if self.failure:
            raise self.failure


def sidecar_killed_at_random_times_while_a_model_writes(t):
    tree = Tree([triton_group("r%d" % i, 1000) for i in range(150)] +
                [inductor_file("r%d" % i) for i in range(150)])
    t.random.shuffle(tree.groups)
    model = _Model(t.volume, tree.groups, pace=0.02)
    model.start()
    t.undo(model.end)
    seen = set()
    for n in range(200):
        if t.quick and n >= 20 and len(seen) > 3:
            break
        s = t.sidecar("--settle=0", "--interval=0s", volume=t.volume)
        # Later and later, so that a slow machine gets to its puts as well.
        time.sleep(t.random.uniform(0.005, 0.2 + n / 200))
        if n % 3 == 0:
            s.signal(signal.SIGTERM)
            time.sleep(t.random.uniform(0, 0.03))
        s.kill()
        for path in layer.objects(t.store):
            if path in seen:
                continue
            seen.add(path)
            _, contents = layer.read(path)
            for group in tree.groups:
                there = [p for p in group if p in contents]
                assert not there or len(there) == len(group), "a torn group in %s" % path
                assert all(contents[p] == group[p] for p in there), path
    model.end()
    code, s = _run_sidecar_to_its_end(t, t.volume)
    assert code == 0, s.log
    written = [g for g in tree.groups if all(os.path.exists(os.path.join(t.volume, p)) for p in g)]
    t.clear()
    r = t.init()
    assert r.status == "warm", r
    assert check_whole(t.volume, tree) >= len(written), r
    assert len(seen) > 3


def init_killed_at_random_times_while_a_model_writes_the_same_names(t):
    tree = Tree([triton_group("s%d" % i, 20000) for i in range(60)] +
                [inductor_file("s%d" % i, 50000) for i in range(60)])
    t.publish(tree, volume=t.volume)
    start = time.monotonic()
    t.clear()
    assert t.init().status == "warm"
    took = time.monotonic() - start
    for n in range(20 if t.quick else 200):
        t.clear()
        model = _Model(t.volume, tree.groups[::-1], pace=0)
        model.start()
        try:
            p = subprocess.Popen([os.path.join(t.bin, "warmcache-init")] +
                                 t.target(None, None, "m", "v1") + ["--result="], env=t.env(),
                                 stderr=subprocess.DEVNULL)
            time.sleep(t.random.uniform(0, took))
            p.kill()
            p.wait()
            with model.pause:
                check_whole(t.volume, tree, "kill %d" % n)
        finally:
            model.end()
        if n % 10 == 0:
            r = t.init()
            assert r.status == "warm", r
            assert check_whole(t.volume, tree, "completed") == len(tree.groups)


def a_restore_and_a_model_that_write_the_same_names_tear_neither(t):
    """The model's bytes differ from the store's: each group is wholly the one's or the other's."""
    tree = Tree([triton_group("w%d" % i, 3000) for i in range(80)] +
                [inductor_file("w%d" % i) for i in range(80)])
    t.publish(tree, volume=t.volume)
    mine = [{p: d[::-1] for p, d in g.items()} for g in tree.groups]
    for n in range(5 if t.quick else 20):
        t.clear()
        model = _Model(t.volume, mine if n % 2 else mine[::-1], pace=0)
        model.start()
        time.sleep(t.random.uniform(0, 0.01))
        r = t.init()
        model.end()
        assert r.code == 0 and r.status in ("warm", "partial"), r
        have, whose = snapshot(t.volume), set()
        for theirs, ours in zip(tree.groups, mine):
            there = {p: have[p] for p in theirs if p in have}
            assert not there or there in (theirs, ours), "torn: %s" % sorted(there)
            if there:
                whose.add("store" if there == theirs else "model")
        assert whose, r


def a_group_that_the_model_makes_between_plan_and_move_stays_its_own(t):
    """Deterministic: stop init before each rename, write a group in the model's bytes, go on."""
    tree = Tree([flashinfer_group("attn", 300), triton_group("x", 300)])
    t.publish(tree, volume=t.volume)
    for part in ("generated", "cached_ops", "triton"):
        mine = {p: b"mine" + d for p, d in tree.files.items() if part in p}
        for n in range(1, 8):
            t.clear()
            p = subprocess.Popen([os.path.join(t.bin, "warmcache-init")] +
                                 t.target(None, None, "m", "v1") + ["--result="],
                                 env=t.env("stop:rename:%d" % n), stderr=subprocess.PIPE)
            t.undo(p.kill)
            while True:
                pid, status = os.waitpid(p.pid, os.WUNTRACED)
                if not os.WIFSTOPPED(status):
                    p.returncode = os.waitstatus_to_exitcode(status)
                    break
                before = snapshot(t.volume)
                if not any(path in before for path in mine):
                    Tree([{k: v for k, v in mine.items()
                           if not k.endswith("a.cu")}]).write(t.volume)
                os.kill(p.pid, signal.SIGCONT)
            p.stderr.close()
            have = snapshot(t.volume)
            for directory in {os.path.dirname(path) for path in tree.files}:
                there = {k: v for k, v in have.items() if os.path.dirname(k) == directory}
                ours = {k: v for k, v in tree.files.items() if os.path.dirname(k) == directory}
                own = {k: v for k, v in mine.items()
                       if os.path.dirname(k) == directory and not k.endswith("a.cu")}
                assert not there or there in (ours, own), \
                    "%s at rename %d: mixed: %s" % (directory, n, sorted(there))
            made = [k for k in have if "generated/" in k and have[k].startswith(b"mine")]
            linked = [k for k in have if "cached_ops/" in k and not have[k].startswith(b"mine")]
            assert not (made and linked), \
                "rename %d: the store's cached_ops/ over the model's generated/" % n
