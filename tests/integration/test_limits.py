# SPDX-License-Identifier: Apache-2.0
"""Bad input of every kind: after each, nothing outside the volume was touched, no torn file or
group is in it, the exit code is right, and the model starts cold."""

import os
import struct

import layer
from support import (CORRUPT, DENIED, INVALID, LIMIT, NOT_FOUND, NO_SPACE, Failures, Tree, blob,
                     check_store, check_whole, flashinfer_group, fxgraph_file, inductor_file,
                     other_file, small_tree, snapshot, triton_group)


def _fails_open(t, codes, *args, tree=Tree([]), volume=None, **kw):
    """Exit 0 without --require, one of `codes` with it, and whole groups only."""
    codes = codes if isinstance(codes, tuple) else (codes,)
    r = t.init(*args, volume=volume, **kw)
    assert r.code == 0 and r.status != "warm" and r.json["reason"], r
    if os.path.isdir(volume or t.volume):
        check_whole(volume or t.volume, tree, str(r))
    strict = t.init("--require", *args, volume=volume, **kw)
    assert strict.code in codes, strict
    return r


def a_missing_volume_is_an_error_and_is_not_made(t):
    gone = t.path("gone")
    r = _fails_open(t, NOT_FOUND, volume=gone)
    assert r.status == "error" and not os.path.exists(gone), r


def a_volume_that_is_a_file_is_an_error(t):
    with open(t.path("file"), "w") as f:
        f.write("x")
    assert _fails_open(t, NOT_FOUND, volume=t.path("file")).status == "error"
    with open(t.path("file")) as f:
        assert f.read() == "x"


def a_volume_without_permission_is_an_error(t):
    t.publish(Tree([inductor_file("a")]))
    os.chmod(t.volume, 0o555)
    assert _fails_open(t, DENIED, prefix=t.as_nobody()).status == "error"
    assert os.listdir(t.volume) == []


def a_store_without_permission_is_an_error(t):
    t.publish(Tree([inductor_file("a")]))
    os.chmod(t.volume, 0o777)
    for where in (t.store, os.path.join(t.store, "m/v1")):
        os.chmod(where, 0o700)
        r = _fails_open(t, DENIED, prefix=t.as_nobody())
        assert r.status == "error" and "ermission" in r.json["reason"], r
        os.chmod(where, 0o755)
    path = layer.objects(t.store)[0]
    os.chmod(path, 0o600)
    assert _fails_open(t, DENIED, prefix=t.as_nobody()).status == "error"


def an_unreadable_far_store_is_replaced_by_a_nearer_one(t):
    tree = Tree([inductor_file("a")])
    far = t.dir("far")
    t.publish(tree)
    t.publish(tree, store=far)
    os.chmod(t.volume, 0o777)
    os.chmod(far, 0o700)
    r = t.init(store=[t.store, far], prefix=t.as_nobody())
    assert r.status == "warm", r
    assert check_whole(t.volume, tree) == 1


def a_store_that_is_a_file_is_no_crash(t):
    with open(t.path("file"), "w") as f:
        f.write("x")
    r = t.init("--require", store=t.path("file"))
    assert r.code == NOT_FOUND, r


def an_unknown_scheme_is_named(t):
    for url in ("s4://b/p", "://", "gopher://x"):
        r = _fails_open(t, INVALID, store=url)
        assert r.status == "error" and "scheme" in r.json["reason"], r


def a_bad_model_version_or_platform_is_named_and_touches_nothing(t):
    outside = snapshot(t.tmp)
    for text in ("..", ".", "a/b", "../../x", "/", "a\tb", "a\x7fb", "a\nb", "x" * 129, "\x1b[31m"):
        for part in ("model", "version", "platform"):
            if part == "platform":
                r = _fails_open(t, INVALID, "--platform", text)
            else:
                r = _fails_open(t, INVALID, **{part: text})
            assert r.status == "error" and part in r.json["reason"], (part, text, r)
            assert not any(ord(c) < 32 for c in r.json["reason"]), r
    assert snapshot(t.tmp) == outside


