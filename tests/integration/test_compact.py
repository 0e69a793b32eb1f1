# SPDX-License-Identifier: Apache-2.0
"""Compaction and garbage: nothing is lost, whoever reads, publishes, compacts or is killed
meanwhile; and what is to go goes."""

import glob
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time

import kinds
import layer
import servers
from support import (DENIED, INVALID, MACHINE, NOT_FOUND, Failures, Sidecar, Tree, best_config,
                     blob, check_store, check_whole, counts, flashinfer_group, fxgraph_file,
                     inductor_file, other_file, snapshot, sweep, triton_group, wait_until)

KILLED = -signal.SIGKILL
HOUR, DAY = 3600, 86400
SUMS = {"model", "version", "platform", "folded", "groups", "bytes", "base", "deleted", "kept",
        "bad"}


# ---- the command ----

def _line(t, command, *args, store=None):
    return [os.path.join(t.bin, "warmcache"), command, "--store",
            t.url(store or t.store, True)] + list(args)


def _env(t, *args, **kw):
    return t.env(*args, **{"TMPDIR": t.dir("tmp"), **kw})


def _run(t, command, *args, code=0, env=None, prefix=(), store=None):
    p = subprocess.run(list(prefix) + _line(t, command, *args, store=store), env=env or _env(t),
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, errors="replace", timeout=120)
    t.look()
    t.written += [p.stdout, p.stderr]
    assert "Sanitizer" not in p.stderr and "runtime error:" not in p.stderr, p.stderr
    assert code is None or p.returncode == code, "exit %d: %s\n%s" % (p.returncode, p.stdout,
                                                                      p.stderr)
    return p


def _compact(t, *args, **kw):
    """What it says of each key. Nothing of it stays in the work directory."""
    work = tempfile.mkdtemp(dir=t.tmp, prefix="work.")
    keys = json.loads(_run(t, "compact", "--json", "--work-dir", work, *args, **kw).stdout)["keys"]
    for key in keys:
        assert set(key) >= SUMS, key
    os.rmdir(work)
    return keys


def _compact_one(t, *args, **kw):
    key, = _compact(t, *args, **kw)
    return key


def _gc(t, *args, **kw):
    """(versions that go, those that a rule would have taken: both {(model, version): reason}; or
    by platform where it is another one), number of uploads)."""
    said = json.loads(_run(t, "gc", "--json", *args, **kw).stdout)
    assert said["deleted"] == ("--delete" in args), said

    def named(versions):
        return {(v["model"], v["version"]) if v["platform"] == MACHINE else
                (v["model"], v["version"], v["platform"]): v["reason"] for v in versions}
    for v in said["versions"]:
        assert v["layers"] > 0 and v["bytes"] > 0, v
    assert len(named(said["versions"])) == len(said["versions"]), said
    return named(said["versions"]), named(said["kept"]), said["uploads"]


def _push(t, tree, *args, store=None, version="v1", model="m", code=0, mount=None):
    volume = tempfile.mkdtemp(dir=t.tmp, prefix="push.")
    tree.write(volume)
    _run(t, "push", volume, "--mount", mount or t.volume, "--model", model, "--version", version,
         *args, store=store, code=code)
    shutil.rmtree(volume)


# ---- stores ----

def _ages(t):
    return t.kind is None or t.kind.ages


def _remote(t):
    return t.kind is not None and t.kind.remote


def _age(t, seconds=2 * HOUR):
    """Objects that were put so long ago by the store's clock."""
    for path in layer.objects(t.store):
        os.utime(path, (time.time() - seconds,) * 2)


def _let_delete(t):
    """Options by which what a base covers goes now: an hour has passed, where the store's times
    can be set."""
    if _ages(t):
        _age(t)
        return []
    time.sleep(1.2)  # a registry's clock counts seconds
    return ["--delete-after=1ms"]


def _delete_covered(t, *args):
    return _compact(t, *_let_delete(t), *args)


def _keep(t, name="template"):
    """The store as it is now, for _restore_store()."""
    shutil.rmtree(t.path(name), ignore_errors=True)
    shutil.copytree(t.store, t.path(name))


def _restore_store(t, name="template"):
    """Not by a rename: a server may hold the directory."""
    shutil.rmtree(t.store, ignore_errors=True)
    shutil.copytree(t.path(name), t.store)


def _all_files(top):
    """{path: (size, mtime, inode)}, hidden ones among them."""
    found = {}
    for where, _, files in os.walk(top):
        for name in files:
            st = os.lstat(os.path.join(where, name))
            found[os.path.relpath(os.path.join(where, name), top)] = (st.st_size, st.st_mtime_ns,
                                                                      st.st_ino)
    return found


def _layers(t, version="v1", model="m"):
    return [p for p in layer.objects(t.store)
            if os.path.relpath(p, t.store).startswith("%s/%s/" % (model, version or "_"))]


def _bases(t, version="v1", model="m"):
    return [p for p in _layers(t, version, model) if os.path.basename(p).startswith("B-")]


def _make(t, version="v1", days=0, files=None, model="m", platform=MACHINE, complete=None,
          bytes=500, young=False, store=None, flags=0):
    """One layer of a version, with an id and a time of so many days ago."""
    id = (int((time.time() - days * DAY) * 1000), t.random.getrandbits(63))
    made = layer.Layer(key=(model, version, platform), id=id)
    made.complete = complete
    files = files or {"own/%016x.bin" % id[1]: t.random.randbytes(bytes)}
    for path in sorted(files):
        made.add(path, {path: files[path]}, flags=flags)
    path = made.write(store or t.store)
    if not young:
        os.utime(path, (time.time() - max(2 * HOUR, days * DAY),) * 2)
    return path


def _flip(t, path, at):
    """Damage, and mend. The times of the file stay, where they mean something."""
    st = os.stat(path)
    with open(path, "r+b") as f:
        f.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        byte = f.read(1)[0]
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte ^ 4]))
    if _ages(t):
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


# ---- volumes ----

def _stamps(volume):
    """{path: (bytes, mtime in ns, executable)}."""
    found = {}
    for path, data in snapshot(volume).items():
        st = os.stat(os.path.join(volume, path))
        found[path] = data, st.st_mtime_ns, st.st_mode & 0o111
    return found


def _restored(t, tree, what="", status="warm", **kw):
    """A restore into an empty volume gives all of the tree."""
    t.clear()
    r = t.init("--fallback=none", **kw)
    assert r.code == 0 and r.status == status, (what, r)
    there = check_whole(t.volume, tree, what)
    assert there == len(tree.groups), "%s: %d of %d groups: %s" % (what, there, len(tree.groups), r)
    return r


def _parts(tree, n):
    return [Tree(tree.groups[i::n]) for i in range(n)]


def _mixed_tree(name="c"):
    return Tree([triton_group(name + "0", 500), triton_group(name + "1", 500),
                 flashinfer_group(name, 300), inductor_file(name, 300), fxgraph_file(name, 300),
                 other_file(name, 300)])


def _push_parts(t, tree, n=4, **kw):
    for part in _parts(tree, n):
        _push(t, part, **kw)


# ---- what compaction does ----

