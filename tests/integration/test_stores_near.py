# SPDX-License-Identifier: Apache-2.0
"""Near and far, by docs/stores.md: a directory on the node before a bucket."""

import os
import signal
import time

import fakes
import layer
import servers
from support import (Tree, bare_env, check_store, check_whole, inductor_file, need_root, other_file,
                     snapshot, some_tree, wait_until)


class _Tiers:
    """A near directory, and a bucket behind a front as far."""

    def __init__(self, t, tree=None):
        self.t, self.tree = t, tree or some_tree()
        self.server = servers.S3(t)
        self.front = fakes.Front(t, self.server.endpoint)
        self.far = self.server.url("team", endpoint=self.front.url)
        self.far_dir = os.path.join(self.server.bucket_dir, "team")
        self.near = t.dir("near")
        self.env = bare_env(t, **self.server.keys())
        self.store = {"store": [self.near, self.far], "env": self.env}
        t.publish(self.tree, store=self.far, env=self.env)

    def init(self, *args, status="warm", groups=None, **kw):
        volume = self.t.fresh("pod")
        r = self.t.init(*args, **{"volume": volume, **self.store, **kw})
        assert r.code == 0 and r.status == status, r
        n = check_whole(volume, self.tree)
        assert n == (len(self.tree.groups) if groups is None else groups), r
        return r, volume

    def sidecar(self, volume, *args, **kw):
        s = self.t.sidecar("--settle=0", "--near-after=100ms", *args, volume=volume,
                           **{**self.store, **kw})
        s.wait_for("state=started")
        return s

    def fill(self, *args):
        """A pod that restores, and its sidecar, until near has what far has."""
        _, volume = self.init()
        s = self.sidecar(volume, *args)
        wait_until("near to be filled", self.is_filled)
        assert s.stop() == 0, s.log
        return s

    def names(self, where):
        return [os.path.relpath(p, where) for p in layer.objects(where)]

    def is_filled(self):
        return self.names(self.near) == self.names(self.far_dir) != []

    def frames(self):
        """Requests for bytes of layers."""
        return self.front.seen("GET", ".tar.zst")


def near_is_filled_by_the_sidecar_and_serves_the_second_pod(t):
    w = _Tiers(t)
    _, volume = w.init()
    assert w.names(w.near) == [], "init writes nothing there"
    s = w.sidecar(volume)
    wait_until("near to be filled", w.is_filled)
    check_store(w.near, w.tree)
    assert s.stop() == 0, s.log
    w.front.forget()
    r, _ = w.init()
    assert not w.frames() and r.json["fetched_bytes"] > 0, (r, w.front.requests)
    assert len(w.front.requests) <= 3, w.front.requests


def near_waits_until_the_model_had_time_to_start(t):
    w = _Tiers(t)
    _, volume = w.init()
    s = t.sidecar("--settle=0", "--near-after=3s", volume=volume, **w.store)
    s.wait_for("state=started")
    time.sleep(1)
    assert w.names(w.near) == [], s.log
    wait_until("near to be filled", w.is_filled)
    assert s.stop() == 0


def a_sidecar_that_ends_before_fills_nothing_and_ends_soon(t):
    w = _Tiers(t)
    _, volume = w.init()
    s = t.sidecar("--settle=0", "--near-after=1h", volume=volume, **w.store)
    s.wait_for("state=started")
    start = time.monotonic()
    assert s.stop() == 0 and time.monotonic() - start < 8
    assert w.names(w.near) == []


def a_pod_takes_from_near_what_is_there_and_the_rest_from_far(t):
    w = _Tiers(t)
    w.fill()
    more = Tree([inductor_file("more")])
    t.publish(more, store=w.far, env=w.env)
    old = set(w.names(w.near))
    w.tree = w.tree + more
    w.front.forget()
    _, volume = w.init()
    assert w.frames() and not [r for r in w.frames() if any(n in r.path for n in old)]
    s = w.sidecar(volume)
    wait_until("near to be filled", w.is_filled)
    assert s.stop() == 0


def what_a_pod_publishes_goes_far(t):
    w = _Tiers(t)
    _, volume = w.init()
    new = Tree([inductor_file("new")])
    new.write(volume)
    s = w.sidecar(volume)
    s.wait_for("INFO warmcache-sidecar: published")
    assert s.stop() == 0
    assert len(w.names(w.far_dir)) == 2
    check_store(w.far_dir, w.tree + new)
    w.tree = w.tree + new
    w.init(store=w.far)


