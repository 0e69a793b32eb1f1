# SPDX-License-Identifier: Apache-2.0
"""Other kinds of store under the suites that were written for a directory: run.py --store KIND.
A test goes on looking into, and damaging, files below its ctx.store; the programs are given a URL
of a server that serves those very files, or a registry that is kept in step with them."""

import hashlib
import os
import re
import subprocess
import threading

import layer
import servers


class Kind:
    """A directory: the programs are given its path."""

    parent = None  # where tests' own directories are made
    env = {}       # what the programs need
    skips = {}     # part of "file.function": why it can't be done by this kind
    remote = False  # a kill can't come between two calls on the store's files
    ages = True     # files' times are the store's

    def url(self, ctx, path, write):
        """What to give as --store for the directory `path`; also when what lies there has
        changed: a test calls it before each program."""
        return path

    def look(self, ctx):
        """What the store holds is to lie in ctx's directories."""

    def why_not(self, name):
        return next((why for part, why in self.skips.items() if part in name), None)


def _below(parent, path):
    """`path` relative to `parent`; None where it lies elsewhere or is a URL already."""
    if "://" in path or not path.startswith(parent + "/"):
        return None
    return os.path.relpath(path, parent)


_OWNERS = "it is about permissions of a directory"
_CALLS = "it counts calls on files, and the store makes none"
_HEAD = "a head is older than the store"
_CLOCK = "a registry's times can't be set"
_LONG = "a registry takes many requests for each step, and others stop there"
_READ = "a web server is only read from"
_DISK = "it breaks the directory under the store"

# What holds of every server: it has its own uid, and its files aren't the programs'.
_REMOTE = {
    "a_store_without_permission": _OWNERS,
    "an_unreadable_far_store": _OWNERS,
    "a_store_that_denies": _OWNERS,
    "a_model_and_a_sidecar_of_other_uids": _OWNERS,
    "a_group_with_an_unreadable_part": _OWNERS,
    "a_store_that_is_a_file": _DISK,
    "a_store_that_comes_back": _DISK,
    "objects_are_synced": _CALLS,
    "when_the_nth_fsync": _CALLS,
    "a_second_sigterm_stops_at_once": _CALLS,
    "a_store_that_is_slow_but_moves": _CALLS,
    "compact.a_read_only_store_is_denied": _OWNERS,
    "compact.a_key_that_fails_keeps_no_other": _OWNERS,
    "compact.compact_and_gc_of_a_store": "a prefix is always there",
    "compact.gc_deletes_temporary_files": _CALLS,
    "compact.gc_ends_": "it starts its own server",
}


class S3(Kind):
    """The bucket's directory holds all tests' directories."""

    skips = _REMOTE
    remote = True

    def __init__(self, run, tls=False):
        self._server = servers.S3(run, servers.Authority(run) if tls else None)
        self.parent = self._server.bucket_dir
        self.env = {**self._server.keys(), "HOME": run.tmp}

    def url(self, ctx, path, write):
        below = _below(self.parent, path)
        # versitygw keeps what came of an unsigned upload by TLS that was cut.
        more = {"payload": "signed"} if self._server.tls else {}
        return path if below is None else self._server.url(below, **more)


class Http(Kind):
    """Who writes is given the directory; before each reader its head is written anew."""

    skips = {
        "a_store_without_permission": _OWNERS,
        "an_unreadable_far_store": _OWNERS,
        "a_store_that_is_a_file": _DISK,
        "kills_at_random_moments_lose_nothing": _HEAD,
        "compact.compact_killed": _READ,
        "compact.gc_killed": _READ,
        "compact.two_compactors": _READ,
        "compact.gc_ends_": "it starts its own server",
        "a_reader_that_is_overtaken": _HEAD,
    }

    def __init__(self, run):
        self.parent = run.dir("web")
        os.chmod(run.tmp, 0o755)
        self._server = servers.Nginx(run, self.parent)
        self.env = {"HOME": run.tmp}
        self._empty = os.path.join(self.parent, "empty")
        os.mkdir(self._empty)

    def url(self, ctx, path, write):
        if write or _below(self.parent, path) is None:
            return path
        if not os.path.exists(path):
            path = self._empty  # a store that was never written to has a head all the same
        subprocess.run([os.path.join(ctx.bin, "warmcache"), "head", "--store", path],
                       env=ctx.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       timeout=60)
        return self._server.url(_below(self.parent, path))