def a_model_of_128_bytes_that_need_encoding_is_kept_or_refused(t):
    """It takes up to 384 bytes in an object's name, and a file name has 255: one part of the name
    must not fail in the store alone, round by round."""
    tree = Tree([inductor_file("a")])
    for text in ("m" * 128, "a:b@c" * 25 + "abc", "\u00e9" * 64, "%" * 128):
        volume = t.fresh()
        tree.write(volume)
        s = t.sidecar("--settle=0", volume=volume, model=text)
        s.wait_for("state=")
        assert s.stop() == 0, s.log
        log = s.log
        r = t.init("--require", model=text, volume=t.fresh())
        assert r.status == "warm" or (r.code == INVALID and "state=disabled" in log), (text, r, log)


def a_disk_that_is_full_leaves_whole_groups(t):
    tree = Tree([triton_group("t%d" % i, 30000) for i in range(10)] +
                [inductor_file("i%d" % i, 100000) for i in range(20)])
    small = t.dir("small")
    t.publish(tree, volume=small)
    t.clear(small)
    t.mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", small)
    for more in ("--max-bytes=100M", "--jobs=1", "--max-bytes=600K"):
        r = t.init("--require", more, volume=small)
        assert r.code in (NO_SPACE, LIMIT), (more, r)
        assert r.status in ("partial", "error"), r
        n = check_whole(small, tree, more)
        assert (n > 0) == (r.status == "partial"), (more, n, r)
        assert not os.path.exists(os.path.join(small, ".warmcache/stage")), r
        for name in os.listdir(small):
            import shutil
            shutil.rmtree(os.path.join(small, name))
    r = t.init(volume=small)
    assert r.code == 0, r


def a_full_disk_does_not_stop_a_publish_of_what_fits(t):
    small = t.dir("small")
    t.mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", small)
    tree = Tree([inductor_file("i", 200000)])
    tree.write(small)
    with open(os.path.join(small, "ballast"), "wb") as f:
        try:
            f.write(b"\0" * (5 << 20))
        except OSError:
            pass
    s = t.sidecar("--settle=0", volume=small)
    s.wait_for("publish-failed")
    os.unlink(os.path.join(small, "ballast"))
    assert s.stop() == 0
    check_store(t.store, tree)
    assert len(layer.objects(t.store)) == 1, s.log


def a_limit_of_bytes_takes_whole_groups(t):
    tree = Tree([inductor_file("i%d" % i, 10000) for i in range(10)])
    t.publish(tree)
    r = _fails_open(t, LIMIT, "--max-bytes=35K", tree=tree)
    assert r.status == "partial" and r.json["files"] == 3, r


def a_deadline_that_has_passed_is_canceled(t):
    t.publish(Tree([inductor_file("i%d" % i, 10000) for i in range(10)]))
    r = t.init("--require", "--deadline=1ms")
    assert r.code in (10, 0), r


# ---- damaged layers ----

def _one_layer(t):
    tree = Tree([inductor_file("a", 3000), fxgraph_file("b", 3000), other_file("c", 3000)])
    t.publish(tree)
    path, = layer.objects(t.store)
    with open(path, "rb") as f:
        return tree, path, f.read()