def far_alone_says_what_counts(t):
    """A layer in near that far doesn't list is not restored."""
    w = _Tiers(t)
    w.fill()
    stray = layer.Layer(id=(1800000000000, 7))
    stray.add("own/stray", {"own/stray": b"stray"})
    stray.write(w.near)
    w.init()


def a_damaged_layer_in_near_is_passed_over_and_replaced(t):
    w = _Tiers(t)
    for damage in ("flip", "cut", "empty", "index"):
        w.fill()
        path, = layer.objects(w.near)
        with open(path, "rb") as f:
            whole = f.read()
        trailer = layer.read_trailer(path)[2]
        at = {"flip": 50, "index": len(whole) - trailer + 140}.get(damage)
        with open(path, "r+b") as f:
            if at:
                f.seek(at)
                f.write(bytes([whole[at] ^ 1]))
            else:
                f.truncate({"cut": len(whole) // 2, "empty": 0}[damage])
        r, volume = w.init()
        assert "WARN" in r.err, (damage, r)
        s = w.sidecar(volume)

        def repaired():
            try:
                check_store(w.near, w.tree)
                return w.is_filled()
            except (AssertionError, OSError, ValueError):
                return False
        wait_until("near to be repaired of %s" % damage, repaired)
        assert s.stop() == 0, s.log
        w.front.forget()
        w.init()
        assert not w.frames(), damage


def a_near_that_is_read_only_serves_and_is_passed_over_with_a_warning(t):
    w = _Tiers(t)
    empty = t.dir("empty")
    t.mount("-t", "tmpfs", "-o", "ro", "tmpfs", empty)
    _, volume = w.init(store=[empty, w.far])
    s = w.sidecar(volume, store=[empty, w.far])
    s.wait_for("WARN")
    assert s.stop() == 0, s.log
    w.fill()
    bound = t.dir("bound")
    t.mount("--bind", w.near, bound)
    t.mount("-o", "remount,ro,bind", bound)
    w.front.forget()
    w.init(store=[bound, w.far])
    assert not w.frames()


def a_near_that_is_full_is_passed_over_with_a_warning(t):
    need_root()
    w = _Tiers(t, Tree([other_file("big%d" % i, 300000) for i in range(10)]))
    small = t.dir("small")
    t.mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", small)
    _, volume = w.init(store=[small, w.far])
    s = w.sidecar(volume, "--near-max-bytes=1G", store=[small, w.far])
    s.wait_for("WARN")
    new = Tree([inductor_file("new")])
    new.write(volume)
    s.wait_for("INFO warmcache-sidecar: published")
    assert s.stop() == 0, s.log
    check_store(small)
    left = [f for _, _, files in os.walk(small) for f in files if f.endswith(".tar.zst")]
    assert left == [] or w.names(small) == left or len(left) <= 1, left


def a_near_that_is_away_is_passed_over_with_a_warning(t):
    w = _Tiers(t)
    with open(t.path("file"), "w") as f:
        f.write("x")
    for near in (t.path("gone"), t.path("file"), t.path("file/below")):
        _, volume = w.init(store=[near, w.far])
        s = w.sidecar(volume, store=[near, w.far])
        time.sleep(0.5)
        assert s.stop() == 0, s.log
    with open(t.path("file")) as f:
        assert f.read() == "x"


def a_near_that_is_deleted_under_a_sidecar_is_survived(t):
    w = _Tiers(t)
    w.fill()
    _, volume = w.init()
    s = w.sidecar(volume)
    os.rename(w.near, t.path("away"))
    time.sleep(0.5)
    Tree([inductor_file("new")]).write(volume)
    s.wait_for("INFO warmcache-sidecar: published")
    assert s.process.poll() is None and s.stop() == 0, s.log


def near_is_kept_under_its_limit_and_the_least_used_goes_first(t):
    w = _Tiers(t, Tree([other_file("a", 100000)]))
    for i, name in enumerate("bc"):
        t.publish(Tree([other_file(name, 100000)]), store=w.far, env=w.env, model=name)
    for model in ("m", "b"):  # 100 KB each; room for two of three
        volume = t.fresh()
        assert t.init(volume=volume, model=model, **w.store).status == "warm"
        s = w.sidecar(volume, "--near-max-bytes=250K", model=model)
        wait_until(model, lambda: os.path.isdir(os.path.join(w.near, model)) and
                   layer.objects(os.path.join(w.near, model)))
        assert s.stop() == 0, s.log
        time.sleep(1.1)
    assert t.init(volume=t.fresh(), model="m", **w.store).status == "warm"  # used last
    time.sleep(1.1)
    volume = t.fresh()
    assert t.init(volume=volume, model="c", **w.store).status == "warm"
    s = w.sidecar(volume, "--near-max-bytes=250K", model="c")
    wait_until("c", lambda: os.path.isdir(os.path.join(w.near, "c")) and
               layer.objects(os.path.join(w.near, "c")))
    wait_until("b to go", lambda: not layer.objects(os.path.join(w.near, "b")))
    assert s.stop() == 0, s.log
    assert layer.objects(os.path.join(w.near, "m")), "it was used later than b"
    assert sum(map(os.path.getsize, layer.objects(w.near))) <= 250 << 10
    assert len(layer.objects(w.far_dir)) == 3, "far loses nothing"


def a_layer_over_the_limit_is_not_kept(t):
    w = _Tiers(t, Tree([other_file("a", 300000)]))
    _, volume = w.init()
    s = w.sidecar(volume, "--near-max-bytes=100K")
    time.sleep(1.5)
    assert s.stop() == 0, s.log
    assert sum(map(os.path.getsize, layer.objects(w.near))) <= 100 << 10


def near_warms_a_pod_when_far_cannot_be_reached(t):
    w = _Tiers(t)
    w.fill()
    away = w.server.url("team", endpoint="http://127.0.0.1:9")
    for far in (away,):
        volume = t.fresh()
        r = t.init("--deadline=20s", store=[w.near, far], env=w.env, volume=volume)
        assert r.code == 0 and r.status == "warm", r
        assert check_whole(volume, w.tree) == len(w.tree.groups)
        assert "127.0.0.1:9" in r.err + r.json["reason"] and "WARN" in r.err, r
        r = t.init("--deadline=20s", store=[w.near, far], env=w.env, volume=t.fresh(),
                   version="v2")
        assert r.status == "fallback", r


def near_warms_a_pod_when_far_denies_or_hangs(t):
    w = _Tiers(t)
    w.fill()
    for act in (fakes.s3_error(403, "AccessDenied"), fakes.answer(500), fakes.hang(w.front)):
        w.front.clear()
        w.front.when(act)
        volume = t.fresh()
        r = t.init("--deadline=10s", volume=volume, **w.store)
        assert r.code == 0 and r.took < 12, r
        if act is not None and r.status == "warm":
            assert check_whole(volume, w.tree) == len(w.tree.groups)
        assert r.status == "warm", (act, r)


def a_far_store_that_lists_the_pods_own_key_alone_is_enough(t):
    """As by a policy that allows no more; near makes no difference."""
    w = _Tiers(t)
    w.front.when(fakes.s3_error(403, "AccessDenied"), "GET", prefix="team/m/")
    w.init(store=w.far)
    w.init()
    assert len(w.front.seen("GET", prefix="team/m/")) == 2, w.front.requests
    w.fill()
    w.init()


def a_far_store_whose_list_of_the_model_hangs_gives_its_own_layers_in_time(t):
    w = _Tiers(t)
    w.front.when(fakes.hang(w.front), "GET", prefix="team/m/")
    r, _ = w.init("--deadline=3s")
    assert w.front.seen("GET", prefix="team/m/") and r.took < 4, r


def a_near_store_that_stalls_is_passed_over_in_time(t):
    w = _Tiers(t)
    for near in ("%s", "s3://caches?anonymous=true&endpoint=%s"):
        silent = fakes.Hooks(t)
        silent.reply = lambda r: silent.ended.wait() and None
        r, _ = w.init("--deadline=4s", store=[near % silent.url, w.far])
        assert silent.requests and r.took < 3.5 and "WARN" in r.err, (near, r)


def a_near_directory_whose_disk_hangs_holds_no_publish_and_no_end_up(t):
    near, tree = t.dir("near"), Tree([other_file("a")])
    tree.write(t.volume)
    s = t.sidecar("--settle=0", "--interval=1s", "--near-after=100ms", store=[near, t.store],
                  env=t.disk(near))
    s.wait_for("fsync hangs")
    tree = tree + Tree([other_file("b")])
    Tree(tree.groups[1:]).write(t.volume)
    start = time.monotonic()
    s.signal(signal.SIGTERM)
    wait_until("the rest to be far", lambda: len(layer.objects(t.store)) == 2, 5)
    assert s.wait(20) == 0 and time.monotonic() - start < 13, s.log
    assert sorted(check_store(t.store, tree)) == sorted(tree.files), s.log


def nothing_is_deleted_in_near_while_far_cannot_be_reached(t):
    w = _Tiers(t)
    w.fill()
    before = w.names(w.near)
    _, volume = w.init()
    w.front.when(fakes.s3_error(403, "AccessDenied"))
    s = w.sidecar(volume, "--near-max-bytes=1G")
    time.sleep(1)
    assert s.stop() == 0
    assert w.names(w.near) == before


def many_sidecars_fill_one_near_at_once(t):
    w = _Tiers(t)
    for i in range(4):
        more = Tree([other_file("f%d" % i, 200000)])
        t.publish(more, store=w.far, env=w.env)
        w.tree = w.tree + more
    volumes = [w.init()[1] for _ in range(8)]
    sidecars = [w.sidecar(volume) for volume in volumes]
    wait_until("near to be filled", w.is_filled)
    for s in sidecars:
        assert s.stop() == 0, s.log
    check_store(w.near, w.tree)
    assert w.is_filled()
    left = [f for _, _, files in os.walk(w.near) for f in files
            if not f.endswith(".tar.zst") and f.startswith(".tmp")]
    assert not left, left
    w.front.forget()
    w.init()
    assert not w.frames()


def a_sidecar_that_is_killed_while_it_fills_leaves_no_half_layer(t):
    w = _Tiers(t, Tree([other_file("k%d" % i, 1 << 20) for i in range(8)]))
    _, volume = w.init()
    w.front.when(lambda r, forward: (time.sleep(0.3), forward())[1], "GET", ".tar.zst")
    for i in range(4 if t.quick else 12):
        s = w.sidecar(volume)
        time.sleep(t.random.uniform(0, 0.8))
        s.kill()
        check_store(w.near, w.tree)
    w.front.when(fakes.stall(), "GET", ".tar.zst")
    s = w.sidecar(volume)
    time.sleep(1)
    s.kill()
    check_store(w.near, w.tree)
    w.front.clear()
    s = w.sidecar(volume)
    wait_until("near to be filled", w.is_filled)
    assert s.stop() == 0
    check_store(w.near, w.tree)
    left = [f for _, _, files in os.walk(w.near) for f in files if f.startswith(".tmp")]
    assert len(left) <= 1, "litter of sidecars that were killed: %s" % left


def a_body_that_is_cut_or_damaged_never_fills_near(t):
    w = _Tiers(t)
    _, volume = w.init()
    for act in (fakes.other_bytes, fakes.cut(0.5), fakes.shorter_than_it_is, fakes.stall(0.5)):
        w.front.clear()
        w.front.when(lambda r, forward: act(r, forward) if r.headers.get(
            "range", "bytes=0-").startswith("bytes=0-") else forward(), "GET", ".tar.zst")
        w.front.forget()
        s = w.sidecar(volume)
        wait_until("near to be filled", w.frames)
        time.sleep(1)
        start = time.monotonic()
        assert s.stop() == 0 and time.monotonic() - start < 4, ("near holds its end", s.log)
        assert layer.objects(w.near) == [], (act, s.log)


def three_tiers(t):
    w = _Tiers(t)
    w.fill()
    middle = t.dir("middle")
    os.rename(w.near, t.path("full"))
    t.dir("near")
    w.front.forget()
    w.init(store=[t.path("near"), t.path("full"), w.far])
    assert not w.frames()
    _, volume = w.init(store=[t.path("near"), middle, w.far])
    s = w.sidecar(volume, store=[t.path("near"), middle, w.far])
    wait_until("near to be filled", w.is_filled)
    assert s.stop() == 0, s.log


def two_directories_are_tiers_too(t):
    w = _Tiers(t)
    _, volume = w.init(store=[w.near, w.far_dir])
    s = w.sidecar(volume, store=[w.near, w.far_dir])
    wait_until("near to be filled", w.is_filled)
    assert s.stop() == 0
    os.chmod(w.near, 0o755)
    path, = layer.objects(w.far_dir)
    data = open(path, "rb").read()
    assert data == open(layer.objects(w.near)[0], "rb").read() and snapshot(volume)
