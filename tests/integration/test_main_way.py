# SPDX-License-Identifier: Apache-2.0
"""The main way: cold, publish, warm, fallback; results and exit codes."""

import json
import os

import layer
from support import (INVALID, NOT_FOUND, MACHINE, Tree, blob, check_store, check_whole,
                     fxgraph_file, inductor_file, other_file, small_tree, snapshot, triton_group)


def a_cold_start_says_cold_and_leaves_a_usable_volume(t):
    r = t.init()
    assert r.code == 0 and r.status == "cold" and r.json["key"] == "m/v1/" + MACHINE, r
    assert snapshot(t.volume) == {} and not os.path.exists(t.store)


def what_was_published_at_sigterm_comes_back_byte_for_byte(t):
    tree = small_tree() + Tree([other_file("x")])
    tree.groups.append({"own/empty": b""})
    log = t.publish(tree, volume=t.volume)
    assert "published" in log
    check_store(t.store, tree)
    os.rename(t.volume, t.path("gone"))  # the mount path is the same for the next pod
    t.dir("volume")
    r = t.init()
    assert r.code == 0 and r.status == "warm", r
    assert check_whole(t.volume, tree) == len(tree.groups)
    assert r.json["files"] == len(tree.files)
    assert r.json["bytes"] == sum(map(len, tree.files.values()))


def files_come_back_with_times_and_execute_bits(t):
    tree = Tree([inductor_file("x"), other_file("run")])
    model = t.fresh()
    tree.write(model)
    for i, path in enumerate(tree.files):
        os.utime(os.path.join(model, path), ns=(10 ** 18, 10 ** 18 + 123456789 + i))
    os.chmod(os.path.join(model, "own/run.bin"), 0o711)
    t.publish(None, volume=model)
    assert t.init().status == "warm"
    for i, path in enumerate(tree.files):
        st = os.stat(os.path.join(t.volume, path))
        assert st.st_mtime_ns == 10 ** 18 + 123456789 + i, path
        assert st.st_mode & 0o777 == (0o777 if path == "own/run.bin" else 0o666), oct(st.st_mode)


def a_second_run_fetches_nothing(t):
    tree = Tree([inductor_file(str(i)) for i in range(5)])
    t.publish(tree)
    assert t.init().status == "warm"
    r = t.init()
    assert r.status == "warm" and r.json["fetched_bytes"] == 0 and r.json["files"] == 0, r
    assert r.json["present_files"] == 5, r


def a_run_over_a_volume_with_holes_fetches_what_lacks(t):
    tree = Tree([inductor_file(str(i)) for i in range(5)])
    t.publish(tree)
    t.init()
    os.unlink(os.path.join(t.volume, sorted(tree.files)[2]))
    r = t.init()
    assert r.status == "warm" and r.json["files"] == 1 and r.json["present_files"] == 4, r
    assert check_whole(t.volume, tree) == 5


def a_new_version_falls_back_on_self_keyed_groups_alone(t):
    keyed, unkeyed = Tree([inductor_file("k"), fxgraph_file("k")]), Tree([other_file("u")])
    t.publish(keyed + unkeyed, version="v1")
    r = t.init(version="v2")
    assert r.code == 0 and r.status == "fallback" and r.json["fallback"] == "v1", r
    assert check_whole(t.volume, keyed) == 2
    assert t.init("--fallback=none", version="v3", volume=t.fresh()).status == "cold"
    r = t.init("--fallback=zz,v1", version="v4", volume=t.fresh())
    assert r.status == "fallback", r


def fallback_prefers_the_newest_complete_version(t):
    done, later = Tree([inductor_file("done")]), Tree([inductor_file("later")])
    t.publish(done, "--complete-after=0", version="v1")
    t.publish(later, "--complete-after=1h", version="v2")
    r = t.init(version="v3")
    assert r.json["fallback"] == "v1" and not r.json["complete"], r
    assert check_whole(t.volume, done) == 1


def a_complete_version_needs_no_fallback(t):
    t.publish(Tree([inductor_file("old")]), version="v1")
    new = Tree([inductor_file("new")])
    t.publish(new, "--complete-after=0", version="v2")
    r = t.init(version="v2")
    assert r.status == "warm" and r.json["complete"] and "fallback" not in r.json, r
    assert check_whole(t.volume, new) == 1


def what_came_by_fallback_and_was_opened_is_published_into_the_key(t):
    tree = Tree([inductor_file("a"), inductor_file("b")])
    t.publish(tree, "--complete-after=0", version="v1")
    t.init(version="v2")
    used = sorted(tree.files)[0]
    with open(os.path.join(t.volume, used), "rb") as f:
        f.read()
    t.publish(None, volume=t.volume, version="v2")
    names = [g["name"] for o in layer.objects(os.path.join(t.store, "m", "v2"))
             for g in layer.read(o)[0].groups]
    noatime = "inert=1" not in "".join(t.publish(None, volume=t.volume, version="v2"))
    assert names == [used] or (noatime and sorted(names) == sorted(tree.files)), names


def an_empty_version_keeps_self_keyed_groups_alone(t):
    keyed = Tree([inductor_file("k")])
    t.publish(keyed + Tree([other_file("u")]), version="")
    assert check_store(t.store, keyed) == list(keyed.files)
    assert t.init(version="").status == "warm"
    assert check_whole(t.volume, keyed) == 1