def a_layer_cut_short_is_refused(t):
    tree, path, data = _one_layer(t)
    for n in (0, 1, 100, len(data) // 2, len(data) - layer.FIXED, len(data) - 1):
        with open(path, "wb") as f:
            f.write(data[:n])
        r = _fails_open(t, CORRUPT, tree=tree)
        assert r.status == "error" and snapshot(t.volume) == {}, (n, r)
    with open(path, "wb") as f:
        f.write(data + b"more")
    assert _fails_open(t, CORRUPT, tree=tree).status == "error"


def a_flipped_bit_anywhere_is_refused(t):
    tree, path, data = _one_layer(t)
    _, _, trailer = layer.read_trailer(path)
    end = len(data) - trailer
    failures = Failures()
    places = {"frame": range(0, end), "head": range(end, end + 28),
              "signature room": range(end + 60, end + layer.FIXED),
              "digest": range(end + 28, end + 60), "index": range(end + layer.FIXED, len(data))}
    for region, where in places.items():
        picks = list(where)[:4] + [t.random.choice(where) for _ in range(6 if t.quick else 25)]
        for at in picks:
            bad = bytearray(data)
            bad[at] ^= 1 << t.random.randrange(8)
            with open(path, "wb") as f:
                f.write(bad)
            t.clear()
            with failures:
                r = t.init("--require")
                n = check_whole(t.volume, tree, "%s byte %d" % (region, at))
                if region == "signature room" or (region == "head" and 18 <= at - end < 20):
                    assert r.code == 0 and n == 3, (region, at - end, r)  # minor, and no trust
                elif region == "digest":
                    assert r.code in (0, CORRUPT), (region, at - end, r)
                elif region == "head" and 16 <= at - end < 18:
                    assert r.code in (CORRUPT, 0), (region, at - end, r)
                else:
                    assert r.code == CORRUPT, (region, at - end, r)
                    assert (r.status == "partial") == (n > 0), (region, at - end, r)
    failures.tell()


def one_bad_layer_leaves_the_others_usable(t):
    tree, path, data = _one_layer(t)
    more = Tree([inductor_file("other")])
    t.publish(more)
    with open(path, "wb") as f:
        f.write(data[:-5])
    r = _fails_open(t, CORRUPT, tree=tree + more)
    assert r.status == "partial" and check_whole(t.volume, tree + more) == 1, r


def a_bad_frame_fails_its_groups_alone(t):
    """Both groups fail or come whole, by the frames that they lie in."""
    good, bad = layer.Layer(), None
    good.add("own/a", {"own/a": b"a" * 100})
    good.add("own/b", {"own/b": b"b" * 100})
    good.add("triton/D", {"triton/D/x": b"x" * 100, "triton/D/y": b"y" * 100}, "triton")
    path = good.write(t.store)
    with open(path, "r+b") as f:
        f.seek(len(good.frames[0][0]) + 5)
        f.write(b"\xff")
    r = t.init("--require")
    assert r.code == CORRUPT and r.status == "partial", (r, bad)
    assert sorted(snapshot(t.volume)) == ["own/a", "triton/D/x", "triton/D/y"], r


def a_group_across_a_good_and_a_bad_frame_stays_out(t):
    """The good half must be taken out of the stage before it is moved in."""
    one = layer.Layer()
    one.add("triton/D", {"triton/D/a": b"a" * 100}, "triton")
    one.add("x", {"triton/D/b": b"b" * 100})
    files = one.groups.pop()["files"]
    one.groups[0]["files"] += files
    one.add("own/c", {"own/c": b"c"})
    path = one.write(t.store)
    assert t.init(volume=t.fresh()).status == "warm"
    with open(path, "r+b") as f:
        f.seek(len(one.frames[0][0]) + 5)
        f.write(b"\xff")
    r = t.init("--require")
    assert r.code == CORRUPT, r
    assert sorted(snapshot(t.volume)) == ["own/c"], (sorted(snapshot(t.volume)), r)


def _lie(t, change, files=None):
    """A layer with one lie in its index, signed off by a right digest."""
    lying = layer.Layer()
    lying.add("own/good", {"own/good": b"good" * 10})
    lying.add("triton/D", files or {"triton/D/a": b"a" * 50, "triton/D/b": b"b" * 50}, "triton")
    change(lying)
    return lying


def an_index_that_lies_is_refused(t):
    def path(text):
        def change(x):
            x.groups[1]["files"][1]["path"] = text
        return change

    def field(name, value, k=1):
        def change(x):
            x.groups[1]["files"][k][name] = value
        return change

    def group(name, value):
        def change(x):
            x.groups[1][name] = value
        return change
    lies = {
        "leaves the volume": path("../escaped"), "deep": path("triton/../../escaped"),
        "absolute": path("/tmp/escaped"), "dot": path("triton/./b"), "empty part": path("triton//b"),
        "trailing slash": path("triton/D/b/"), "empty": path(""), "nul": path("triton/D/\0b"),
        "long part": path("triton/" + "b" * 256), "long": path("b/" * 2047 + "bb"),
        "twice": path("triton/D/a"), "out of order": path("triton/C"),
        "past the end": field("size", 1 << 40), "far offset": field("offset", 4 << 20),
        "no such frame": field("frame", 9), "setuid": field("mode", 0o4755),
        "mode": field("mode", 0o666), "overlap": field("offset", 0),
        "flags": group("flags", 16), "bound": group("bound", 7), "no name": group("name", ""),
        "origin of the future": group("origin", (1 << 50, 1)), "origin": group("origin", (5, 1)),
        "no files": group("files", []),
        "wrong model": lambda x: setattr(x, "lie_key", ("other", "v1", "p")),
        "major": lambda x: setattr(x, "major", 9),
    }
    failures = Failures()
    for what, change in lies.items():
        store = t.fresh("store")
        lying = _lie(t, change)
        if hasattr(lying, "lie_key"):
            right, lying.key = lying.key, lying.lie_key
            raw = lying.raw_index()
            lying.key = right
            lying.write(store, raw=raw)
        else:
            lying.write(store)
        t.clear()
        with failures:
            r = _fails_open(t, CORRUPT, store=store)
            assert r.status == "error", (what, r)
            assert snapshot(t.volume) == {}, (what, snapshot(t.volume))
            assert not os.path.exists(t.path("escaped")) and not os.path.exists("/tmp/escaped")
    for what, raw in {"cut": lambda b: b[:-3], "more": lambda b: b + b"x", "empty": lambda b: b"",
                      "kind": lambda b: b"X" + b[1:]}.items():
        store = t.fresh("store")
        lying = _lie(t, lambda x: None)
        lying.write(store, raw=raw(lying.raw_index()))
        with failures:
            assert _fails_open(t, CORRUPT, store=store).status == "error", what
    store = t.fresh("store")
    _lie(t, lambda x: None).write(store, raw_bytes=5)
    with failures:
        assert _fails_open(t, CORRUPT, store=store).status == "error"
    failures.tell()


def a_group_whose_files_lie_elsewhere_touches_no_other_group(t):
    """Its unit would be a whole root: neither moved over nor cleared away with it."""
    for bad_frame in (False, True):
        store = t.fresh("store")
        evil = layer.Layer()
        evil.add("triton/D", {"triton/D/a": b"a" * 50, "triton/D/b": b"b" * 50}, "triton")
        evil.add("x", {"triton/E": b"e" * 50})
        path = evil.write(store)
        if bad_frame:
            with open(path, "r+b") as f:
                f.seek(len(evil.frames[0][0]) + 5)
                f.write(b"\xff")
        t.clear()
        r = t.init(store=store)
        have = [p for p in snapshot(t.volume) if p.startswith("triton/D")]
        claimed = r.json["files"] - (0 if bad_frame else 1)
        assert r.status in ("error", "partial", "warm"), r
        assert len(have) in (0, 2), (bad_frame, have, r)
        assert r.status == "error" or len(have) == claimed or len(have) == 2, (bad_frame, have, r)


def a_layer_writes_nothing_into_our_own_directory(t):
    evil = layer.Layer()
    evil.add(".warmcache/counters", {".warmcache/counters": b"evil"})
    evil.add(".warmcache/x/y", {".warmcache/x/y": b"evil"})
    evil.write(t.store)
    t.init()
    have = snapshot(t.volume, ours=True)
    assert not any(d == b"evil" for d in have.values()), sorted(have)


def a_link_in_the_volume_is_not_followed(t):
    tree = Tree([inductor_file("a"), fxgraph_file("b"), other_file("c")])
    t.publish(tree)
    for name in ("inductor", ".warmcache"):
        t.clear()
        outside = t.fresh("outside")
        with open(os.path.join(outside, "precious"), "w") as f:
            f.write("x")
        os.symlink(outside, os.path.join(t.volume, name))
        r = t.init()
        assert r.code == 0, r
        assert os.listdir(outside) == ["precious"], (name, r)


def a_link_in_the_volume_is_not_published(t):
    tree = Tree([inductor_file("a")])
    model = t.fresh()
    tree.write(model)
    with open(t.path("secret"), "w") as f:
        f.write("secret")
    os.makedirs(os.path.join(model, "own"))
    os.symlink(t.path("secret"), os.path.join(model, "own/link"))
    os.symlink(t.tmp, os.path.join(model, "own/dir"))
    os.mkfifo(os.path.join(model, "own/fifo"))
    t.publish(None, volume=model)
    check_store(t.store, tree)


def a_bomb_is_refused_before_it_is_written(t):
    """A gigabyte of zeros in a few kilobytes: over the ratio, or over the limit on bytes."""
    bomb = layer.Layer()
    packed = layer.compress(b"\0" * layer.FRAME, 19)
    n = 256
    bomb.frames = [(packed, layer.FRAME)] * n
    bomb.groups = [{"name": "own/zeros", "origin": bomb.id, "profile": "file", "bound": 0,
                    "flags": 0, "files": [{"path": "own/zeros", "size": n * layer.FRAME, "mode": 0,
                                           "mtime": 0, "frame": 0, "offset": 0}]}]
    bomb.write(t.store)
    r = _fails_open(t, (LIMIT, CORRUPT), "--max-bytes=10M")
    assert r.status == "error" and snapshot(t.volume) == {}, r


def a_frame_that_decodes_to_more_than_it_says_is_refused(t):
    for said in (1000, layer.FRAME - 1):
        store = t.fresh("store")
        bomb = layer.Layer()
        bomb.add("own/a", {"own/a": b"x" * 100})
        bomb.frames = [(layer.compress(b"\0" * (32 << 20)), said)]
        bomb.groups[0]["files"][0]["offset"] = 512
        bomb.write(store)
        r = _fails_open(t, CORRUPT, store=store)
        assert r.status == "error" and snapshot(t.volume) == {}, r


def a_truncated_index_length_in_a_name_is_no_layer(t):
    tree, path, data = _one_layer(t)
    folder, name = os.path.split(path)
    parts = name.split("-")
    for i, bad in ((0, "X"), (1, "0"), (1, "01"), (2, "zz"), (3, "4294967296"), (3, "0x10"),
                   (4, "ab.tar.zst"), (4, parts[4] + "x")):
        changed = parts[:i] + [bad] + parts[i + 1:]
        os.rename(path, os.path.join(folder, "-".join(changed)))
        r = t.init("--require")
        assert r.code == NOT_FOUND and r.status == "cold", (changed, r)
        os.rename(os.path.join(folder, "-".join(changed)), path)
    parts[3] = str(16 << 20)
    os.rename(path, os.path.join(folder, "-".join(parts)))
    assert _fails_open(t, CORRUPT).status == "error"


def junk_in_the_store_is_passed_over(t):
    tree, path, _ = _one_layer(t)
    folder = os.path.dirname(path)
    for name in ("README", ".tmp-0000000000000000", "L-1-2-3-4.tar.zst", "x" * 200):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(b"junk")
    os.mkdir(os.path.join(folder, "dir"))
    os.symlink("/etc/passwd", os.path.join(folder, "link"))
    r = t.init("--require")
    assert r.code == 0 and check_whole(t.volume, tree) == 3, r


def junk_with_the_greatest_id_does_not_hide_later_layers(t):
    """An id of 2^53 parses; the next must too, or all that is published later is lost."""
    tree, path, _ = _one_layer(t)
    folder = os.path.dirname(path)
    with open(os.path.join(folder, "L-9007199254740992-ffffffffffffffff-100-%s.tar.zst" %
                           ("ab" * 32)), "wb") as f:
        f.write(b"junk")
    more = Tree([inductor_file("later")])
    t.publish(more)
    r = t.init()
    assert check_whole(t.volume, tree + more) == 4, (r, os.listdir(folder))


def a_fallback_group_that_shares_a_path_with_one_of_ours_stays_out(t):
    key = layer.Layer().key
    ours = layer.Layer(key=key, id=(1700000000000, 1))
    ours.add("x/D/a", {"x/D/a": b"short"})
    ours.write(t.store)
    other = layer.Layer(key=(key[0], "v0", key[2]), id=(1600000000000, 1))
    other.add("x/D", {"x/D/a": b"a much longer file of another version", "x/D/b": b"b"}, "triton",
              layer.SELF_KEYED)
    other.write(t.store)
    r = t.init()
    have = snapshot(t.volume)
    assert have in ({"x/D/a": b"short"}, {}), (have, r)


def a_group_with_a_file_over_the_limit_is_not_published_without_it(t):
    model = t.fresh()
    group = {"tilelang/kernels/h/kernel.cu": b"src", "tilelang/kernels/h/params.pkl": blob("p", 9000)}
    small = inductor_file("s", 100)
    Tree([group, small]).write(model)
    log = t.publish(None, "--max-file-bytes=4K", volume=model)
    names = check_store(t.store, Tree([group, small]))
    assert sorted(names) == sorted(small), (names, log)


def a_group_with_an_unreadable_part_is_not_published_without_it(t):
    model = t.fresh()
    group = flashinfer_group("attn")
    small = inductor_file("s", 100)
    Tree([group, small]).write(model)
    os.chmod(os.path.join(model, "flashinfer/0.2/generated/attn"), 0)
    os.chmod(model, 0o777)
    os.makedirs(t.store)
    os.chmod(t.store, 0o777)
    log = t.publish(None, volume=model, prefix=t.as_nobody())
    assert sorted(check_store(t.store)) == sorted(small), log


def a_group_with_a_link_in_it_is_not_published_without_it(t):
    model = t.fresh()
    top = "tilelang/kernels/h/"
    group = {top + "kernel.cu": b"src", top + "params.pkl": b"p"}
    small = inductor_file("s", 100)
    Tree([group, small]).write(model)
    os.symlink("kernel.cu", os.path.join(model, top + "kernel_lib.so"))
    log = t.publish(None, volume=model)
    assert sorted(check_store(t.store)) == sorted(small), log


def files_that_look_like_secrets_are_never_published(t):
    model = t.fresh()
    top = "vllm/torch_compile_cache/h/rank_0_0/b/"
    tree = Tree([{top + "cache_key_factors.json": b'{"env": {"HF_TOKEN": "x"}}'},
                 inductor_file("ok")])
    tree.write(model)
    log = t.publish(None, volume=model)
    assert check_store(t.store) == list(tree.groups[1]), log
    assert "HF_TOKEN" in log


def the_newest_of_two_states_of_a_group_wins_whole(t):
    old, new = layer.Layer(id=(1000, 1)), layer.Layer(id=(2000, 1))
    old.add("triton/D", {"triton/D/a": b"old", "triton/D/old": b"old"}, "triton")
    new.add("triton/D", {"triton/D/a": b"new", "triton/D/new": b"new"}, "triton")
    new.write(t.store)
    old.write(t.store)
    assert t.init().status == "warm"
    assert snapshot(t.volume) == {"triton/D/a": b"new", "triton/D/new": b"new"}


def numbers_in_the_index_header_are_little_endian(t):
    """Guards layer.py itself: what it writes is what the programs read."""
    tree, path, data = _one_layer(t)
    assert struct.unpack("<I", data[-layer.read_trailer(path)[2]:][:4])[0] == layer.MAGIC
    parsed, contents = layer.read(path)
    assert {g["name"] for g in parsed.groups} == set(tree.files) and contents == tree.files


def a_torn_ledger_drops_the_caches(t):
    tree = small_tree()
    t.publish(tree, volume=t.volume)
    t.clear()
    t.init()
    ledger = os.path.join(t.volume, ".warmcache/ledger")
    for data in (b"", b"warmldg1", os.urandom(500)):
        with open(ledger, "wb") as f:
            f.write(data)
        with open(os.path.join(t.volume, sorted(tree.files)[0]), "wb"):
            pass  # lost its bytes in the same crash
        r = t.init()
        assert r.status == "warm" and "volume-dropped" in r.err, r
        assert check_whole(t.volume, tree) == len(tree.groups)
