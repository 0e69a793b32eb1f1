# SPDX-License-Identifier: Apache-2.0
"""What the integration tests share: running the programs, making trees, checking groups."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time

import layer

MACHINE = os.uname().machine
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Exit codes of lib/base/error.c.
INVALID, NOT_FOUND, TRANSIENT, CORRUPT, DENIED, NO_SPACE, LIMIT, NO_MEMORY, CANCELED = range(2, 11)
UNSUPPORTED = 12
FIELDS = {"status", "key", "layers", "files", "bytes", "present_files", "fetched_bytes",
          "duration_ms", "phases", "complete", "reason"}
TIMEOUT = 60
# What of the runner's own environment a store would heed.
HEEDED = re.compile("WARM_|AWS_|GCE_METADATA|GOOGLE_|DOCKER_CONFIG|REGISTRY_AUTH|SSL_CERT_|"
                    ".*_proxy$|.*_PROXY$")


class Skip(Exception):
    pass


def wait_until(what, true, timeout=20):
    """Poll until `true()`; its value."""
    end = time.monotonic() + timeout
    while True:
        value = true()
        if value:
            return value
        assert time.monotonic() < end, "not within %d s: %s" % (timeout, what)
        time.sleep(0.05)


def alone(fn):
    """The test changes something of the whole machine: nothing else runs beside it."""
    fn.alone = True
    return fn


def need_root():
    if os.geteuid() != 0:
        raise Skip("needs root")


def need(program):
    if shutil.which(program) is None:
        raise Skip("needs %s" % program)


# ---- trees ----

def elf(payload=b""):
    """The smallest ELF file that is whole: a header, two section headers, a section."""
    start = 64 + 2 * 64
    head = b"\x7fELF" + bytes([2, 1, 1]) + b"\0" * 9
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 2, 0)
    null = b"\0" * 64
    section = struct.pack("<IIQQQQIIQQ", 0, 1, 0, 0, start, len(payload), 0, 0, 1, 0)
    return head + null + section + payload


def _hash_name(seed):
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    digest = hashlib.sha256(seed.encode()).digest() * 2
    return "".join(letters[b % 32] for b in digest[:52])


def blob(seed, n):
    return random.Random(seed).randbytes(n)


def triton_group(name, size=3000, below="triton"):
    """{path: bytes} of one Triton directory; __grp__ last, as Triton writes it."""
    top = "%s/%s" % (below, _hash_name(name))
    files = {"%s/k.cubin" % top: elf(blob(name, size)),
             "%s/k.ptx" % top: blob(name + "p", size),
             "%s/k.json" % top: json.dumps({"name": name}).encode()}
    children = {os.path.basename(p): "/cache/" + p for p in files}
    files["%s/__grp__k.json" % top] = json.dumps({"child_paths": children}).encode()
    return files


def inductor_file(name, size=2000):
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {"inductor/%s/c%s.py" % (digest[:2], digest): blob(name, size)}


def fxgraph_file(name, size=2000):
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {"inductor/fxgraph/%s/f%s/%s" % (digest[:2], digest, digest): blob(name, size)}


def best_config(name):
    """A mutable file: it rides along and never causes a publish."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {"inductor/%s/c%s.best_config" % (digest[:2], digest): b'{"XBLOCK": 64}'}


def flashinfer_group(name, size=2000):
    """Two directories: generated/ goes in before cached_ops/, and alone means nothing."""
    files = {"flashinfer/0.2/cached_ops/%s/%s.so" % (name, name): elf(blob(name, size)),
             "flashinfer/0.2/cached_ops/%s/.ninja_log" % name: b"# v5\n1\t2\t3\t%s.so\tab\n" %
             name.encode(),
             "flashinfer/0.2/cached_ops/%s/build.ninja" % name: b"rule x"}
    for part in "ab":
        files["flashinfer/0.2/generated/%s/%s.cu" % (name, part)] = blob(name + part, size)
    return files


def other_file(name, size=1000):
    """Under no profile's root: a group of its own, not self-keyed."""
    return {"own/%s.bin" % name: blob(name, size)}


