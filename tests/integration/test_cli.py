# SPDX-License-Identifier: Apache-2.0
"""The operator's command: what it prints, moves and refuses."""

import json
import os
import subprocess
import tarfile
import zipfile

import layer
from support import (CORRUPT, INVALID, NOT_FOUND, MACHINE, Tree, check_store, check_whole,
                     fxgraph_file, inductor_file, need, other_file, small_tree, snapshot)


def _run(t, *args, code=0, model="m", version="v1", key=True):
    write = args[0] in ("push", "import")
    line = [os.path.join(t.bin, "warmcache")] + list(args) + ["--store", t.url(t.store, write)]
    if key:
        line += ["--model", model, "--version", version]
    p = subprocess.run(line, env=t.env(TMPDIR=t.tmp), stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    assert p.returncode == code, "exit %d: %s\n%s" % (p.returncode, p.stdout, p.stderr)
    t.look()
    return p


def push_and_pull_give_the_same_tree(t):
    tree = small_tree() + Tree([other_file("x")])
    tree.write(t.volume)
    out = _run(t, "push", t.volume, "--mount", t.path("out")).stdout
    assert "8 groups" in out, out
    check_store(t.store, tree)
    _run(t, "pull", t.path("out"))
    assert check_whole(t.path("out"), tree) == len(tree.groups)
    assert "already" in _run(t, "push", t.volume, "--mount", t.path("out")).stdout
    assert len(layer.objects(t.store)) == 1
    assert os.listdir(t.volume).count(".warmcache") == 0, "push leaves nothing behind"


def ls_and_show_say_what_a_store_holds(t):
    t.publish(small_tree("a"))
    t.publish(small_tree("b"), version="v2")
    text = _run(t, "ls", key=False).stdout
    assert "v1" in text and "v2" in text and MACHINE in text, text
    keys = json.loads(_run(t, "ls", "--json", key=False).stdout)["keys"]
    assert sorted(k["version"] for k in keys) == ["v1", "v2"], keys
    assert all(k["layers"] == 1 and k["bytes"] > 0 for k in keys), keys
    shown = json.loads(_run(t, "show", "--json").stdout)
    assert shown["key"] == "m/v1/" + MACHINE and not shown["complete"], shown
    assert [l["state"] for l in shown["layers"]] == ["live"], shown
    assert {p["profile"]: p["groups"] for p in shown["profiles"]} == {"triton": 3, "inductor": 4}
    assert "triton" in _run(t, "show").stdout


def verify_finds_the_layer_with_a_flipped_bit(t):
    t.publish(small_tree("a"))
    t.publish(small_tree("b", triton=1), volume=t.fresh())
    assert _run(t, "verify").stdout.count("ok ") == 2
    path = layer.objects(t.store)[0]
    with open(path, "r+b") as f:
        f.seek(100)
        byte = f.read(1)[0]
        f.seek(100)
        f.write(bytes([byte ^ 4]))
    p = _run(t, "verify", code=CORRUPT)
    assert p.stdout.count("BAD") == 1 and p.stdout.count("ok ") == 1, p.stdout
    bad = json.loads(_run(t, "verify", "--json", code=CORRUPT).stdout)
    assert bad["bad"] == 1 and [l["ok"] for l in bad["layers"]].count(False) == 1, bad


def archives_are_imported_and_exported_in_every_format(t):
    need("zstd")
    tree = small_tree()
    tree.write(t.volume)
    tar = t.path("in.tar.gz")
    with tarfile.open(tar, "w:gz") as f:
        f.add(t.volume, arcname=".")
    zipped = t.path("in.zip")
    with zipfile.ZipFile(zipped, "w") as f:
        for path, data in tree.files.items():
            f.writestr(path, data)
    subprocess.check_call("tar -C %s -cf - . | zstd -q -o %s" % (t.volume, t.path("in.tar.zst")),
                          shell=True)
    for i, name in enumerate(["in.tar.gz", "in.zip", "in.tar.zst"]):
        _run(t, "import", t.path(name), "--mount", "/cache", version="i%d" % i)
    check_store(t.store, tree)
    for suffix in ["tar.zst", "tar.gz", "tgz", "tar", "zip"]:
        out = t.path("out." + suffix)
        _run(t, "export", out, version="i0")
        where = t.fresh("x")
        subprocess.check_call(["bsdtar", "-xf", out, "-C", where])
        assert snapshot(where) == tree.files, suffix
    assert not [n for n in os.listdir(t.tmp) if n.startswith("warmcache-")], "no scraps"


def a_hostile_archive_is_refused_with_the_entry_named(t):
    for i, name in enumerate(["../evil", "/etc/evil", "a/../../evil"]):
        path = t.path("bad%d.tar" % i)
        with tarfile.open(path, "w") as f:
            info = tarfile.TarInfo(name)
            f.addfile(info)
        p = _run(t, "import", path, code=INVALID, version="bad")
        assert "evil" in p.stderr, p.stderr
    path = t.path("link.tar")
    with tarfile.open(path, "w") as f:
        info = tarfile.TarInfo("inductor/fxgraph/aa/fk/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        f.addfile(info)
    assert "no files" in _run(t, "import", path, code=CORRUPT, version="bad").stderr
    assert not os.path.exists(t.store)
    with open(t.path("noise"), "wb") as f:
        f.write(b"\xff\x13noise" * 99)
    _run(t, "import", t.path("noise"), code=CORRUPT)
    _run(t, "import", t.path("not-there"), code=NOT_FOUND)


def bad_usage_is_exit_2_and_says_why(t):
    warm = os.path.join(t.bin, "warmcache")
    for args, word in [([], "subcommand"), (["frob"], "frob"), (["ls"], "--store"),
                       (["pull", "--store", "x"], "DIR"), (["show", "--store", "x"], "--model"),
                       (["ls", "--store", "ftp://x"], "ftp"), (["ls", "--bogus"], "--bogus"),
                       (["ls", "--store", "x", "--jobs", "many"], "many")]:
        p = subprocess.run([warm] + args, env=t.env(), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
        assert p.returncode == 2 and word in p.stderr, (args, p.returncode, p.stderr)
    for command in ["show", "verify", "export"]:
        argument = [t.path("x.tar")] if command == "export" else []
        assert "holds nothing" in _run(t, command, *argument, code=NOT_FOUND).stderr
    _run(t, "export", t.path("x.rar"), code=NOT_FOUND)
    t.publish(Tree([inductor_file("x")]))
    assert "suffix" in _run(t, "export", t.path("x.rar"), code=INVALID).stderr


def pull_takes_the_fallback_only_when_asked(t):
    t.publish(Tree([fxgraph_file("x"), other_file("y")]))
    _run(t, "pull", t.path("a"), version="v2", code=NOT_FOUND)
    _run(t, "pull", t.path("b"), "--fallback", "latest", version="v2")
    assert sorted(snapshot(t.path("b"))) == sorted(fxgraph_file("x"))


def every_flag_has_its_variable_and_the_flag_wins(t):
    warm = os.path.join(t.bin, "warmcache-init")
    env = t.env(WARM_STORE="/a,/b", WARM_MODEL="env", WARM_DEADLINE="2m")
    out = subprocess.run([warm, "--model", "flag", "--print-config"], env=env, text=True,
                         stdout=subprocess.PIPE, check=True).stdout
    lines = dict(line.split("\t")[0].split("=", 1) for line in out.splitlines())
    assert lines["store"] == "/a,/b" and lines["model"] == "flag", out
    assert lines["deadline"] == "120000ms" and "# environment" in out and "# flag" in out, out
    p = subprocess.run([warm, "--print-config"], env=t.env(WARM_MODLE="x"), text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert "WARM_MODLE" in p.stderr, "a misspelled variable is a warning"