def a_compacted_store_restores_to_the_same_tree(t):
    """Byte for byte, with times and modes, and with the complete mark; the replaced copy goes."""
    tree = _mixed_tree() + Tree([best_config("b")])
    path, = other_file("c")
    for i, part in enumerate(_parts(tree, 4)):
        part.write(t.volume)
        for k, file in enumerate(sorted(part.files)):
            full = os.path.join(t.volume, file)
            os.chmod(full, 0o755 if k % 2 else 0o644)
            os.utime(full, ns=(10 ** 18, 1700000000123456789 + 1000 * i + k))
        t.publish(volume=t.volume)
    with open(os.path.join(t.volume, path), "wb") as f:
        f.write(b"newer, and of another length")
    tree.groups = [g if path not in g else {path: b"newer, and of another length"}
                   for g in tree.groups]
    os.utime(os.path.join(t.volume, path), ns=(10 ** 18, 1700000001000000001))
    t.publish(None, "--complete-after=0s", volume=t.volume)

    def look(what):
        r = _restored(t, tree, what)
        assert r.json["complete"], (what, r)
        return _stamps(t.volume)
    before, old = look("before"), layer.objects(t.store)
    n = len(old)  # the mark may have a layer of its own
    assert n in (5, 6) and any(s[1] % 1000 for s in before.values()), (old, before)
    ids = {layer.read(p)[0].id for p in old}
    mark = [m for m in (layer.read(p)[0].complete for p in old) if m is not None]
    assert len(mark) == 1 and sum(path in layer.read(p)[1] for p in old) == 2

    said = _compact_one(t)
    assert (said["model"], said["version"], said["platform"]) == ("m", "v1", MACHINE), said
    assert said["folded"] == n and said["groups"] == len(tree.groups), said
    assert said["deleted"] == 0 and said["kept"] == n and said["bad"] == 0, said
    base, = set(layer.objects(t.store)) - set(old)
    assert said["base"] == os.path.relpath(base, t.store) and os.path.getsize(base) == \
        said["bytes"], said
    held, contents = layer.read(base)
    assert held.kind == "B" and set(held.covered) == ids and held.complete == mark[0], held.complete
    assert contents == tree.files, "the base holds one copy of each file, the newest"
    assert look("with the base") == before

    if _ages(t):
        _age(t, HOUR - 60)
    said = _compact_one(t)
    assert said["deleted"] == 0 and said["kept"] == n and said["base"] == "", said
    assert layer.objects(t.store) == sorted(old + [base]), "not before an hour"
    if _ages(t):
        _age(t, HOUR + 60)
    said, = _compact(t) if _ages(t) else _delete_covered(t)
    assert said["deleted"] == n and said["kept"] == 0 and said["base"] == "", said
    assert layer.objects(t.store) == [base]
    assert look("with the base alone") == before

    files = _all_files(t.store)
    said = _compact_one(t)
    assert (said["folded"], said["deleted"], said["kept"], said["base"]) == (0, 0, 0, ""), said
    assert _all_files(t.store) == files, "there is nothing left to do"
    assert look("at last") == before
    check_store(t.store, tree)
    _run(t, "verify", "--model", "m", "--version", "v1")
    shown = json.loads(_run(t, "show", "--json", "--model", "m", "--version", "v1").stdout)
    assert shown["complete"] and len(shown["layers"]) == 1, shown


def twenty_copies_of_the_same_groups_become_one(t):
    """As replicas that start together leave them."""
    tree = Tree([triton_group("r", 3000), inductor_file("r", 9000), fxgraph_file("r", 9000)])
    for i in range(20):
        _push(t, tree, store=t.path("replica%d" % i))
    for i in range(20):
        from_dir = t.path("replica%d" % i)
        t.url(from_dir, True)
        for path in layer.objects(from_dir):
            to = os.path.join(t.store, os.path.relpath(path, from_dir))
            os.makedirs(os.path.dirname(to), exist_ok=True)
            shutil.copy2(path, to)
    assert len(layer.objects(t.store)) == 20
    many = sum(os.path.getsize(p) for p in layer.objects(t.store))
    said = _compact_one(t)
    assert said["folded"] == 20 and said["groups"] == len(tree.groups), said
    _restored(t, tree, "with all copies")
    said, = _delete_covered(t)
    assert said["deleted"] == 20, said
    only, = layer.objects(t.store)
    assert sorted(layer.read(only)[1]) == sorted(tree.files)
    assert os.path.getsize(only) * 10 < many
    _restored(t, tree, "with one")


def keys_with_few_layers_are_left_alone(t):
    tree = Tree([fxgraph_file("f%d" % i, 200) for i in range(6)])
    for i in range(3):
        _push(t, Tree(tree.groups[i:i + 1]))
    for said in _compact(t):
        assert said["base"] == "" and said["folded"] == 0, said
    assert len(layer.objects(t.store)) == 3
    assert _compact_one(t, "--min-layers=3")["folded"] == 3
    assert len(_delete_covered(t)) <= 1
    assert len(layer.objects(t.store)) == 1
    # A base counts as one layer.
    for i in range(3, 5):
        _push(t, Tree(tree.groups[i:i + 1]))
    for said in _compact(t, "--min-layers=4"):
        assert said["base"] == "", said
    _push(t, Tree(tree.groups[5:]))
    assert _compact_one(t)["folded"] == 4
    _restored(t, tree)
    # Covered layers are deleted when only few of them are left, too.
    os.unlink(sorted(p for p in layer.objects(t.store) if "/L-" in p)[0])
    assert [k["deleted"] for k in _delete_covered(t)] == [3]
    assert len(layer.objects(t.store)) == 1
    _restored(t, tree)


def all_keys_of_a_store_are_compacted_or_those_that_are_named(t):
    keys = [("m", "v1"), ("m", "v2"), ("n", "v1"), ("m", "")]
    trees = {}
    for model, version in keys:
        trees[model, version] = Tree([fxgraph_file("%s%s%d" % (model, version, i), 300)
                                      for i in range(4)])
        _push_parts(t, trees[model, version], model=model, version=version)
    for i in range(4):
        _make(t, "v1", platform="riscv64", days=1 + i)
    _push(t, Tree([fxgraph_file("single")]), model="o")

    def folded(*args):
        return {(k["model"], k["version"], k["platform"]) for k in _compact(t, *args)
                if k["base"]}
    assert folded("--model=m", "--version=v1", "--platform=riscv64") == {("m", "v1", "riscv64")}
    assert folded("--model=m", "--version=v2") == {("m", "v2", MACHINE)}
    assert folded("--model=n") == {("n", "v1", MACHINE)}
    assert folded() == {("m", "v1", MACHINE), ("m", "", MACHINE)}
    assert folded() == set()
    _delete_covered(t)
    assert len(layer.objects(t.store)) == 6
    for (model, version), tree in trees.items():
        t.clear()
        r = t.init("--fallback=none", model=model, version=version)
        assert r.status == "warm" and check_whole(t.volume, tree) == len(tree.groups), r


def what_replaced_a_group_wins_over_any_base_made_before_and_after(t):
    """Generations of one group, with bases in between, deleted or not."""
    path = "own/gen.bin"
    for n in range(1, 13):
        _make(t, days=20 - n, files={path: b"generation %d" % n, "own/%d" % n: b"%d" % n})
        if n % 3 == 0:
            before = {p: d for k in range(1, n + 1) for p, d in
                      {"own/%d" % k: b"%d" % k, path: b"generation %d" % n}.items()}
            _compact(t, "--min-layers=2")
            if n % 2:
                _delete_covered(t, "--min-layers=2")
            t.clear()
            r = t.init()
            assert r.status == "warm" and snapshot(t.volume) == before, (n, r)


def compaction_makes_no_version_newer_than_another(t):
    """A base comes last of all. The order of versions decides what gc keeps, and which version
    others fall back on."""
    for version, days in (("v1", 90), ("v2", 50), ("v3", 10)):
        for i in range(4):
            _make(t, version, days=days + i, complete="" if i == 2 else None,
                  files={"own/%s.%d" % (version, i): b"x"}, flags=layer.SELF_KEYED)

    def look(what):
        t.clear()
        r = t.init(version="v4")
        assert r.status == "fallback", r
        assert all("own/v3." in p for p in snapshot(t.volume)), (what, sorted(snapshot(t.volume)))
        keys = json.loads(_run(t, "ls", "--json").stdout)["keys"]
        assert [k["version"] for k in keys] == ["v3", "v2", "v1"], (what, keys)
        if not _ages(t):
            return
        assert set(_gc(t, "--older-than=60d")[0]) == {("m", "v1")}, what
        assert set(_gc(t, "--keep=1")[0]) == {("m", "v1"), ("m", "v2")}, what
        assert set(_gc(t, "--max-total=1")[1]) == {("m", "v3")}, what
    look("before")
    assert len(_compact(t)) == 3
    if _ages(t):
        _age(t)
    look("with bases")
    _delete_covered(t)
    if _ages(t):
        _age(t)
    look("with bases alone")