class Tree:
    """Groups: a list of {path: bytes}, each right only as a whole."""

    def __init__(self, groups):
        self.groups = [dict(g) for g in groups]

    @property
    def files(self):
        return {p: d for g in self.groups for p, d in g.items()}

    def write(self, volume, old=True):
        for path, data in self.files.items():
            full = os.path.join(volume, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as f:
                f.write(data)
            if old:
                os.utime(full, (time.time() - 100, time.time() - 100))

    def __add__(self, other):
        return Tree(self.groups + other.groups)


def small_tree(name="a", triton=3, others=2):
    return Tree([triton_group("%s%d" % (name, i)) for i in range(triton)] +
                [inductor_file("%s%d" % (name, i)) for i in range(others)] +
                [fxgraph_file("%s%d" % (name, i)) for i in range(others)])


def snapshot(top, ours=False):
    """{path: bytes} of the files below `top`, links as text; .warmcache only with `ours`."""
    found = {}
    for where, dirs, files in os.walk(top):
        if not ours and where == top:
            dirs[:] = [d for d in dirs if d != ".warmcache"]
        for name in files + [d for d in dirs if os.path.islink(os.path.join(where, d))]:
            full = os.path.join(where, name)
            rel = os.path.relpath(full, top)
            if os.path.islink(full):
                found[rel] = b"-> " + os.readlink(full).encode()
            elif os.path.isfile(full):
                with open(full, "rb") as f:
                    found[rel] = f.read()
            else:
                found[rel] = b"special"
    return found


def check_whole(volume, tree, what="", foreign=()):
    """Each group is there wholly or not at all, byte for byte, and nothing else is. Returns how
    many are there."""
    have = snapshot(volume)
    n = 0
    for group in tree.groups:
        there = [p for p in group if p in have]
        if not there or sorted(there) == sorted(p for p in group if "/generated/" in p):
            continue
        assert len(there) == len(group), "%s: torn group: of %s only %s" % (
            what, sorted(group), sorted(there))
        for path in there:
            assert have[path] == group[path], "%s: %s has other bytes (%d for %d)" % (
                what, path, len(have[path]), len(group[path]))
        n += 1
    extra = set(have) - set(tree.files) - set(foreign)
    assert not extra, "%s: not of the cache: %s" % (what, sorted(extra)[:3])
    return n


def check_store(store, tree=None):
    """Every object parses to its end, and holds whole groups only. Returns all groups' names."""
    names = []
    for path in layer.objects(store):
        _, contents = layer.read(path)
        got = layer.read(path)[0]
        names += [g["name"] for g in got.groups]
        if tree is None:
            continue
        for group in tree.groups:
            there = [p for p in group if p in contents]
            assert not there or len(there) == len(group), "a torn group in %s" % path
            for p in there:
                assert contents[p] == group[p], "%s in %s has other bytes" % (p, path)
        extra = set(contents) - set(tree.files)
        assert not extra, "not of the tree: %s" % sorted(extra)[:3]
    return names


# ---- programs ----

class Result:
    def __init__(self, code, err, result, took):
        self.code, self.err, self.json, self.took = code, err, result, took

    @property
    def status(self):
        return self.json["status"]

    def __repr__(self):
        return "exit %s, %s\n%s" % (self.code, self.json, self.err)


class Sidecar:
    def __init__(self, args, env, look=lambda: None):
        self.lines, self._look = [], look
        self.process = subprocess.Popen(args, env=env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True, errors="replace")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    @property
    def log(self):
        return "\n".join(self.lines)

    def count(self, text):
        return sum(text in line for line in list(self.lines))

    def wait_for(self, text, n=1, timeout=20):
        end = time.monotonic() + timeout
        while self.count(text) < n:
            assert time.monotonic() < end, "no '%s' in:\n%s" % (text, self.log)
            assert self.process.poll() is None or self.count(text) >= n or self._drain(), \
                "the sidecar ended (%s):\n%s" % (self.process.returncode, self.log)
            time.sleep(0.02)
        self._look()

    def _drain(self):
        self._reader.join(1)
        return False

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=20):
        code = self.process.wait(timeout)
        self._reader.join(5)
        self._look()
        assert "Sanitizer" not in self.log and "runtime error:" not in self.log, self.log
        return code

    def stop(self, timeout=20):
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError("SIGTERM didn't end it in %d s:\n%s" % (timeout, self.log))

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        self._look()