class Oci(Kind):
    """A registry, and directories that are kept in step: before a program runs, what a test
    changed goes to the registry; after it, what the registry has comes into the directory."""

    skips = {**_REMOTE,
             "the_result_fits_one_kilobyte": "a repository's name is shorter than its key",
             "a_reader_that_is_overtaken_by_a_compaction": "in its list, which is many requests, "
                                                           "all may go but for the hour",
             "compact.a_layer_that_is_put_while": _LONG,
             "compact.a_publisher_that_is_overtaken": _LONG,
             **{"compact." + name: _CLOCK for name in (
                 "nothing_is_deleted_for_a_base_that_is_corrupt", "two_compactors_at_once_with",
                 "compact_killed_at_every_step_of_deleting", "gc_", "a_version_is_as_old",
                 "young", "max_total", "rules", "the_newest", "the_empty", "a_mark")}}
    remote, ages = True, False

    def __init__(self, run):
        self._server = servers.Registry(run)
        self.parent = run.dir("mirrors")
        self.env = {"HOME": run.tmp}
        self._lock, self._mirrors = threading.Lock(), {}  # directory: _Mirror
        layer.refresh = self._refresh

    def url(self, ctx, path, write):
        if _below(self.parent, path) is None:
            return path
        with self._lock:
            mirror = self._mirrors.setdefault(path, _Mirror(
                self._server, path, "t%d" % (len(self._mirrors) + 1)))
        mirror.send()
        return self._server.url(mirror.place)

    def look(self, ctx):
        self._refresh(ctx.tmp)

    def _refresh(self, path):
        with self._lock:
            found = [m for p, m in self._mirrors.items()
                     if (p + "/").startswith(path + "/") or (path + "/").startswith(p + "/")]
        for mirror in found:
            mirror.fetch()


class _Mirror:
    def __init__(self, registry, path, place):
        self._registry, self.path, self.place = registry, path, place
        self._known = {}  # name: (repository, tag, size, mtime), as the registry has it
        self._lock = threading.Lock()

    def _note(self, name, repository, tag):
        st = os.stat(os.path.join(self.path, name))
        self._known[name] = repository, tag, st.st_size, st.st_mtime_ns

    def fetch(self):
        with self._lock:
            there = self._registry.layers(self.place)
            for name, (repository, tag, manifest) in there.items():
                if name in self._known:
                    continue
                full = os.path.join(self.path, name)
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(full, "wb") as f:
                    f.write(self._registry.blob(repository, manifest["layers"][0]["digest"]))
                self._note(name, repository, tag)
            for name in set(self._known) - set(there):
                del self._known[name]
                if os.path.exists(os.path.join(self.path, name)):
                    os.unlink(os.path.join(self.path, name))

    def send(self):
        with self._lock:
            here = {os.path.relpath(p, self.path): p for p in layer.objects(self.path, False)}
            for name in set(self._known) - set(here):
                repository, tag, _, _ = self._known.pop(name)
                self._registry.delete(repository, tag)
            for name, path in here.items():
                known = self._known.get(name)
                st = os.stat(path)
                if known and known[2:] == (st.st_size, st.st_mtime_ns):
                    continue
                place = known[:2] if known else self._place(name)
                if place is None:
                    continue
                if known:
                    self._registry.delete(*place)
                with open(path, "rb") as f:
                    self._registry.push(*place, f.read(), {servers.NAME: name})
                self._note(name, *place)

    def _place(self, name):
        parts = name.split("/")
        if len(parts) != 4:
            return None  # no name of a layer: a registry has no room for it
        return "%s/%s" % (self.place, encode_model(parts[0])), tag_of(*parts[1:])


def encode_model(text):
    """A model, as it stands in an object's name, as the last part of a repository's path."""
    def plain(i):
        return 0 <= i < len(text) and re.match("[a-z0-9]", text[i]) is not None
    out = ""
    for i, c in enumerate(text):
        if plain(i):
            out += c
        elif c in "._-" and plain(i - 1) and plain(i + 1):
            out += "--" if c == "-" else c
        else:
            out += "%s%02x" % ("-" if i else "x__", ord(c))
    return out


def tag_of(version, platform, last):
    """A layer's tag; its name is an annotation."""
    parts = [hashlib.sha256(p.encode()).hexdigest()[:16] for p in (version, platform)]
    return "-".join(parts + [re.sub("[^A-Za-z0-9_.-]", "_", last[:64])])


KINDS = {"s3": S3, "s3-tls": lambda run: S3(run, True), "oci": Oci, "http": Http}
SUITES = ["main_way.", "kill.", "sidecar.", "faults.", "limits.", "volume.", "cli.",
          "compact."]