def a_layer_that_is_corrupt_is_neither_covered_nor_deleted(t):
    tree = Tree([{**fxgraph_file("x%d" % i, 3000)} for i in range(8)])
    _push_parts(t, tree, 8)
    paths = layer.objects(t.store)
    frame, index, cut = paths[1], paths[4], paths[6]
    lost = {p: layer.read(p)[1] for p in (frame, index, cut)}
    _flip(t, frame, 200)
    _flip(t, index, -3)
    os.truncate(cut, os.path.getsize(cut) - 1)
    rest = Tree([g for g in tree.groups if not any(set(g) <= set(c) for c in lost.values())])
    assert len(rest.groups) == 5
    said = _compact_one(t)
    assert said["folded"] == 5 and said["groups"] == 5 and said["bad"] == 3, said
    base, = _bases(t)
    covered = layer.read(base)[0].covered
    for path in (frame, index, cut):
        assert not any("-%d-%016x-" % i in path for i in covered), path
    for _ in range(2):
        said, = _delete_covered(t)
        assert said["bad"] == 3 and said["base"] == "", said
    assert layer.objects(t.store) == sorted([base, frame, index, cut])
    t.clear()
    assert t.init().status == "partial"
    assert check_whole(t.volume, tree) == 5
    # Mended, nothing of them was lost.
    _flip(t, frame, 200)
    _flip(t, index, -3)
    os.unlink(cut)
    _restored(t, Tree([g for g in tree.groups if not set(g) <= set(lost[cut])]), "mended")


def nothing_is_deleted_for_a_base_that_is_corrupt(t):
    tree = Tree([fxgraph_file("x%d" % i, 3000) for i in range(4)])
    _push_parts(t, tree)
    _compact(t)
    _age(t)
    base, = _bases(t)
    for at in (200, -3):
        _keep(t)
        _flip(t, base, at)
        said = _compact_one(t)
        assert said["deleted"] == 0, said
        assert len([p for p in layer.objects(t.store) if "/L-" in p]) == 4, said
        if at > 0:  # what the bad one covered is folded once more
            assert said["folded"] == 4, said
            _age(t)
            assert _compact_one(t)["deleted"] >= 4
        r = _init_of_all(t, tree)
        assert r.status in ("warm", "partial"), r
        _restore_store(t)
    _restored(t, tree)


def a_base_that_is_corrupt_is_counted_once(t):
    _push_parts(t, Tree([fxgraph_file("x%d" % i, 3000) for i in range(4)]))
    _compact(t)
    base, = _bases(t)
    _flip(t, base, 200)
    for _ in range(3):
        said, = _delete_covered(t)
        assert said["bad"] == 1, said


def _init_of_all(t, tree):
    t.clear()
    r = t.init("--fallback=none")
    assert r.code == 0 and check_whole(t.volume, tree) == len(tree.groups), r
    return r


def compact_says_what_it_did_for_people_and_programs(t):
    tree = Tree([fxgraph_file("x%d" % i, 300) for i in range(4)])
    _push_parts(t, tree)
    p = _run(t, "compact", "--work-dir", t.dir("work"))
    assert "v1" in p.stdout and "4" in p.stdout and "{" not in p.stdout, p.stdout
    said = json.loads(_run(t, "compact", "--json", *_let_delete(t)).stdout)
    assert list(said) == ["keys"] and said["keys"][0]["deleted"] == 4, said
    assert os.listdir(t.dir("tmp")) == [], "TMPDIR is the work directory, and nothing stays there"
    out = t.run("--help").stdout
    assert "compact" in out and "gc" in out, out


def compact_that_can_t_work_says_why_and_changes_nothing(t):
    tree = Tree([fxgraph_file("x%d" % i, 300) for i in range(4)])
    _push_parts(t, tree)
    files = _all_files(t.store)
    with open(t.path("plain"), "w"):
        pass
    for work in (t.path("not-there"), t.path("plain")):
        p = _run(t, "compact", "--work-dir", work, code=None)
        assert p.returncode in (INVALID, NOT_FOUND) and work in p.stderr, p
    for bad in ("--min-layers=few", "--delete-after=soon", "--version=v1"):
        p = _run(t, "compact", bad, code=INVALID)
        assert bad[2:bad.index("=")] in p.stderr or "--model" in p.stderr, p
    for args in (["--model=m", "--version=v2"], ["--model=n"]):
        p = _run(t, "compact", *args, code=NOT_FOUND)
        assert args[-1].split("=")[1] in p.stderr, p
    assert {p: v[:2] for p, v in _all_files(t.store).items()} == \
        {p: v[:2] for p, v in files.items()}
    _restored(t, tree)


def compact_and_gc_of_a_store_that_isn_t_there(t):
    for command in ("compact", "gc"):
        p = _run(t, command, code=NOT_FOUND)
        assert t.store in p.stderr, p
        assert not os.path.exists(t.store), command
        os.mkdir(t.store)
        said = json.loads(_run(t, command, "--json").stdout)
        assert said == ({"keys": []} if command == "compact" else
                        {"deleted": False, "versions": [], "kept": [], "uploads": 0}), said
        os.rmdir(t.store)


def a_read_only_store_is_denied_and_stays_as_it_is(t):
    nobody = t.as_nobody()
    os.chmod(t.tmp, 0o755)
    tree = Tree([fxgraph_file("x%d" % i, 300) for i in range(4)])
    _push_parts(t, tree)
    for i in range(3):
        _make(t, "w%d" % i, days=90)
    files = _all_files(t.store)
    os.chmod(t.dir("tmp"), 0o777)
    p = _run(t, "compact", prefix=nobody, code=DENIED)
    assert "m/v1" in p.stderr or t.store in p.stderr, p
    p = _run(t, "gc", "--older-than=30d", "--delete", prefix=nobody, code=DENIED)
    assert p.stderr, p
    assert os.listdir(t.dir("tmp")) == []
    assert _all_files(t.store) == files
    # To say what it would do it needs no more than to read, if the store's time can be had.
    p = _run(t, "gc", "--older-than=30d", prefix=nobody, code=None)
    assert p.returncode == 0 and ("w1" in p.stdout or p.stderr), p


def a_key_that_fails_keeps_no_other_from_being_compacted(t):
    nobody = t.as_nobody()
    trees = {}
    for version in ("v1", "v2", "v3"):
        trees[version] = Tree([fxgraph_file("%s%d" % (version, i), 300) for i in range(4)])
        _push_parts(t, trees[version], version=version)
    for where, _, _ in os.walk(t.store):
        if where.endswith(("v1/" + MACHINE, "v3/" + MACHINE)) or where == t.store:
            os.chmod(where, 0o777)
    work = t.dir("work")
    os.chmod(work, 0o777)
    p = _run(t, "compact", "--json", "--work-dir", work, prefix=nobody, code=DENIED)
    assert "v2" in p.stderr, p.stderr
    said = {k["version"]: k for k in json.loads(p.stdout)["keys"]}
    assert said["v1"]["folded"] == 4 and said["v3"]["folded"] == 4, said
    assert [len(_bases(t, v)) for v in ("v1", "v2", "v3")] == [1, 0, 1]
    assert os.listdir(work) == []


# ---- killed ----