class Context:
    """One test's own directory and what it started."""

    _runtime = None  # whether the programs carry a sanitizer
    kind = None  # a kind of store in a directory's place: kinds.py

    def __init__(self, bin_dir, quick, name):
        self.bin = os.path.abspath(bin_dir)
        self.quick = quick
        self.tmp = tempfile.mkdtemp(prefix="warm-%s." % name[:20],
                                    dir=self.kind.parent if self.kind else None)
        os.chmod(self.tmp, 0o755)
        self.store = self.path("store")
        self.volume = self.dir("volume")
        self.random = random.Random(name)
        self.secrets, self.written = set(), []  # see check_secrets()
        self._undo = contextlib.ExitStack()
        self._n = 0

    def check_secrets(self):
        """Nothing that a program wrote holds what a store's login is made of. `written` has texts,
        and functions that give one."""
        text = "\n".join(w if isinstance(w, str) else w() for w in self.written)
        leaks = [s for s in self.secrets if s in text]
        assert not leaks, "a log holds a secret: %s" % leaks
        found = re.search("authorization: |x-amz-signature=|aws4-hmac|bearer [a-z0-9]{8}", text,
                          re.IGNORECASE)
        assert not found, "a log holds a signature: %s" % text[found.start() - 200:found.end() + 80]

    def path(self, *parts):
        return os.path.join(self.tmp, *parts)

    def dir(self, name):
        os.makedirs(self.path(name), exist_ok=True)
        return self.path(name)

    def clear(self, path=None):
        """Empty a directory, keeping its path: Triton's groups are bound to it."""
        path = path or self.volume
        shutil.rmtree(path)
        os.mkdir(path)

    def fresh(self, stem="v"):
        self._n += 1
        return self.dir("%s%d" % (stem, self._n))

    def undo(self, fn, *args):
        self._undo.callback(fn, *args)

    def end(self):
        try:
            self._undo.close()
        finally:
            subprocess.call(["chmod", "-R", "u+rwX", self.tmp], stderr=subprocess.DEVNULL)
            shutil.rmtree(self.tmp, ignore_errors=True)

    @property
    def libfault(self):
        return os.path.join(os.path.dirname(self.bin), "tests", "libfault.so")

    def _sanitized(self):
        if Context._runtime is None:
            with open(os.path.join(self.bin, "warmcache-init"), "rb") as f:
                data = f.read()
            Context._runtime = b"__asan_init" in data or b"__tsan_init" in data
        return Context._runtime

    def compile(self, source, name, *flags):
        need("cc")
        out = self.path(name)
        subprocess.check_call(["cc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", out,
                               source] + list(flags))
        return out

    def disk(self, where, rate=None):
        """Environment of a program for which the directory `where` lies on a bad disk: fsync hangs
        there, or with `rate` it takes so many bytes a second."""
        library = self.compile(os.path.join(ROOT, "tests/fault/disk.c"), "libdisk.so")
        return self.env(preload=library, BAD_DISK=where,
                        **({"BAD_DISK_RATE": rate} if rate else {}))

    def env(self, fault=None, preload=None, **more):
        env = {k: v for k, v in os.environ.items() if not HEEDED.match(k)}
        env.update(self.kind.env if self.kind else {})
        if preload is not None and self._sanitized():
            raise Skip("a sanitizer's runtime must come first")
        # The programs' own leaks and races are other tests' business; malloc faults need that
        # nothing else stands in between.
        if fault is not None or "WARM_FAULT_COUNT" in more or "WARM_FAULT_BOOT_ID" in more:
            if not os.path.exists(self.libfault):
                raise Skip("needs libfault.so")
            if self._sanitized():
                raise Skip("a sanitizer's runtime must come first")
            preload = self.libfault
        if preload is not None:
            env["LD_PRELOAD"] = preload
        if fault is not None:
            env["WARM_FAULT"] = fault
        env.update({k: str(v) for k, v in more.items()})
        return env

    def url(self, path, write=False):
        """What to give to a program as --store, for the directory `path`."""
        return self.kind.url(self, path, write) if self.kind else path

    def look(self):
        """After a program that isn't run by init() or sidecar(): what it left is to be seen."""
        if self.kind:
            self.kind.look(self)

    def target(self, volume, store, model, version, write=False):
        args = ["--volume", volume or self.volume, "--model", model, "--version", version]
        stores = store if isinstance(store, list) else [store or self.store]
        for one in stores[:-1] + [self.url(stores[-1], write)]:  # those before it are near
            args += ["--store", one]
        return args

    def init(self, *args, volume=None, store=None, model="m", version="v1", env=None, prefix=(),
             bare=False, timeout=TIMEOUT, strict=True):
        """Run warmcache-init; the result must be JSON of at most 1 KiB with all fields."""
        fd, out = tempfile.mkstemp(dir=self.tmp, prefix="result.")
        os.fchmod(fd, 0o666)
        os.close(fd)
        line = list(prefix) + [os.path.join(self.bin, "warmcache-init")]
        line += [] if bare else self.target(volume, store, model, version)
        line += ["--result", out] + list(args)
        start = time.monotonic()
        p = subprocess.run(line, env=env or self.env(), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                           text=True, errors="replace")
        took = time.monotonic() - start
        self.look()
        with open(out, "rb") as f:
            raw = f.read()
        os.unlink(out)
        self.written += [p.stderr, p.stdout, raw.decode(errors="replace")]
        assert p.returncode not in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS), p.stderr
        assert "Sanitizer" not in p.stderr and "runtime error:" not in p.stderr, p.stderr
        result = None
        if raw:
            assert len(raw) <= 1024, "the result has %d bytes" % len(raw)
            try:
                result = json.loads(raw.decode())
            except ValueError as e:
                raise AssertionError("the result is no JSON: %s: %r" % (e, raw))
            lacks = FIELDS - set(result)
            lacks |= {"list", "index", "fetch", "place"} - set(result.get("phases", ()))
            assert not lacks or not strict, "fields that lack: %s" % lacks
            result = None if lacks else result
        return Result(p.returncode, p.stderr, result, took)

    def sidecar(self, *args, volume=None, store=None, model="m", version="v1", env=None,
                prefix=()):
        line = list(prefix) + [os.path.join(self.bin, "warmcache-sidecar")]
        line += self.target(volume, store, model, version, write=True)
        # Nobody else is there to be waited for.
        s = Sidecar(line + ["--spread=0"] + list(args), env or self.env(), self.look)
        self.written.append(lambda: s.log)
        self.undo(s.kill)
        return s

    def publish(self, tree=None, *args, volume=None, **kw):
        """Publish `tree` by a sidecar that is told to end at once. Returns its log."""
        volume = volume or self.fresh("model")
        if tree is not None:
            tree.write(volume)
        s = self.sidecar("--settle=0", *args, volume=volume, **kw)
        s.wait_for("state=started")
        assert s.stop() == 0, s.log
        return s.log

    def run(self, *args, code=0, env=None):
        """Run `warmcache` as it is given."""
        p = subprocess.run([os.path.join(self.bin, "warmcache")] + list(args),
                           env=env or self.env(), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
        self.written += [p.stdout, p.stderr]
        assert p.returncode == code, "exit %d: %s\n%s" % (p.returncode, p.stdout, p.stderr)
        return p

    def mount(self, *args):
        """mount ...; undone at the test's end."""
        need_root()
        need("mount")
        if subprocess.call(["mount"] + list(args), stderr=subprocess.DEVNULL) != 0:
            raise Skip("mount %s is refused here" % " ".join(args))
        if "remount" not in " ".join(args):
            self.undo(subprocess.call, ["umount", "-l", args[-1]])

    def as_nobody(self):
        """Command line prefix that drops root."""
        need_root()
        need("setpriv")
        return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


# ---- remote stores ----

def bare_env(t, **more):
    """The environment of a program that finds no login but what a test gives it."""
    return t.env(**{"HOME": t.dir("home"), "AWS_EC2_METADATA_DISABLED": "true", **more})


def some_tree(name="a", n=5):
    return Tree([inductor_file("%s%d" % (name, i)) for i in range(n)] + [fxgraph_file(name)])


def round_trip(t, store, tree=None, **kw):
    """Published and restored through the same store."""
    tree = tree or some_tree()
    log = t.publish(tree, store=store, **kw)
    volume = t.fresh("out")
    r = t.init(store=store, volume=volume, **kw)
    assert r.code == 0 and r.status == "warm", (r, log)
    assert check_whole(volume, tree) == len(tree.groups)
    return r


def fails_open(t, *words, volume=None, **kw):
    """Exit 0, an empty volume that can be used, and a reason that holds all words."""
    volume = volume or t.fresh("failed")
    r = t.init(volume=volume, **kw)
    assert r.code == 0 and r.status in ("error", "cold"), r
    assert snapshot(volume) == {}, r
    for word in words:
        one = word if isinstance(word, tuple) else (word,)
        assert any(w.lower() in r.json["reason"].lower() for w in one), (word, r)
    strict = t.init("--require", volume=volume, **kw)
    assert strict.code > 0, strict
    return r


class Failures:
    """`with failures:` notes a failed assertion and goes on; tell() raises what was noted."""

    def __init__(self):
        self.noted = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, AssertionError):
            self.noted.append(str(error))
            return True
        return False

    def tell(self):
        if self.noted:
            raise AssertionError("%d failures, among them:\n- %s" % (
                len(self.noted), "\n- ".join(f[:900] for f in self.noted[:3])))


def counts(path):
    with open(path) as f:
        return {k: int(v) for k, v in (line.split() for line in f)}


def sweep(total, quick, dense=40):
    """1..total: all of the first, then in growing steps."""
    n, at = [], 1
    while at <= total:
        n.append(at)
        step = max(1, (at - dense) // (6 if quick else 25)) if at > dense else 1
        at += step
    return n