def an_empty_model_is_disabled(t):
    r = t.init(model="")
    assert r.code == 0 and r.status == "cold" and "disabled" in r.json["reason"], r
    assert t.init("--require", model="").code == INVALID


def require_makes_a_cold_start_a_failure_and_check_restores_nothing(t):
    assert t.init("--require").code == NOT_FOUND
    t.publish(Tree([inductor_file("a")]))
    t.clear()
    r = t.init("--check")
    assert r.code == 0 and snapshot(t.volume, ours=True) == {}, r
    code = t.init("--check", store=t.path("nowhere")).code
    assert code == NOT_FOUND or (t.kind and code == 0)  # a bucket's prefix needn't be made
    r = t.init("--require")
    assert r.code == 0 and r.status == "warm", r


def a_dry_run_changes_nothing(t):
    t.publish(Tree([inductor_file("a")]))
    r = t.init("--dry-run")
    assert r.code == 0 and r.json["files"] == 1 and os.listdir(t.volume) == [], r


def bad_options_fail_open_and_are_usage_errors_with_require(t):
    bad = [["--deadline=soon"], ["--nonsense"], ["--jobs=-1"], ["--max-bytes=1X"], ["--store"],
           ["--profile=nobody=x"], ["--profile=triton=../x"], ["--fallback=a/b"], ["operand"],
           ["--log-format=xml"], ["--store=ftp://x/y"], ["--store="]]
    for args in bad:
        r = t.init(*args)
        assert r.code == 0 and r.status == "error" and r.json["reason"], (args, r)
        assert t.init("--require", *args).code == INVALID, args
        assert t.init("--check", *args).code == INVALID, args
    assert os.listdir(t.volume) == []
    assert t.init("--require", "--volume", t.volume, "--model", "m", bare=True).code == INVALID


def an_environment_variable_is_an_option(t):
    env = t.env(WARM_STORE=t.store, WARM_MODEL="m", WARM_VERSION="e", WARM_VOLUME=t.volume)
    t.publish(Tree([inductor_file("a")]), version="e")
    r = t.init(bare=True, env=env)
    assert r.status == "warm" and r.json["key"].startswith("m/e/"), r
    r = t.init("--version=other", "--fallback=none", bare=True, env=env)
    assert r.status == "cold", r
    assert "WARM_VERSIN" in t.init(env=t.env(WARM_VERSIN="x")).err


def the_result_fits_one_kilobyte_whatever_the_key(t):
    # A byte that is no plain letter takes three in object names, and a name has 255 at most.
    for part in ("\\" * 85, '"' * 85, "\xe9" * 42, b"\xff" * 85, "m" * 128):
        text = part if isinstance(part, str) else os.fsdecode(part)
        r = t.init("--platform", text, model=text, version=text)
        assert r.code == 0 and r.status == "cold", r
    r = t.init(model='"' * 86)
    assert r.status == "error" and "model takes over 255 bytes" in r.json["reason"], r
    r = t.init("--store", "x" * 4000 + "://")
    assert r.status == "error", r


def a_second_platform_is_another_key(t):
    t.publish(Tree([inductor_file("a")]), "--platform=h100")
    assert t.init().status == "cold"
    assert t.init("--platform=h100").status == "warm"


def triton_groups_of_another_mount_path_are_skipped_and_it_says_so(t):
    tree = small_tree(triton=2, others=1)
    t.publish(tree)  # at another path than t.volume
    r = t.init()
    assert "mount path" in r.json["reason"], r
    assert check_whole(t.volume, Tree(tree.groups[2:])) == 2


def a_large_file_spans_frames(t):
    tree = Tree([{"own/large": blob("large", 11 << 20)}, inductor_file("a")])
    t.publish(tree)
    assert t.init().status == "warm"
    assert check_whole(t.volume, tree) == 2


def near_stores_serve_when_the_last_one_cannot_be_reached(t):
    tree = Tree([inductor_file("a")])
    t.publish(tree)
    with open(t.path("afile"), "w") as f:
        f.write("no directory")
    r = t.init(store=[t.store, t.path("afile")])
    assert r.code == 0 and r.status in ("warm", "cold"), r


def the_same_kernels_of_two_pods_are_published_once(t):
    tree = Tree([inductor_file("a"), inductor_file("b")])
    t.publish(tree)
    t.publish(tree)
    assert sorted(check_store(t.store, tree)) == sorted(tree.files)


def json_log_lines_parse(t):
    r = t.init("--log-format=json")
    for line in r.err.splitlines():
        assert {"time", "level", "program", "event", "text"} <= set(json.loads(line)), line


def help_and_configuration_print_and_exit(t):
    import subprocess
    for program in ("warmcache-init", "warmcache-sidecar"):
        for flag in ("--help", "--version-info", "--print-config", "--print-man"):
            p = subprocess.run([os.path.join(t.bin, program), flag], env=t.env(), timeout=20,
                               stdout=subprocess.PIPE, text=True)
            assert p.returncode == 0 and p.stdout, (program, flag)
            if flag == "--help":
                assert max(map(len, p.stdout.splitlines())) <= 80, program


def triton_inside_an_inductor_root_is_a_group(t):
    tree = Tree([triton_group("in", below="inductor/triton/0"), inductor_file("x")])
    t.publish(tree, volume=t.volume)
    os.rename(t.volume, t.path("gone"))
    t.dir("volume")
    assert t.init().status == "warm"
    assert check_whole(t.volume, tree) == 2