def _kill_at_every_step(t, args, check, done):
    """SIGKILL before the 1st, 2nd, ... step of `warmcache *args` on the store as _keep() has kept
    it, until a run gets through. check(what) looks at what a kill left; then the same is run again,
    and done(what) looks. A step changes a file, or waits for a server."""
    step, n = "poll" if _remote(t) else "fs", 0
    while n < 3000:
        # Waits aren't always as many.
        n = _next(t, n) if _remote(t) else n + (1 if not t.quick or n < 3 else 1 + n % 7)
        _restore_store(t)
        work = t.fresh("kill")
        what = "%s killed at step %d" % (args[0], n)
        more = ["--work-dir", work] if args[0] == "compact" else []
        p = _run(t, *args, *more, env=_env(t, "kill:%s:%d" % (step, n)), code=None)
        check(what)
        if p.returncode != KILLED:
            assert p.returncode == 0, (what, p)
            done(what + ", not at all")
            assert n > 8, "only %d steps: the faults don't arrive" % n
            return
        p = _run(t, *args, *more)
        done(what + ", then run again")
        shutil.rmtree(work)
    raise AssertionError("never got through")


def compact_killed_at_every_step_of_making_a_base_loses_nothing(t):
    tree = Tree([flashinfer_group("k", 300), inductor_file("k", 300), fxgraph_file("k", 300),
                 other_file("k", 300)])
    _push_parts(t, tree)
    _keep(t)

    def done(what):
        assert len(_bases(t)) == 1, what
        _restored(t, tree, what)
        _delete_covered(t)
        assert len(layer.objects(t.store)) == 1, what
        _restored(t, tree, what + ", then deleted")
    _kill_at_every_step(t, ["compact"], lambda what: _restored(t, tree, what), done)


def compact_killed_at_every_step_of_deleting_loses_nothing(t):
    tree = Tree([triton_group("k", 300), flashinfer_group("k", 300), inductor_file("k", 300)] +
                [fxgraph_file("k%d" % i, 300) for i in range(5)])
    _push_parts(t, tree, 8)
    _compact(t)
    _age(t)
    _keep(t)

    def done(what):
        assert len(layer.objects(t.store)) == 1, what
        _restored(t, tree, what)
    _kill_at_every_step(t, ["compact"], lambda what: _restored(t, tree, what), done)


def gc_killed_at_every_step_leaves_whole_groups_and_the_next_finishes(t):
    tree = Tree([triton_group("g", 300), flashinfer_group("g", 300), inductor_file("g", 300),
                 fxgraph_file("g", 300), {"own/mark": b"marked"}])
    other = Tree([fxgraph_file("stays"), {"own/mark": b"marked"}])
    for version in ("v1", "v2"):
        _push_parts(t, Tree(tree.groups[:4]), version=version)
        _make(t, version, days=1, complete="", files=tree.groups[4])
        _compact(t)
    _push(t, Tree(other.groups[:1]), version="v3")
    _make(t, "v3", days=1, complete="", files=other.groups[1])
    _age(t)
    _keep(t)

    def check(what):
        for version in ("v1", "v2"):
            t.clear()
            r = t.init("--fallback=none", version=version)
            there = check_whole(t.volume, tree, what)
            assert r.code == 0 and r.status in ("warm", "cold"), (what, r)
            assert (r.status == "cold") == (there == 0), (what, r)
            assert not r.json["complete"] or there == len(tree.groups), (what, there, r)
        _restored(t, other, what, version="v3")

    def done(what):
        assert len(layer.objects(t.store)) == len(_layers(t, "v3")) == 2, what
        _restored(t, other, what, version="v3")
        assert _gc(t, "--keep=1") == ({}, {}, 0), what
    _kill_at_every_step(t, ["gc", "--keep=1", "--delete"], check, done)


# ---- at once ----

class _Reader(threading.Thread):
    """Restores over and over; each must hold what was there for certain when it began."""

    def __init__(self, t, tree, certain, sure_s, generation=None, **kw):
        super().__init__(daemon=True)
        self._t, self._tree, self._certain, self._sure_s, self._kw = t, tree, certain, sure_s, kw
        self._volume, self._generation = t.fresh("reader"), generation
        self.ending, self.failures, self.restores, self.slow = False, Failures(), 0, 0

    def run(self):
        while not self.ending and len(self.failures.noted) < 3:
            with self.failures:
                try:
                    self._restore()
                except Exception as e:
                    assert isinstance(e, AssertionError), repr(e)
                    raise

    def _restore(self):
        self._t.clear(self._volume)
        certain = list(self._certain)
        generation = self._generation[0] if self._generation else 0
        r = self._t.init("--fallback=none", volume=self._volume, **self._kw)
        assert r.code == 0, r
        path, = best_config("gen")
        check_whole(self._volume, self._tree, "a reader", [path])
        have = snapshot(self._volume)
        self.restores += 1
        if r.took > self._sure_s:  # nobody promises anything to who takes that long
            self.slow += 1
            return
        missing = [g for g in certain if not all(p in have for p in g)]
        assert not missing, "%d of %d groups are missing: %s" % (len(missing), len(certain), r)
        if certain:
            assert r.status == "warm", r
        if generation:
            got = json.loads(have[path])["n"]
            assert got >= generation, "generation %d, not %d: %s" % (got, generation, r)

    def end(self):
        self.ending = True
        self.join(120)
        self.failures.tell()


def _publish_killed_or_not(t, start, groups, n):
    """start(line) ends killed or with 0, which is returned."""
    volume = tempfile.mkdtemp(dir=t.tmp, prefix="push.")
    path, = best_config("gen")
    Tree(groups + [{path: b'{"n": %d}' % n}]).write(volume)
    code = start(_line(t, "push", volume, "--mount", t.volume, "--model=m", "--version=v1"))
    shutil.rmtree(volume)
    return code


def kills_at_random_moments_lose_nothing_while_others_read(t):
    """Publishing, compacting, deleting and gc are killed over and over, beside readers."""
    rounds = 30 if t.quick else 200
    sure_s = 4
    groups = [inductor_file("q%d" % i, 400) for i in range(rounds)] + \
        [flashinfer_group("q%d" % i, 200) for i in range(rounds // 4)]
    tree = Tree(groups)
    t.random.shuffle(groups)
    certain, generation = [], [0]
    compact = ["compact", "--delete-after=%ds" % sure_s, "--min-layers=3", "--work-dir",
               t.dir("work")]
    collect = ["gc", "--older-than=30d", "--delete"]
    took = {"push": 0.05, "compact": 0.1, "gc": 0.05}
    killed = {"push": 0, "compact": 0, "gc": 0}

    def start(line, kill):
        begin = time.monotonic()
        p = subprocess.Popen(line, env=_env(t), stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if kill:
            time.sleep(t.random.uniform(0, 1.2 * took[line[1]]))
            p.kill()
        err = p.communicate(timeout=60)[1]
        t.look()
        assert p.returncode in (0, KILLED), (line, p.returncode, err)
        if p.returncode == KILLED:
            killed[line[1]] += 1
        elif not kill:
            took[line[1]] = time.monotonic() - begin
        return p.returncode

    def publish(kill):
        generation_now = generation[0] + 1 + sum(killed.values())
        some = [groups.pop() for _ in range(2)]  # mutable files ride along with what is new
        if _publish_killed_or_not(t, lambda line: start(line, kill), some, generation_now) == 0:
            certain.extend(some)
            generation[0] = generation_now

    def discard(kill):
        _make(t, "w%d" % n, days=90, model="old")
        start(_line(t, *collect), kill)

    steps = [publish, lambda kill: start(_line(t, *compact), kill), discard]
    n = -1
    for step in steps:
        step(False)
    readers = [_Reader(t, tree, certain, sure_s - 1, generation) for _ in range(2)]
    for r in readers:
        r.start()
    try:
        most = 0
        for n in range(rounds):
            steps[t.random.choice([0, 0, 1, 1, 1, 2])](n % 5 != 4)
            most = max(most, len(_layers(t)))
    finally:
        for r in readers:
            r.end()
    assert sum(r.restores for r in readers) > rounds // 8, "the readers were kept from reading"
    assert all(killed.values()) or t.quick, killed
    t.clear()
    r = t.init("--fallback=none")
    path, = best_config("gen")
    assert r.status == "warm" and check_whole(t.volume, tree, foreign=[path]) >= len(certain), r
    _run(t, *collect)
    assert not _layers(t, "w", "old") and not glob.glob(t.path("store", "old", "*", "*", "*"))
    _compact(t, "--min-layers=2")
    _delete_covered(t, "--min-layers=2")
    assert len(_layers(t)) == 1, _layers(t)
    check_whole(t.volume, tree, foreign=[path])


def two_compactors_at_once_lose_nothing(t):
    tree = Tree([triton_group("w", 300), flashinfer_group("w", 300)] +
                [fxgraph_file("w%d" % i, 500) for i in range(6)])
    _push_parts(t, tree, 8)
    _keep(t)
    refused = 0
    for n in range(6 if t.quick else 25):
        _restore_store(t)
        for again in range(3):
            running = []
            for _ in range(2):
                work = tempfile.mkdtemp(dir=t.tmp, prefix="work.")
                running.append(subprocess.Popen(
                    _line(t, "compact", "--min-layers=2", "--delete-after=1ms", "--work-dir", work),
                    env=_env(t), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
                time.sleep(t.random.uniform(0, 0.03))
            for p in running:
                err = p.communicate(timeout=60)[1]
                # Within a millisecond the one may delete what the other reads, and it says so.
                assert p.returncode == 0 or err, p.returncode
                assert p.returncode >= 0, (p.returncode, err)
                refused += p.returncode != 0
            t.look()
            _restored(t, tree, "round %d.%d" % (n, again))
        for _ in range(2):
            _compact(t, "--min-layers=2")
            _delete_covered(t, "--min-layers=2")
        assert len(layer.objects(t.store)) == 1, n
        _restored(t, tree, "round %d, at last" % n)


def two_compactors_at_once_with_an_hour_between_base_and_deletion_both_succeed(t):
    tree = Tree([fxgraph_file("w%d" % i, 500) for i in range(6)])
    _push_parts(t, tree, 6)
    _keep(t)
    for n in range(4 if t.quick else 15):
        _restore_store(t)
        for again in range(3):
            running = []
            for _ in range(2):
                work = tempfile.mkdtemp(dir=t.tmp, prefix="work.")
                running.append(subprocess.Popen(
                    _line(t, "compact", "--min-layers=2", "--work-dir", work), env=_env(t),
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
                time.sleep(t.random.uniform(0, 0.02))
            for p in running:
                err = p.communicate(timeout=60)[1]
                assert p.returncode == 0, (n, again, err)
            t.look()
            _restored(t, tree, "round %d.%d" % (n, again))
            _age(t)
        for _ in range(2):
            _compact(t, "--min-layers=2")
            _age(t)
        _compact(t, "--min-layers=2")
        assert len(layer.objects(t.store)) == 1, n


def a_compactor_and_a_publisher_at_once_lose_nothing(t):
    tree = Tree([fxgraph_file("p%d" % i, 500) for i in range(12 if t.quick else 40)])
    stop = threading.Event()
    failures, runs = Failures(), []

    def compact():
        while not stop.is_set():
            with failures:
                if os.path.exists(t.store):
                    _compact(t, "--min-layers=2", *_sooner(t))
                    runs.append(1)
    thread = threading.Thread(target=compact, daemon=True)
    thread.start()
    try:
        for i in range(0, len(tree.groups), 2):
            _push(t, Tree(tree.groups[i:i + 2]))
            if i % 8 == 0:
                _restored(t, Tree(tree.groups[:i + 2]), "after %d" % i)
    finally:
        stop.set()
        thread.join(60)
    failures.tell()
    assert runs, "the compactor never ran"
    _restored(t, tree, "at last")
    for _ in range(2):
        _compact(t, "--min-layers=2")
        _delete_covered(t, "--min-layers=2")
    assert len(layer.objects(t.store)) == 1
    _restored(t, tree, "as one")


def _sooner(t):
    """A base may have what it covers deleted at once, but no restore may be under way for longer
    than that: 2 s."""
    return ["--delete-after=2s"]


def _stopped(t, line, at, step):
    """A program, stopped before its nth step: (process, whether it was stopped)."""
    p = subprocess.Popen(line, env=_env(t, "stop:%s:%d" % ("poll" if _remote(t) else step, at)),
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    t.undo(servers.stop, p)
    status = os.waitpid(p.pid, os.WUNTRACED)[1]
    if os.WIFSTOPPED(status):
        return p, True
    p.returncode = os.waitstatus_to_exitcode(status)
    p.stderr.close()
    return p, False


def _goes_on(t, p):
    """Its exit code and what it said."""
    os.kill(p.pid, signal.SIGCONT)
    err = p.communicate(timeout=60)[1].decode()
    t.look()
    t.written.append(err)
    return p.returncode, err


def _stopped_init(t, at):
    return _stopped(t, [os.path.join(t.bin, "warmcache-init"), "--fallback=none"] +
                    t.target(None, None, "m", "v1") + ["--result", t.path("stopped.result")], at,
                    "open")


def _init_goes_on(t, p):
    code, err = _goes_on(t, p)
    assert code == 0, err
    with open(t.path("stopped.result")) as f:
        said = json.load(f)
    os.unlink(t.path("stopped.result"))
    return said


def _steps_of_init(t):
    if _remote(t):
        return 40 if _ages(t) else 15
    t.clear()
    t.init("--fallback=none", env=t.env(WARM_FAULT_COUNT=t.path("count")))
    return counts(t.path("count"))["open"]


def a_reader_that_is_overtaken_by_a_compaction_ends_warm(t):
    """Stopped anywhere, while all layers that it listed become a base and go."""
    tree = Tree([triton_group("s", 300), flashinfer_group("s", 300)] +
                [fxgraph_file("s%d" % i, 500) for i in range(3)])
    _push_parts(t, tree)
    _keep(t)
    failures, reached = Failures(), 0
    for n in sweep(_steps_of_init(t), t.quick, 10 if t.quick else 40):
        _restore_store(t)
        t.clear()
        p, stopped = _stopped_init(t, n)
        if not stopped:
            break
        reached += 1
        _compact(t)
        _delete_covered(t)
        assert len(layer.objects(t.store)) == 1
        said = _init_goes_on(t, p)
        with failures:
            assert said["status"] == "warm", (n, said)
            assert check_whole(t.volume, tree, "stopped at %d" % n) == len(tree.groups), (n, said)
    failures.tell()
    assert reached > 8, "only %d steps" % reached


def a_reader_that_is_overtaken_by_gc_gets_whole_groups(t):
    tree = Tree([triton_group("s", 300), flashinfer_group("s", 300)] +
                [fxgraph_file("s%d" % i, 500) for i in range(3)])
    _push_parts(t, tree)
    _age(t)
    _keep(t)
    failures, reached = Failures(), 0
    for n in sweep(_steps_of_init(t), t.quick, 10 if t.quick else 40):
        _restore_store(t)
        t.clear()
        p, stopped = _stopped_init(t, n)
        if not stopped:
            break
        reached += 1
        _run(t, "gc", "--model=m", "--version=v1", "--delete")
        assert layer.objects(t.store) == []
        said = _init_goes_on(t, p)
        with failures:
            there = check_whole(t.volume, tree, "stopped at %d" % n)
            # Of a list that is many requests, what it has at the last of them is all.
            assert said["status"] != "warm" or there == len(tree.groups) or not _ages(t), (n, said)
    failures.tell()
    assert reached > 8, "only %d steps" % reached


def _next(t, at):
    """The step to try after this one: all of the first, then fewer and fewer."""
    if t.quick or _remote(t):
        return at + 1 + t.random.randrange(1 + at // 3)
    return at + 1 + at // 15


def _overtaken(t, make_line, overtake, check):
    """A program that works on the store of _keep(), stopped before any of its steps while others
    do theirs. check(what, code) when it has ended."""
    reached, at = 0, 0
    while at < 3000:
        at = _next(t, at)
        _restore_store(t)
        p, stopped = _stopped(t, make_line(), at, "any")
        if not stopped:
            break
        reached += 1
        what = "stopped at step %d" % at
        overtake(what)
        code, err = _goes_on(t, p)
        assert code >= 0 and (code == 0 or err), (what, code, err)
        check(what, code)
    assert reached > 3, "only %d steps" % reached


def a_layer_that_is_put_while_a_base_is_made_isn_t_lost(t):
    """Nor one of an older id, by a writer whose clock is slow."""
    tree = Tree([fxgraph_file("o%d" % i, 500) for i in range(4)])
    late = Tree([fxgraph_file("late", 500), {"own/slow.bin": b"slow"}])
    _push_parts(t, tree)
    _keep(t)

    def overtake(what):
        _push(t, Tree(late.groups[:1]))
        _make(t, days=20, files=late.groups[1])

    def check(what, code):
        assert code == 0, what
        _restored(t, tree + late, what)
        for _ in range(2):
            _delete_covered(t, "--min-layers=2")
        _restored(t, tree + late, what + ", then compacted again")
        if _ages(t):
            _delete_covered(t, "--min-layers=2")
            assert len(layer.objects(t.store)) == 1, what
            _restored(t, tree + late, what + ", as one")
    _overtaken(t, lambda: _line(t, "compact", "--work-dir", t.dir("work")), overtake, check)


def a_publisher_that_is_overtaken_by_a_compaction_loses_nothing(t):
    tree = Tree([fxgraph_file("o%d" % i, 500) for i in range(4)])
    more = Tree([fxgraph_file("more%d" % i, 500) for i in range(2)] + tree.groups[:2])
    volume = t.dir("model")
    more.write(volume)
    _push_parts(t, tree)
    _keep(t)
    every = tree + Tree(more.groups[:2])

    def overtake(what):
        _compact(t)
        _delete_covered(t)

    def check(what, code):
        assert code == 0, what
        _restored(t, every, what)
        for _ in range(2):
            _delete_covered(t, "--min-layers=2")
        _restored(t, every, what + ", then compacted again")
    _overtaken(t, lambda: _line(t, "push", volume, "--model=m", "--version=v1"), overtake, check)


def a_compactor_that_is_overtaken_by_another_loses_nothing(t):
    """The other makes its base, and deletes as if an hour had passed."""
    tree = Tree([triton_group("o", 300), flashinfer_group("o", 300)] +
                [fxgraph_file("o%d" % i, 500) for i in range(4)])
    _push_parts(t, tree)
    _keep(t)

    def overtake(what):
        _compact(t)
        _restored(t, tree, what)
        _delete_covered(t)
        _restored(t, tree, what + ", deleted")

    def check(what, code):
        _restored(t, tree, what + ", gone on")
        for _ in range(2):
            _delete_covered(t, "--min-layers=2")
        assert len(layer.objects(t.store)) == 1, what
        _restored(t, tree, what + ", as one")
    _overtaken(t, lambda: _line(t, "compact", "--work-dir", t.dir("work")), overtake, check)


def a_compactor_that_is_overtaken_by_gc_brings_back_whole_groups_at_most(t):
    tree = Tree([flashinfer_group("o", 300)] + [fxgraph_file("o%d" % i, 500) for i in range(3)])
    _push_parts(t, tree)
    _age(t)
    _keep(t)

    def check(what, code):
        t.clear()
        r = t.init("--fallback=none")
        assert r.code == 0 and r.status in ("warm", "cold"), (what, r)
        check_whole(t.volume, tree, what)
        p = _run(t, "gc", "--model=m", "--version=v1", "--delete", code=None)
        assert p.returncode in (0, NOT_FOUND) and layer.objects(t.store) == [], (what, p)
    _overtaken(t, lambda: _line(t, "compact", "--work-dir", t.dir("work")),
               lambda what: _run(t, "gc", "--model=m", "--version=v1", "--delete"), check)


# ---- garbage ----

def gc_without_delete_touches_nothing(t):
    for i in range(5):
        _make(t, "v%d" % i, days=100 - i)
    temp = os.path.join(t.store, "m", "v1", MACHINE, ".tmp-0123456789abcdef")
    with open(temp, "w") as f:
        f.write("x")
    os.utime(temp, (time.time() - 3 * DAY,) * 2)
    files = _all_files(t.store)
    every = [["--older-than=30d"], ["--keep=1"], ["--max-total=1"], ["--model=m", "--version=v1"],
             []]
    for args in every:
        goes, _, uploads = _gc(t, *args)
        assert len(goes) == [5, 4, 5, 1, 0][every.index(args)], (args, goes)
        if not _remote(t):
            assert uploads == 1, (args, uploads)
        p = _run(t, "gc", *args)
        assert all(key[1] in p.stdout for key in goes), (args, p.stdout)
        assert _all_files(t.store) == files, args


def gc_deletes_versions_that_are_too_old(t):
    _make(t, "v1", days=100, complete="")
    _make(t, "v2", days=50, complete="")
    _make(t, "v3", days=40)
    _make(t, "v4", days=29)
    left = _layers(t, "v2") + _layers(t, "v4")
    for delete in ([], ["--delete"]):
        goes, stays, _ = _gc(t, "--older-than=30d", *delete)
        assert goes == {("m", "v1"): "age", ("m", "v3"): "age"}, goes
        assert stays == {("m", "v2"): "newest complete"}, stays
    assert layer.objects(t.store) == sorted(left)
    goes, stays, _ = _gc(t, "--older-than=1h", "--delete")
    assert goes == {("m", "v4"): "age"} and ("m", "v2") in stays, (goes, stays)
    said = json.loads(_run(t, "ls", "--json").stdout)["keys"]
    assert [k["version"] for k in said] == ["v2"], said


def a_version_is_as_old_as_its_newest_layer(t):
    for days in (90, 80, 10):
        _make(t, "v1", days=days)
    for days in (90, 80, 40):
        _make(t, "v2", days=days)
    said = json.loads(_run(t, "gc", "--older-than=30d", "--delete", "--json").stdout)
    gone, = said["versions"]
    assert (gone["version"], gone["layers"], gone["platform"]) == ("v2", 3, MACHINE), said
    assert len(layer.objects(t.store)) == len(_layers(t, "v1")) == 3


def gc_keeps_the_newest_versions_of_each_model_and_platform(t):
    for i in range(1, 6):
        _make(t, "v%d" % i, days=100 - i, complete="" if i == 2 else None)
        _make(t, "v%d" % i, days=50 - i, platform="riscv64")
        _make(t, "v%d" % i, days=10 + i, model="n")  # there the names run the other way
    _make(t, "single", days=300, model="o")
    goes, stays, _ = _gc(t, "--keep=2", "--delete")
    assert goes == {k: "count" for k in [
        ("m", "v1"), ("m", "v3"), ("m", "v1", "riscv64"), ("m", "v2", "riscv64"),
        ("m", "v3", "riscv64"), ("n", "v3"), ("n", "v4"), ("n", "v5")]}, goes
    assert stays == {("m", "v2"): "newest complete"}, stays
    assert len(layer.objects(t.store)) == 8
    assert _gc(t, "--keep=2", "--delete")[0] == {}


def gc_deletes_the_oldest_versions_until_the_rest_is_small_enough(t):
    paths = {}
    for i, days in enumerate([50, 40, 30, 20, 10]):
        paths["m", "v%d" % i] = _make(t, "v%d" % i, days=days, bytes=20000,
                                      complete="" if i == 0 else None)
        paths["n", "v%d" % i] = _make(t, "v%d" % i, days=days - 5, bytes=20000, model="n")
    sizes = {k: os.path.getsize(p) for k, p in paths.items()}
    order = sorted(paths, key=lambda k: k[1] + k[0])  # oldest first
    total = sum(sizes.values())
    assert _gc(t, "--max-total=%d" % total) == ({}, {}, 0)
    goes, stays, _ = _gc(t, "--max-total=%d" % (total - 1))
    assert goes == {order[1]: "size"} and stays == {order[0]: "newest complete"}, (goes, stays)
    # What is protected takes room as well.
    limit = sum(sizes[k] for k in order[7:]) + sizes[order[0]]
    goes, stays, _ = _gc(t, "--max-total=%d" % limit, "--delete")
    assert goes == {k: "size" for k in order[1:7]}, goes
    assert layer.objects(t.store) == sorted([paths[order[0]]] + [paths[k] for k in order[7:]])
    goes, stays, _ = _gc(t, "--max-total=1", "--delete")
    assert set(goes) == set(order[7:]) and stays == {order[0]: "newest complete"}, (goes, stays)


def max_total_takes_sizes_with_units(t):
    for i in range(4):
        _make(t, "v%d" % i, days=50 - i, bytes=700 << 10)
    goes, _, _ = _gc(t, "--max-total=2M", "--delete")
    assert goes == {("m", "v0"): "size", ("m", "v1"): "size"} and len(layer.objects(t.store)) == 2


def young_versions_are_kept_by_the_store_s_clock(t):
    """A layer's id may say anything: a writer's clock was wrong, or it is a copy."""
    _make(t, "v1", days=90, young=True)
    _make(t, "v2", days=80)
    _make(t, "v2", days=90, young=True)
    _make(t, "v3", days=70)
    for rule in ("--older-than=30d", "--keep=1", "--max-total=1"):
        goes, stays, _ = _gc(t, rule)
        assert set(stays) == {("m", "v1"), ("m", "v2")} and set(stays.values()) == {"young"}, stays
        assert set(goes) == (set() if "keep" in rule else {("m", "v3")}), (rule, goes)
    for path in layer.objects(t.store):
        os.utime(path, (time.time() - HOUR + 120,) * 2)
    assert _gc(t, "--older-than=30d", "--delete")[0] == {}
    _age(t, HOUR + 120)
    goes, stays, _ = _gc(t, "--older-than=30d", "--delete")
    assert len(goes) == 3 and not stays and layer.objects(t.store) == [], (goes, stays)


def a_version_that_is_named_goes_whatever_it_is(t):
    for platform in (MACHINE, "riscv64"):
        _make(t, "v1", days=5, complete="", platform=platform, young=True)
        _make(t, "v2", days=50, platform=platform)
    _make(t, "v1", days=5, complete="", model="n")
    args = ["--model=m", "--version=v1"]
    goes, stays, _ = _gc(t, *args, "--platform=riscv64", "--delete")
    assert goes == {("m", "v1", "riscv64"): "name"} and not stays, (goes, stays)
    assert len(layer.objects(t.store)) == 4
    goes, stays, _ = _gc(t, *args)
    assert goes == {("m", "v1"): "name"} and not stays, (goes, stays)
    _make(t, "v1", days=4, complete="", platform="riscv64", young=True)
    goes, stays, _ = _gc(t, *args, "--delete")
    assert goes == {("m", "v1"): "name", ("m", "v1", "riscv64"): "name"} and not stays, goes
    left = [os.path.relpath(p, t.store).split("/")[:3] for p in layer.objects(t.store)]
    assert left == [["m", "v2", "riscv64"], ["m", "v2", MACHINE], ["n", "v1", MACHINE]], left
    t.clear()
    r = t.init("--fallback=none")
    assert r.status == "cold", r


def gc_of_one_model_leaves_the_others(t):
    for model in ("m", "n", "mm"):
        for i in range(3):
            _make(t, "v%d" % i, days=90 - i, model=model)
    goes, _, _ = _gc(t, "--model=m", "--older-than=30d", "--delete")
    assert set(goes) == {("m", "v0"), ("m", "v1"), ("m", "v2")}, goes
    assert len(layer.objects(t.store)) == 6
    goes, _, _ = _gc(t, "--model=n", "--keep=1", "--delete")
    assert set(goes) == {("n", "v0"), ("n", "v1")}, goes
    limit = os.path.getsize(_layers(t, "v2", "mm")[0]) + 10
    goes, _, _ = _gc(t, "--model=mm", "--max-total=%d" % limit, "--delete")
    assert set(goes) == {("mm", "v0"), ("mm", "v1")}, goes
    assert len(layer.objects(t.store)) == 2


def gc_of_one_platform_leaves_the_others(t):
    """Or refuses to: what was to be spared mustn't go."""
    for platform in (MACHINE, "riscv64"):
        for i in range(3):
            _make(t, "v%d" % i, days=90 - i, platform=platform)
    for rule in ("--older-than=30d", "--keep=1", "--max-total=1"):
        p = _run(t, "gc", "--model=m", "--platform=riscv64", rule, "--delete", code=None)
        assert p.returncode in (0, INVALID), p
        left = [p for p in layer.objects(t.store) if "/riscv64/" not in p]
        assert len(left) == 3, "%s: of other platforms %d are left" % (rule, len(left))


def a_version_of_the_environment_is_not_meant(t):
    """gc to sweep uploads, typed in a pod: there WARM_VERSION names the version that is served."""
    _make(t, "v1", days=3, complete="")
    for more in ([], ["--older-than=30d"]):
        _run(t, "gc", "--delete", *more, env=_env(t, WARM_MODEL="m", WARM_VERSION="v1"), code=None)
        assert len(layer.objects(t.store)) == 1, more


def a_version_that_is_published_into_while_gc_runs_keeps_the_new_layer(t):
    """Wherever gc is then: what was put a moment ago is young."""
    for i in range(3):
        _make(t, "v1", days=90 + i)
    _make(t, "v2", days=10)
    _keep(t)
    new = Tree([fxgraph_file("new", 500)])
    put = []

    def overtake(what):
        before = set(_layers(t))
        _push(t, new)
        put[:] = sorted(set(_layers(t)) - before)
        assert len(put) == 1, what

    def check(what, code):
        assert code == 0 and os.path.exists(put[0]), (what, code)
        r = _restored(t, new, what) if len(_layers(t)) == 1 else None
        assert r or len(_layers(t)) <= 4, what
    _overtaken(t, lambda: _line(t, "gc", "--older-than=30d", "--delete"), overtake, check)


def the_newest_complete_version_of_each_model_and_platform_stays(t):
    _make(t, "v1", days=100, complete="template-1")
    _make(t, "v2", days=90, complete="")
    _make(t, "v2", days=89)  # a later layer without the mark
    _make(t, "v3", days=80)
    _make(t, "v1", days=95, complete="", platform="riscv64")
    _make(t, "v1", days=99, model="n")
    _make(t, "v1", days=99, complete="", model="o")
    for i in range(4):  # a base carries the mark on
        _make(t, "v0", days=300 + i, model="p", complete="" if i == 3 else None)
    _compact(t, "--model=p")
    _age(t)
    _compact(t, "--model=p")
    _age(t)
    assert len(_bases(t, "v0", "p")) == 1 == len(_layers(t, "v0", "p"))
    goes, stays, _ = _gc(t, "--max-total=1", "--delete")
    assert set(goes) == {("m", "v1"), ("m", "v3"), ("n", "v1")}, goes
    assert stays == {("m", "v2"): "newest complete", ("m", "v1", "riscv64"): "newest complete",
                     ("o", "v1"): "newest complete", ("p", "v0"): "newest complete"}, stays
    assert len(layer.objects(t.store)) == 5


def a_mark_that_can_t_be_read_protects_nothing_and_its_version_stays_or_goes_whole(t):
    """A corrupt layer counts for its version's age and size; gc goes on."""
    bad = _make(t, "v1", days=90, complete="")
    _flip(t, bad, -3)
    _make(t, "v2", days=80, complete="")
    goes, stays, _ = _gc(t, "--older-than=30d", "--delete")
    assert stays == {("m", "v2"): "newest complete"} and goes == {("m", "v1"): "age"}, (goes, stays)
    assert layer.objects(t.store) == _layers(t, "v2")


def the_empty_version_is_a_version_like_others(t):
    _make(t, "", days=90)
    _make(t, "v1", days=80)
    _make(t, "v2", days=10)
    goes, _, _ = _gc(t, "--older-than=30d")
    assert goes == {("m", ""): "age", ("m", "v1"): "age"}, goes
    goes, _, _ = _gc(t, "--keep=2", "--delete")
    assert goes == {("m", ""): "count"} and len(layer.objects(t.store)) == 2, goes


def rules_add_up(t):
    for i in range(1, 7):
        _make(t, "v%d" % i, days=100 - 15 * i, bytes=20000)  # 85, 70, 55, 40, 25, 10
    size = os.path.getsize(_layers(t, "v6")[0])
    goes, _, _ = _gc(t, "--older-than=60d", "--keep=3", "--max-total=%d" % (2 * size + 100))
    assert {v: r for (_, v), r in goes.items()}.keys() == {"v1", "v2", "v3", "v4"}, goes
    assert goes["m", "v3"] == "count" and goes["m", "v4"] == "size", goes
    goes, _, _ = _gc(t, "--older-than=60d", "--keep=5", "--delete")
    assert set(goes) == {("m", "v1"), ("m", "v2")} and len(layer.objects(t.store)) == 4, goes


def gc_leaves_what_is_no_layer(t):
    path = _make(t, "v1", days=90)
    where = os.path.dirname(path)
    name = os.path.basename(path)
    foreign = ["head", "m/head", "README", "m/v1/notes.txt", ".git/config", "m/.keep",
               os.path.join(os.path.relpath(where, t.store), "X" + name),
               os.path.join(os.path.relpath(where, t.store), name + ".part"),
               "m/v1/%s/deeper/%s" % (MACHINE, name), "other/%s" % name]
    for one in foreign:
        full = os.path.join(t.store, one)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as f:
            f.write("mine")
        os.utime(full, (time.time() - 300 * DAY,) * 2)
    _gc(t, "--older-than=1h", "--keep=1", "--max-total=1", "--delete")
    _run(t, "gc", "--model=m", "--version=v1", "--delete", code=None)
    left = {p for p in _all_files(t.store) if not p.startswith(".sgwtmp")}
    assert left == set(foreign), left ^ set(foreign)


def bad_usage_of_gc_is_refused(t):
    _make(t, "v1", days=90)
    files = _all_files(t.store)
    for args in (["--version=v1"], ["--older-than=old"], ["--keep=some"], ["--max-total=big"],
                 ["--keep=-1"], ["--older-than=-1d"],
                 ["--uploads-older-than=x"]):
        p = _run(t, "gc", "--delete", *args, code=INVALID)
        assert p.stderr, args
    p = _run(t, "gc", "--delete", "--model=m", "--version=v7", code=None)
    assert p.returncode in (0, NOT_FOUND), p
    assert _all_files(t.store) == files


def gc_deletes_temporary_files_of_writers_that_died(t):
    """Where files can't be without a name: ended by a kill between writing and the rename."""
    tree = Tree([fxgraph_file("x", 3000)])
    volume = t.fresh("model")
    tree.write(volume)
    _make(t, "v1", days=90, complete="")
    _run(t, "push", volume, "--model=m", "--version=v2", code=KILLED,
         env=_env(t, "fail:rename:1:22,kill:rename:2"))
    temp, = glob.glob(t.path("store", "m", "v2", MACHINE, ".tmp-*"))
    at_top = t.path("store", ".tmp-0123456789abcdef")  # a clock's
    foreign = t.path("store", "m", "v2", MACHINE, ".nfs0001")
    for path in (at_top, foreign):
        with open(path, "w"):
            pass
    os.utime(foreign, (time.time() - 9 * DAY,) * 2)

    def there():
        return [os.path.exists(p) for p in (temp, at_top, foreign)]
    assert _gc(t, "--delete")[2] == 0 and there() == [True, True, True], "not before a day"
    for path in (temp, at_top):
        os.utime(path, (time.time() - DAY + 300,) * 2)
    assert _gc(t, "--delete")[2] == 0 and there() == [True, True, True], "not before a day"
    for path in (temp, at_top):
        os.utime(path, (time.time() - DAY - 300,) * 2)
    assert _gc(t)[2] == 2 and there() == [True, True, True], "not without --delete"
    assert _gc(t, "--delete")[2] == 2 and there() == [False, False, True]
    assert len(layer.objects(t.store)) == 1
    with open(at_top, "w"):
        pass
    os.utime(at_top, (time.time() - 600,) * 2)
    assert _gc(t, "--delete", "--uploads-older-than=1h")[2] == 0 and os.path.exists(at_top)
    assert _gc(t, "--delete", "--uploads-older-than=5m")[2] == 1 and not os.path.exists(at_top)


def _s3_gc(t, server, prefix, *args):
    said = json.loads(t.run("gc", "--store", server.url(prefix), "--json", *args,
                            env=t.env(HOME=t.dir("home"), **server.keys())).stdout)
    return said["uploads"]


def gc_ends_multipart_uploads_that_were_abandoned(t):
    server = servers.S3(t)
    name = "m/v1/%s/L-1700000000000-%016x-99-%s.tar.zst" % (MACHINE, 7, "0" * 64)
    for key in ("team/" + name, "team/n/" + name[2:], "other/" + name, "team2/" + name):
        server.aws("s3api", "create-multipart-upload", "--bucket", server.bucket, "--key", key)
    assert len(server.uploads()) == 4
    assert _s3_gc(t, server, "team", "--delete") == 0
    assert len(server.uploads()) == 4, "not for a day"
    time.sleep(2.1)
    assert _s3_gc(t, server, "team", "--uploads-older-than=1s") == 2
    assert len(server.uploads()) == 4, "not without --delete"
    assert _s3_gc(t, server, "team", "--uploads-older-than=1s", "--delete") == 2
    left = sorted(u["Key"] for u in server.uploads())
    assert left == ["other/" + name, "team2/" + name], left
    assert _s3_gc(t, server, "team", "--uploads-older-than=1s", "--delete") == 0


def gc_ends_the_multipart_upload_of_a_publisher_that_was_killed(t):
    server = servers.S3(t)
    proxy = servers.Toxiproxy(t, "127.0.0.1:%d" % server.port)
    proxy.add("bandwidth", "upstream", rate=3000)
    Tree([{"own/big.bin": blob("big", 14 << 20)}]).write(t.volume)
    env = t.env(HOME=t.dir("home"), TMPDIR=t.dir("tmp"), **server.keys())
    p = Sidecar([os.path.join(t.bin, "warmcache"), "push", t.volume, "--store",
                 server.url("team", endpoint=proxy.endpoint, multipart="5M"), "--model=m",
                 "--version=v1"], env)
    t.undo(p.kill)
    parts = os.path.join(server.bucket_dir, ".sgwtmp", "multipart", "*", "*")
    wait_until("an upload has begun", lambda: glob.glob(parts) or p.process.poll() is not None)
    p.kill()
    assert len(server.uploads()) == 1, p.log
    time.sleep(1.1)
    assert _s3_gc(t, server, "team", "--uploads-older-than=1s", "--delete") == 1
    assert server.uploads() == []
