# SPDX-License-Identifier: Apache-2.0
"""The sidecar in production, as docs/sidecar.md has it: the pod's end as the kubelet makes it,
readiness, many replicas, secrets, bad caches, what it tells, restarts."""

import fcntl
import glob
import http.client
import json
import os
import re
import signal
import socket
import string
import struct
import subprocess
import sys
import threading
import time

import fakes
import layer
import servers
from fakes import Reply
from support import (MACHINE, Skip, Tree, blob, check_store, check_whole, elf, flashinfer_group,
                     fxgraph_file, inductor_file, need, small_tree, snapshot, triton_group,
                     wait_until)

HERE = os.path.dirname(os.path.abspath(__file__))
PUBLISHED = "INFO warmcache-sidecar: published"
ENDED = {"status", "key", "layers", "groups", "files", "bytes", "failures", "waiting", "torn",
         "withheld", "complete", "ready", "used", "inert", "quarantined", "reason"}


# ---- what several tests look at ----

def _stored(t, store=None):
    """{path: bytes} of all that the store's layers hold."""
    found = {}
    for path in layer.objects(store or t.store):
        found.update(layer.read(path)[1])
    return found


def _holds(t, tree, store=None):
    stored = _stored(t, store)
    return all(stored.get(p) == d for p, d in tree.files.items())


def _marks(t, store=None):
    return [p for p in layer.objects(store or t.store) if layer.read(p)[0].complete is not None]


def _complete(t, store=None):
    shown = t.run("show", "--json", "--store", t.url(store or t.store), "--model", "m",
                  "--version", "v1")
    return json.loads(shown.stdout)["complete"]


def _wait_stored(t, tree, s, timeout=15, store=None):
    try:
        wait_until("in the store", lambda: _holds(t, tree, store), timeout)
    except AssertionError as e:
        raise AssertionError("%s\n%s" % (e, s.log))


def _warnings(s, event):
    return [line for line in list(s.lines) if " WARN warmcache-sidecar: %s:" % event in line]


def _last_status(s):
    lines = [line for line in list(s.lines) if " status: " in line]
    return dict(f.split("=", 1) for f in lines[-1].split(" status: ")[1].split() if "=" in f)


def _told(path):
    """The termination message."""
    with open(path, "rb") as f:
        raw = f.read()
    assert 0 < len(raw) <= 1024, "%d bytes" % len(raw)
    try:
        return json.loads(raw.decode())
    except ValueError as e:
        raise AssertionError("no JSON: %s: %r" % (e, raw))


def _write(volume, files):
    Tree([files]).write(volume, old=False)


def _read(volume, files):
    for path in files:
        with open(os.path.join(volume, path), "rb") as f:
            f.read()


def _size(files):
    return sum(len(d) for d in files.values())


def _need_atime(t):
    """Reads leave a trace here."""
    path = t.path("atime-probe")
    with open(path, "wb") as f:
        f.write(b"x")
    os.utime(path, (1000, 2000))
    with open(path, "rb") as f:
        f.read()
    if os.stat(path).st_atime == 1000:
        raise Skip("reads don't move atime here")


def _restored(t, tree, volume=None, **kw):
    """`tree` in the store, unmarked, and restored into the volume; none of it was read."""
    tree.write(t.volume)
    t.publish(None, "--complete-after=1h", volume=t.volume)
    t.clear()
    if volume:
        t.clear(volume)
    r = t.init(volume=volume or t.volume, **kw)
    assert r.status == "warm", r
    assert r.json["files"] == len(tree.files), r


class _Model(fakes.Fake):
    """What the model's server answers; anything at first but that it is ready."""

    def __init__(self, t, reply=None):
        self.reply = reply or Reply(503, {}, "starting")
        super().__init__(t)
        self.at = self.url + "/health-check"

    def handle(self, request):
        return self.reply

    def ready(self):
        self.reply = Reply(200, {}, '{"status": "READY"}')

    def asked(self, n=1):
        """Asked n times from here on."""
        before = len(self.requests)
        wait_until("asked whether it is ready", lambda: len(self.requests) >= before + n)


def _raw_server(t, act):
    """A server that does act(connection) for each; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    held = []

    def one(c):
        try:
            act(c)
        except OSError:
            pass  # the client left

    def serve():
        while True:
            try:
                c, _ = listener.accept()
            except OSError:
                return
            held.append(c)
            threading.Thread(target=one, args=(c,), daemon=True).start()

    def stop():
        listener.close()
        for c in held:
            c.close()
    threading.Thread(target=serve, daemon=True).start()
    t.undo(stop)
    return listener.getsockname()[1]


def _get(port, path, method="GET", body=None, address="127.0.0.1"):
    """(status, headers, body)"""
    c = http.client.HTTPConnection(address, port, timeout=5)
    try:
        c.request(method, path, body=body)
        r = c.getresponse()
        return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read().decode()
    finally:
        c.close()


def _listens(port):
    def answers():
        try:
            return _get(port, "/healthz")[0] > 0
        except OSError:
            return False
    wait_until("port %d answers" % port, answers)


def _metrics(port):
    """{name{labels}: value}, without the common beginning."""
    code, _, text = _get(port, "/metrics")
    assert code == 200, (code, text)
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name[10:] if name.startswith("warmcache_") else name] = float(value)
    return found


def _labelled(metrics, name, **labels):
    """The sum of the series of this name that have these labels."""
    total = 0
    for series, value in metrics.items():
        if series.partition("{")[0] == name and all(
                '%s="%s"' % (k, v) in series for k, v in labels.items()):
            total += value
    return total


# ---- the pod's end ----

def _held(volume):
    """Whether somebody has the lock by which --pre-stop finds the sidecar."""
    try:
        with open(os.path.join(volume, ".warmcache/sidecar"), "r+b") as f:
            asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            got = fcntl.fcntl(f, fcntl.F_GETLK, asked)
            return struct.unpack("hhqqi", got)[0] != fcntl.F_UNLCK
    except OSError:
        return False


def _pre_stop(t, volume=None, code=0, by_env=False):
    if code == 0:  # a sidecar that starts takes the lock a little later
        wait_until("a sidecar holds the volume", lambda: _held(volume or t.volume))
    line = [os.path.join(t.bin, "warmcache-sidecar"), "--pre-stop"]
    env = t.env(**({"WARM_VOLUME": volume or t.volume} if by_env else {}))
    line += [] if by_env else ["--volume", volume or t.volume]
    start = time.monotonic()
    p = subprocess.run(line, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=20)
    took = time.monotonic() - start
    t.written.append(p.stdout)
    assert p.returncode == code, "exit %d: %s" % (p.returncode, p.stdout)
    assert took < 2, "it took %.1f s" % took
    return p.stdout


def after_pre_stop_what_is_renamed_or_proven_goes_out_at_once(t):
    s = t.sidecar("--settle=1h", "--interval=1h")
    s.wait_for("state=started")
    first = Tree([inductor_file("a"), fxgraph_file("a"), triton_group("a"),
                  flashinfer_group("a"), {"inductor/ab/ca.so": elf(b"whole")}])
    first.write(t.volume, old=False)
    time.sleep(1.2)
    assert layer.objects(t.store) == [], "published before it settled"
    _pre_stop(t)
    _wait_stored(t, first, s, 4)
    second = Tree([inductor_file("b"), triton_group("b")])
    second.write(t.volume, old=False)
    _wait_stored(t, second, s, 4)
    time.sleep(0.5)
    assert s.process.poll() is None, "it ended at T0:\n%s" % s.log
    start = time.monotonic()
    assert s.stop(10) == 0, s.log
    assert time.monotonic() - start < 4, s.log
    names = check_store(t.store, first + second)
    assert len(names) == len(set(names)) == 7, names


def after_pre_stop_a_volume_without_events_is_looked_at_each_second(t):
    s = t.sidecar("--settle=1h", "--interval=1h", "--max-watches=1")
    s.wait_for("state=started")
    _pre_stop(t)
    for name in "ab":
        tree = Tree([inductor_file(name), triton_group(name)])
        tree.write(t.volume, old=False)
        _wait_stored(t, tree, s, 5)
    assert s.stop() == 0, s.log


def after_pre_stop_torn_objects_stay_out(t):
    whole = elf(blob("x", 4000))
    torn = {"inductor/ab/c%d.so" % n: whole[:n] for n in (0, 1, 63, 64, 1000, len(whole) - 1)}
    part = {p: d for p, d in triton_group("cut").items() if "__grp__" not in p}
    _write(t.volume, {**torn, **part})
    s = t.sidecar("--settle=0", "--interval=1h")
    s.wait_for("state=started")
    _pre_stop(t)
    mark = Tree([inductor_file("a")])
    mark.write(t.volume, old=False)
    _wait_stored(t, mark, s)
    # What is still open for writing waits, whatever its name says of it.
    with open(os.path.join(t.volume, "inductor/busy.tmp"), "wb") as f:
        f.write(b"half")
        f.flush()
        busy = os.path.join(t.volume, *inductor_file("busy"))
        os.makedirs(os.path.dirname(busy), exist_ok=True)
        os.rename(f.name, busy)
        time.sleep(2.2)
        assert sorted(_stored(t)) == sorted(mark.files), s.log
        assert s.stop() == 0, s.log
    assert sorted(_stored(t)) == sorted(mark.files), s.log


def pre_stop_tells_the_sidecar_of_this_volume_alone(t):
    here, there = t.fresh("here"), t.fresh("there")
    tree = Tree([inductor_file("a")])
    store_here, store_there = t.path("store-here"), t.path("store-there")
    told = t.sidecar("--settle=1h", volume=here, store=store_here)
    other = t.sidecar("--settle=1h", volume=there, store=store_there)
    for s, volume in ((told, here), (other, there)):
        s.wait_for("state=started")
        tree.write(volume, old=False)
    _pre_stop(t, here, by_env=True)
    _wait_stored(t, tree, told, 5, store_here)
    time.sleep(1.5)
    assert layer.objects(store_there) == [], other.log
    assert told.stop() == 0 and other.stop() == 0


def pre_stop_fails_with_a_message_where_no_sidecar_is(t):
    assert _pre_stop(t, code=1).strip()
    assert _pre_stop(t, t.path("gone"), code=1).strip()
    assert not os.path.exists(t.path("gone"))
    s = t.sidecar("--settle=1h")
    s.wait_for("state=started")
    _pre_stop(t)
    s.kill()
    # The file is still there; who held it isn't.
    assert _pre_stop(t, code=1).strip()
    # A pid that was written down says nothing: another process has it by now.
    with open(os.path.join(t.volume, ".warmcache/sidecar"), "w") as f:
        f.write("%d\n" % os.getpid())
    assert _pre_stop(t, code=1).strip()


def what_the_model_puts_in_the_locks_place_hangs_nobody(t):
    """The model can write there: a FIFO, a link, a directory."""
    ours = os.path.join(t.dir("volume"), ".warmcache")
    victim = t.path("victim")
    with open(victim, "w") as f:
        f.write("mine")
    makers = [os.mkfifo, lambda p: os.symlink(victim, p), lambda p: os.symlink("gone", p), os.mkdir]
    for i, make in enumerate(makers):
        t.clear()
        os.mkdir(ours)
        make(os.path.join(ours, "sidecar"))
        tree = Tree([inductor_file("a%d" % i)])
        tree.write(t.volume)
        _pre_stop(t, code=1)
        s = t.sidecar("--settle=0", "--interval=1h")
        _wait_stored(t, tree, s)
        assert s.stop() == 0, s.log
        with open(victim) as f:
            assert f.read() == "mine"
    assert not os.path.exists(os.path.join(ours, "gone"))


def pre_stop_from_another_pid_namespace_fails_and_signals_nobody(t):
    """The holder's pid is 0 there, which would be the whole process group."""
    need("unshare")
    if subprocess.call(["unshare", "--pid", "--fork", "true"], stderr=subprocess.DEVNULL) != 0:
        raise Skip("no PID namespace is to be had here")
    s = t.sidecar("--settle=1h", "--interval=1h")
    s.wait_for("state=started")
    _pre_stop(t)
    p = subprocess.run(["unshare", "--pid", "--fork", os.path.join(t.bin, "warmcache-sidecar"),
                        "--pre-stop", "--volume", t.volume], env=t.env(), timeout=20,
                       start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert p.returncode == 1 and p.stdout.strip(), p
    assert s.stop() == 0, s.log


def sigusr2_is_pre_stop_and_may_come_twice(t):
    s = t.sidecar("--settle=1h", "--interval=1h")
    s.wait_for("state=started")
    tree = Tree([inductor_file("a"), triton_group("a")])
    tree.write(t.volume, old=False)
    for _ in range(3):
        s.signal(signal.SIGUSR2)
    _wait_stored(t, tree, s, 5)
    s.signal(signal.SIGUSR2)
    s.signal(signal.SIGUSR1)
    time.sleep(0.5)
    assert s.process.poll() is None, s.log
    assert s.stop(8) == 0, s.log


def pre_stop_finds_it_after_the_volume_has_changed(t):
    """Another directory came in its place, init ran again, rounds went by."""
    s = t.sidecar("--settle=0", "--interval=1h")
    first, second, third = (Tree([inductor_file(n)]) for n in "abc")
    first.write(t.volume)
    _wait_stored(t, first, s)
    os.rename(t.volume, t.path("away"))
    t.dir("volume")
    second.write(t.volume)
    s.signal(signal.SIGUSR1)
    time.sleep(0.5)
    s.signal(signal.SIGUSR1)
    _wait_stored(t, second, s)
    assert t.init().code == 0
    s.signal(signal.SIGUSR1)
    time.sleep(0.5)
    _pre_stop(t)
    third.write(t.volume, old=False)
    _wait_stored(t, third, s, 5)
    assert s.stop() == 0, s.log


def sigusr2_does_not_end_a_disabled_sidecar(t):
    s = t.sidecar("--settle=soon")
    s.wait_for("state=disabled")
    s.signal(signal.SIGUSR2)
    time.sleep(0.3)
    assert s.process.poll() is None, s.log
    assert s.stop(5) == 0, s.log


def a_store_that_comes_back_after_pre_stop_gets_all(t):
    with open(t.store, "w") as f:
        f.write("in the way")
    s = t.sidecar("--settle=1h", "--interval=1h")
    s.wait_for("state=started")
    tree = Tree([inductor_file("a"), triton_group("a")])
    tree.write(t.volume, old=False)
    _pre_stop(t)
    s.wait_for("publish-failed")
    time.sleep(1.5)
    os.unlink(t.store)
    _wait_stored(t, tree, s, 10)
    assert s.stop() == 0, s.log


class _Bucket(fakes.Fake):
    """As much of S3 as puts need; what is put lies in a directory. `stuck` puts get no answer."""

    def __init__(self, t, directory):
        self.directory, self.stuck = directory, 0
        super().__init__(t)
        self.store = "s3://bucket?anonymous=true&endpoint=" + self.url

    def handle(self, request):
        below = request.path[len("/bucket"):].strip("/")
        if request.method == "PUT":
            with self.lock:
                stuck = self.stuck > 0
                self.stuck -= stuck
            if stuck:
                self.ended.wait(60)
                return None
            path = os.path.join(self.directory, below)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(request.body)
            return Reply(200, {"ETag": '"x"'})
        if "list-type" in request.query:
            prefix = request.query.get("prefix", "")
            keys = [os.path.relpath(p, self.directory) for p in layer.objects(self.directory)]
            return Reply(200, {"Content-Type": "application/xml"}, (
                "<ListBucketResult><IsTruncated>false</IsTruncated>%s</ListBucketResult>" % "".join(
                    "<Contents><Key>%s</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    "<ETag>x</ETag><Size>%d</Size></Contents>" % (
                        k, os.path.getsize(os.path.join(self.directory, k)))
                    for k in sorted(keys) if k.startswith(prefix))))
        path = os.path.join(self.directory, below)
        if not os.path.isfile(path):
            return Reply(404)
        with open(path, "rb") as f:
            data = f.read()
        wanted = re.match(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
        if not wanted:
            return Reply(200, {"ETag": '"x"'}, data)
        first, last = wanted.groups()
        start = int(first) if first else len(data) - int(last)
        end = int(last) + 1 if first and last else len(data)
        return Reply(206, {"ETag": '"x"', "Content-Range": "bytes %d-%d/%d" % (
            start, min(end, len(data)) - 1, len(data))}, data[start:end])


def a_put_that_hangs_when_the_end_begins_does_not_hold_the_rest(t):
    """A connection is dead: what is new goes out by another before the kubelet's SIGTERM."""
    bucket = _Bucket(t, t.dir("bucket"))
    s = t.sidecar("--settle=0", "--interval=0s", store=bucket.store)
    before = Tree([inductor_file("a")])
    before.write(t.volume)
    _wait_stored(t, before, s, store=bucket.directory)
    bucket.stuck = 1
    Tree([inductor_file("b")]).write(t.volume)
    wait_until("a put hangs", lambda: bucket.stuck == 0)
    _pre_stop(t)
    rest = Tree([inductor_file("b"), inductor_file("c"), triton_group("c")])
    rest.write(t.volume, old=False)
    _wait_stored(t, rest, s, 20, bucket.directory)
    assert s.stop() == 0, s.log
    assert len(check_store(bucket.directory, before + rest)) == 4, s.log


def pre_stop_lifts_the_cpu_limit(t):
    """At one percent of a CPU these take half a minute."""
    tree = Tree([{p: os.urandom(2 << 20).hex().encode() for p in inductor_file(str(i))}
                 for i in range(16)])
    tree.write(t.volume)
    s = t.sidecar("--settle=0", "--interval=1h", "--cpu-limit=1")
    s.wait_for("state=started")
    time.sleep(1.5)
    _pre_stop(t)
    _wait_stored(t, tree, s, 28)
    assert s.stop() == 0, s.log


def a_round_at_work_makes_room_when_the_end_begins(t):
    """It takes long, and what is new since then would wait for all of it."""
    backlog = Tree([{p: blob(p, 4 << 20) for p in inductor_file("b%d" % i)} for i in range(12)])
    backlog.write(t.volume)
    s = t.sidecar("--settle=0", "--interval=1h", "--cpu-limit=0",
                  env=t.disk(t.store, rate=8 << 20))
    wait_until("a put is under way", lambda: any(files for _, _, files in os.walk(t.store)))
    late = Tree([inductor_file("late")])
    late.write(t.volume, old=False)
    _pre_stop(t)
    _wait_stored(t, backlog + late, s, 40)
    assert s.stop() == 0, s.log
    layers = sorted((layer.read(p) for p in layer.objects(t.store)), key=lambda one: one[0].id)
    seen = set()
    for _, contents in layers:
        if set(late.files) <= set(contents):
            break
        seen.update(contents)
    assert len(layers) > 2 and not set(backlog.files) <= seen, "it waited for all:\n%s" % s.log


MODEL = """
import os, signal, sys, time
sys.path.insert(0, %r)
from support import elf, inductor_file, triton_group
volume, mode, until = sys.argv[1], sys.argv[2], None
def term(number, frame):
    global until
    if mode == "exits":
        os._exit(0)
    if mode == "drains":
        until = time.monotonic() + 4
signal.signal(signal.SIGTERM, term)
def put(path, data):
    full = os.path.join(volume, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full + ".tmp.1", "wb") as f:
        f.write(data)
    os.replace(full + ".tmp.1", full)
def link(n):  # what a linker does: in place, and the end comes late
    full = os.path.join(volume, "inductor/zz/c%%d.so" %% n)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as f:
        f.write(elf(b"x" * 5000)[:1000])
n = 0
while until is None or time.monotonic() < until:
    group = triton_group("m%%d" %% n, 500) if n %% 2 else inductor_file("m%%d" %% n)
    for path, data in group.items():
        put(path, data)
    print(n, time.monotonic(), flush=True)
    link(n)
    n += 1
    time.sleep(0.04)
"""


class _Kubelet:
    """A pod of a model that compiles all the time, and a sidecar."""

    def __init__(self, t, mode, env=None, options=("--settle=1h", "--interval=1h")):
        self.t = t
        self.sidecar = t.sidecar(*options, env=env)
        self.sidecar.wait_for("state=started")
        self.log = t.path("model.log")
        with open(self.log, "w") as out:
            self.model = subprocess.Popen([sys.executable, "-c", MODEL % HERE, t.volume, mode],
                                          stdout=out, stdin=subprocess.DEVNULL)
        t.undo(self.end_model)
        wait_until("the model compiles", lambda: len(self.written()) > 5)

    def end_model(self):
        if self.model.poll() is None:
            self.model.kill()
        self.model.wait()

    def written(self):
        """[(n, when it was whole)]"""
        with open(self.log) as f:
            lines = f.read().split("\n")[:-1]
        return [(int(n), float(when)) for n, when in (line.split() for line in lines)]

    def delete(self, grace, hook=True, kill_at_once=False):
        """The pod's end: preStop and the model's SIGTERM, then the sidecar's. Its exit code, None
        when it had to be killed."""
        start = time.monotonic()
        if hook:
            _pre_stop(self.t)
        self.model.terminate()
        try:
            self.model.wait(grace)
        except subprocess.TimeoutExpired:
            self.end_model()
        self.told = time.monotonic()
        if kill_at_once:
            self.sidecar.kill()
            return None
        self.sidecar.signal(signal.SIGTERM)
        try:
            return self.sidecar.wait(max(2, grace - (time.monotonic() - start)))
        except subprocess.TimeoutExpired:
            self.sidecar.kill()
            return None

    def check(self, before=None):
        """The store holds whole groups only, and all that was whole `before` s before SIGTERM, or
        all of them. Returns how many it lacks."""
        written = self.written()
        groups = {n: triton_group("m%d" % n, 500) if n % 2 else inductor_file("m%d" % n)
                  for n in range(written[-1][0] + 2)}
        names = check_store(self.t.store, Tree(groups.values()))
        assert len(names) == len(set(names)), "groups twice: %s" % self.sidecar.log
        stored = _stored(self.t)
        lacking = [(n, when) for n, when in written if not set(groups[n]) <= set(stored)]
        late = [(n, self.told - when) for n, when in lacking
                if before is None or when < self.told - before]
        assert not late, "lost, of %d: %s\n%s" % (len(written), late, self.sidecar.log)
        return len(lacking)


def a_model_that_ends_at_sigterm_loses_nothing(t):
    pod = _Kubelet(t, "exits")
    start = time.monotonic()
    assert pod.delete(30) == 0, pod.sidecar.log
    assert time.monotonic() - start < 10, pod.sidecar.log
    pod.check()


def a_model_that_drains_for_seconds_loses_nothing(t):
    pod = _Kubelet(t, "drains")
    assert pod.delete(30) == 0, pod.sidecar.log
    assert len(pod.written()) > 20
    pod.check()


def a_model_that_must_be_killed_loses_nothing_of_before(t):
    """It ignores SIGTERM; two seconds are left to the sidecar."""
    pod = _Kubelet(t, "ignores")
    code = pod.delete(4)
    assert code == 0, pod.sidecar.log
    pod.check(1.5)


def a_grace_shorter_than_assumed_costs_the_last_second_alone(t):
    """The sidecar is killed with no SIGTERM before; it was told of T0."""
    pod = _Kubelet(t, "ignores")
    pod.delete(5, kill_at_once=True)
    pod.check(2.5)
    # A pod with the next version of the same volume's store can be warm from it.
    t.clear()
    assert t.init().status == "warm"


def a_slow_store_at_the_pods_end_holds_whole_layers_only(t):
    """SIGKILL comes two seconds after SIGTERM, in the middle of a put."""
    pod = _Kubelet(t, "ignores", env=t.disk(t.store, rate=20000))
    pod.delete(2)
    check_store(t.store)
    pod.check(before=1000)
    volume = t.fresh("next")
    assert t.init(volume=volume).code == 0


def sigterm_alone_is_the_start_of_the_end(t):
    """Docker Compose and systemd know no preStop: T0 is SIGTERM."""
    pod = _Kubelet(t, "exits")
    assert pod.delete(10, hook=False) == 0, pod.sidecar.log
    pod.check()


# ---- readiness ----

def nothing_is_published_before_the_model_is_ready(t):
    model = _Model(t)
    tree = small_tree()
    tree.write(t.volume)
    s = t.sidecar("--settle=0", "--interval=1s", "--ready-url", model.at,
                  "--ready-match", '"status": *"READY"')
    elsewhere = {"Location": model.url + "/ready"}
    for reply in (Reply(503), Reply(302, elsewhere, '"status": "READY"'),
                  Reply(500, {}, '"status": "READY"'), Reply(404, {}, '"status": "READY"'),
                  Reply(200, {}, '{"status": "STARTING"}'), Reply(200), Reply(204),
                  Reply(200, {}, '"status": "READY"', length=100, only=7)):
        model.reply = reply
        model.asked()
        assert layer.objects(t.store) == [], (reply.status, s.log)
    assert len(model.requests) < 60, "asked %d times" % len(model.requests)
    model.ready()
    _wait_stored(t, tree, s)
    assert _complete(t) and len(_marks(t)) == 1, s.log
    # What comes after is published, and the mark stays.
    late = Tree([inductor_file("late")])
    late.write(t.volume)
    _wait_stored(t, late, s)
    assert s.stop() == 0, s.log
    assert _complete(t)
    assert t.init(volume=t.fresh("out")).json["complete"]


def a_model_whose_server_hung_is_asked_again(t):
    """Models that load don't accept or answer for a while: no request may wait for ever."""
    asked = []

    def act(c):
        asked.append(c.recv(1 << 16))
        if len(asked) > 1:
            body = b'{"status": "READY"}'
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        else:
            time.sleep(60)
    port = _raw_server(t, act)
    tree = Tree([inductor_file("a")])
    tree.write(t.volume)
    s = t.sidecar("--settle=0", "--ready-url", "http://127.0.0.1:%d/health-check" % port,
                  "--ready-match", "READY")
    _wait_stored(t, tree, s, 20)
    assert s.stop() == 0 and _complete(t), s.log


def without_a_match_any_2xx_is_ready(t):
    model = _Model(t)
    tree = small_tree()
    tree.write(t.volume)
    s = t.sidecar("--settle=0", "--ready-url", model.at)
    model.asked(2)
    assert layer.objects(t.store) == [], s.log
    model.reply = Reply(204)
    _wait_stored(t, tree, s)
    assert s.stop() == 0 and _complete(t), s.log


def a_model_that_is_ready_with_nothing_new_gets_a_mark_alone(t):
    tree = small_tree()
    _restored(t, tree)
    assert not _complete(t)
    before = layer.objects(t.store)
    model = _Model(t)
    s = t.sidecar("--settle=0", "--interval=1h", "--ready-url", model.at)
    model.asked(2)
    assert layer.objects(t.store) == before, s.log
    model.ready()
    wait_until("marked", lambda: _complete(t))
    added = sorted(set(layer.objects(t.store)) - set(before))
    assert len(added) == 1 and layer.read(added[0])[0].groups == [], s.log
    assert s.stop() == 0, s.log
    assert len(layer.objects(t.store)) == len(before) + 1, "marked twice: %s" % s.log
    # And a second pod doesn't mark it again.
    s = t.sidecar("--settle=0", "--interval=1s", "--ready-url", model.at)
    s.wait_for("INFO warmcache-sidecar: ready")
    time.sleep(1.5)
    assert s.stop() == 0
    assert len(layer.objects(t.store)) == len(before) + 1, s.log


def a_version_that_holds_nothing_is_not_complete_when_the_model_is_ready(t):
    model = _Model(t)
    model.ready()
    s = t.sidecar("--settle=0", "--interval=1s", "--complete-after=0", "--ready-url", model.at)
    s.wait_for("INFO warmcache-sidecar: ready")
    time.sleep(1.5)
    assert s.stop() == 0, s.log
    assert layer.objects(t.store) == [], s.log


def a_model_that_never_gets_ready_is_published_at_its_end_unmarked(t):
    """Whatever its server does: the sidecar lives, and SIGTERM ends it fast."""
    def endless(c):
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            c.sendall(b"x" * 65536)

    def endless_head(c):
        c.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            c.sendall(b"X-A: %s\r\n" % (b"x" * 1000))

    def silent(c):
        c.recv(1 << 16)
        time.sleep(60)

    def drips(c):
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            c.sendall(b"x")
            time.sleep(0.2)

    def garbage(c):
        c.sendall(b"\x00\xff not HTTP at all\r\n\r\n" * 20)
        c.close()
    ports = {f.__name__: _raw_server(t, f) for f in (endless, endless_head, silent, drips,
                                                     garbage)}
    ports["refuses"] = servers.free_port()
    tree = Tree([inductor_file("a")])
    running = {}
    for name, port in ports.items():
        volume, store = t.fresh(name), t.path("store-" + name)
        tree.write(volume)
        running[name] = store, t.sidecar(
            "--settle=0", "--interval=1s", "--complete-after=0", "--ready-url",
            "http://127.0.0.1:%d/health-check" % port, "--ready-match", "READY",
            volume=volume, store=store)
    time.sleep(3)
    for name, (store, s) in running.items():
        assert s.process.poll() is None, (name, s.log)
        assert layer.objects(store) == [], (name, s.log)
        s.signal(signal.SIGTERM)
    for name, (store, s) in running.items():
        start = time.monotonic()
        try:
            assert s.wait(8) == 0, (name, s.log)
        except subprocess.TimeoutExpired:
            raise AssertionError("%s: SIGTERM doesn't end it: %s" % (name, s.log))
        assert _holds(t, tree, store), (name, s.log)
        assert _marks(t, store) == [], (name, s.log)
        assert time.monotonic() - start < 6, (name, s.log)


def pre_stop_does_not_wait_for_the_model_to_get_ready(t):
    model = _Model(t)
    tree = small_tree()
    tree.write(t.volume, old=False)
    s = t.sidecar("--settle=1h", "--interval=1h", "--complete-after=0", "--ready-url", model.at)
    model.asked(2)
    assert layer.objects(t.store) == [], s.log
    _pre_stop(t)
    _wait_stored(t, tree, s, 5)
    assert s.stop() == 0, s.log
    assert _marks(t) == [], s.log


# ---- many replicas ----

def of_many_replicas_that_start_together_few_publish(t):
    shared = small_tree("r", 0, 8)  # none that is bound to a mount: their paths differ
    replicas = [t.fresh("replica") for _ in range(8)]
    for volume in replicas:
        shared.write(volume)
    running = [t.sidecar("--settle=0", "--interval=1h", "--spread=4s", volume=v)
               for v in replicas]
    for s in running:
        s.wait_for("state=started")
    _wait_stored(t, shared, running[0], 15)
    time.sleep(5)
    for s in running:
        s.signal(signal.SIGTERM)
    for s in running:
        assert s.wait() == 0, s.log
    names = check_store(t.store, shared)
    most = max(names.count(n) for n in names)
    assert most <= 3, "%d copies" % most
    assert len(set(names)) == len(shared.groups)


def one_replica_publishes_within_the_spread(t):
    tree = small_tree()
    tree.write(t.volume)
    s = t.sidecar("--settle=200ms", "--interval=1h", "--spread=3s")
    s.wait_for("state=started")
    _wait_stored(t, tree, s, 3 + 0.2 + 3)
    assert s.stop() == 0, s.log


def the_spread_is_never_longer_than_the_interval(t):
    tree = small_tree()
    tree.write(t.volume)
    s = t.sidecar("--settle=0", "--interval=1s", "--spread=10h")
    s.wait_for("state=started")
    _wait_stored(t, tree, s, 5)
    assert s.stop() == 0, s.log


def a_signal_ends_the_wait_of_the_spread(t):
    tree = small_tree()
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        t.clear()
        tree.write(t.volume)
        s = t.sidecar("--settle=0", "--interval=10h", "--spread=10h",
                      store=t.path("store-%d" % number))
        s.wait_for("state=started")
        time.sleep(0.5)
        assert layer.objects(t.path("store-%d" % number)) == [], "no wait: %s" % s.log
        s.signal(number)
        _wait_stored(t, tree, s, 4, t.path("store-%d" % number))
        assert (s.wait(8) if number == signal.SIGTERM else s.stop(8)) == 0, s.log


# ---- secrets ----

LETTERS = string.ascii_letters + string.digits


def _random(t, n, letters=LETTERS):
    return "".join(t.random.choice(letters) for _ in range(n))


def _secrets(t):
    """{kind: value}, made here so that no scanner takes this file for one that holds them."""
    upper = string.ascii_uppercase + "234567"
    dashes = "-" * 5

    def pem(kind):
        return "%sBEGIN %sPRIVATE%sKEY%s\n%s\n%sEND %sPRIVATE%sKEY%s" % (
            dashes, kind, " ", dashes, _random(t, 64), dashes, kind, " ", dashes)

    def jwt_part(n):
        return "eyJ" + _random(t, n)
    return {
        "pem": pem(""), "pem-rsa": pem("RSA "), "pem-ec": pem("EC "),
        "pem-openssh": pem("OPENSSH "),
        "aws": "AK" + "IA" + _random(t, 16, upper),
        "aws-temporary": "AS" + "IA" + _random(t, 16, upper),
        "github": "gh" + "p_" + _random(t, 36),
        "github-oauth": "gh" + "o_" + _random(t, 36),
        "github-app": "gh" + "s_" + _random(t, 36),
        "github-fine": "github" + "_pat_" + _random(t, 22) + "_" + _random(t, 59),
        "gitlab": "gl" + "pat-" + _random(t, 20),
        "huggingface": "h" + "f_" + _random(t, 34, string.ascii_letters),
        "slack": "xo" + "xb-" + _random(t, 12, string.digits) + "-" +
                 _random(t, 12, string.digits) + "-" + _random(t, 24),
        "openai": "s" + "k-" + _random(t, 20) + "T3Blbk" + "FJ" + _random(t, 20),
        "openai-project": "s" + "k-proj-" + _random(t, 74) + "T3Blbk" + "FJ" + _random(t, 74),
        "google": "AI" + "za" + "Sy" + _random(t, 33),
        "ngc": "nv" + "api-" + _random(t, 64),
        "jwt": jwt_part(33) + "." + jwt_part(60) + "." + _random(t, 43),
        "url": "https://user:" + _random(t, 12) + "@host.example/path",
        "url-database": "postgres" + "ql://app:" + _random(t, 12) + "@db.example:5432/x",
    }


def _secret_kinds_of(s):
    return [line for line in s.lines if " WARN warmcache-sidecar: secret:" in line]


def a_group_with_a_secret_in_a_text_stays_out(t):
    values = _secrets(t)
    good = small_tree()
    good.write(t.volume)
    bad = {}
    for i, (kind, value) in enumerate(sorted(values.items())):
        t.secrets.update(line for line in value.split("\n") if len(line) > 15 and
                         "PRIVATE" not in line)
        text = ("import torch\nx = 1  # é\ny = '%s'\nz = 2\n" % value).encode()
        bad[kind] = [{p: text for p in inductor_file("bad" + kind)},
                     {"own/%s.txt" % kind: text}][i % 2]
        _write(t.volume, bad[kind])
    s = t.sidecar("--settle=0", "--interval=1h")
    _wait_stored(t, good, s)
    assert s.stop() == 0, s.log
    stored = _stored(t)
    out = [kind for kind, files in bad.items() if set(files) & set(stored)]
    assert not out, "published with a secret: %s" % out
    assert sorted(stored) == sorted(good.files)
    for kind, files in bad.items():
        assert any(os.path.basename(p) in line for p in files for line in _secret_kinds_of(s)), \
            "no warning names the file of %s:\n%s" % (kind, s.log)
    withheld = int(_last_status(s)["withheld"])
    assert withheld == len(bad), s.log


def a_secret_anywhere_in_a_group_keeps_all_of_it_out(t):
    """Far into a large file, across whatever a reader's buffers end at, in one file of many."""
    value = _secrets(t)["github"]
    t.secrets.add(value)
    filler = b"# a line of a program that a compiler wrote\n"
    bad = []
    for at in (4096, 65536, 1 << 20, 3 << 20, 4 << 20):
        for before in (0, 1, 20, 39):
            data = (filler * (at // len(filler) + 1))[:at - before - 1] + b"\n"
            bad.append({"own/%d-%d.py" % (at, before): data + value.encode() + b"\n" +
                        filler * 3})
    for name in ("first", "last"):
        data = (value.encode() + b"\n" + filler) if name == "first" else filler + value.encode()
        bad.append({"own/%s.py" % name: data})
    group = triton_group("s")
    [inside] = [p for p in group if p.endswith("/k.json")]
    group[inside] = json.dumps({"name": "s", "env": value}).encode()
    bad.append(group)
    Tree(bad).write(t.volume)
    good = Tree([inductor_file("a"), triton_group("good")])
    good.write(t.volume)
    s = t.sidecar("--settle=0", "--interval=1h")
    _wait_stored(t, good, s)
    assert s.stop() == 0, s.log
    assert sorted(_stored(t)) == sorted(good.files), s.log


def secrets_are_found_in_less_usual_places(t):
    """Behind what JSON and repr() make of a line's end; a password without a user, or escaped."""
    values, word = _secrets(t), _random(t, 14)
    texts = {
        "json-line": json.dumps({"env": "A=1\n" + values["github"]}),
        "json-tab": json.dumps({"env": "A=1\t" + values["huggingface"]}),
        "repr-line": repr("A=1\r\n" + values["aws"]),
        "quoted": "x = '%s'" % values["gitlab"],
        "assigned": "OPENAI_API_KEY=%s;" % values["openai-project"],
        "bearer": json.dumps({"headers": {"a": "Bea" + "rer " + values["jwt"]}}),
        "json-pem": json.dumps({"key": values["pem-rsa"]}),
        "redis": "redis" + "://:" + word + "@cache.example:6379/0",
        "escaped": "postgres" + "ql://app:%40" + word + "@db.example/x",
        "userinfo": "git+https" + "://oauth2:" + word + "@host.example/a.git",
    }
    for value in [word] + [v for v in values.values() if "\n" not in v]:
        t.secrets.add(value)
    tree = {name: {"own/%s.py" % name: ("# a text\n%s\n" % text).encode()}
            for name, text in texts.items()}
    Tree(tree.values()).write(t.volume)
    log = t.publish(None, volume=t.volume)
    stored = _stored(t)
    out = [name for name, files in tree.items() if set(files) & set(stored)]
    assert not out, "published with a secret: %s\n%s" % (out, log)


def a_secret_is_told_once_not_at_each_round(t):
    value = _secrets(t)["gitlab"]
    t.secrets.add(value)
    _write(t.volume, {"own/a.txt": value.encode()})
    s = t.sidecar("--settle=0", "--interval=0s")
    s.wait_for("WARN warmcache-sidecar: secret")
    for i in range(5):
        _write(t.volume, inductor_file("x%d" % i))
        s.signal(signal.SIGUSR1)
        time.sleep(0.2)
    assert s.stop() == 0, s.log
    assert len(_secret_kinds_of(s)) == 1, s.log


def texts_that_are_only_like_secrets_are_published(t):
    dashes = "-" * 5
    texts = [
        "sk-learn", "import sklearn  # sk-learn, task-based, risk-averse", "hf_hub",
        "from huggingface_hub import hf_hub_download  # hf_hub_download_with_a_very_long_name",
        "9fceb02d0ae598e95dc970b74767f19372d61af8", "sha256:" + _random(t, 64, "0123456789abcdef"),
        "AKIA", "ASIA AND AFRICA", "ghp_", "ghp_short", "glpat", "glpat-", "xoxb", "nvapi-",
        "AIza", "eyJ", "eyJhbGciOi", "%sBEGIN CERTIFICATE%s" % (dashes, dashes),
        "%sBEGIN PUBLIC KEY%s" % (dashes, dashes), "https://host:8080/a/b@c",
        "https://user@host/x", "http://127.0.0.1:8000/path", "git@github.com:a/b.git",
        "key = value; token = next(tokens); password = None", "s3://bucket/a:b@c",
        "def flask_" + _random(t, 50, string.ascii_lowercase) + "(): pass",
        _random(t, 52, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        "mask-" + _random(t, 64, "0123456789abcdef"), "disk-" + _random(t, 48),
        "BCDEFG" + "ASIA" + _random(t, 42, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),  # a Triton key
        "redis://%s:%s@%s", "postgresql://user:${PASSWORD}@host/x", "ftp://{user}:{word}@host",
        "@triton.jit(num_warps=4)  # %s" % json.dumps({"key": "abc", "token": ["a"]}),
    ]
    tree = Tree([{"own/%02d.py" % i: ("x = 1\n# %s\n" % text).encode()}
                 for i, text in enumerate(texts)])
    tree.write(t.volume)
    log = t.publish(None, volume=t.volume)
    stored = _stored(t)
    lost = [text for i, text in enumerate(texts) if "own/%02d.py" % i not in stored]
    assert not lost, "taken for secrets: %s\n%s" % (lost, log)


def allow_secrets_lets_files_pass(t):
    values = _secrets(t)
    names = {"own/exact.txt": "github", "own/some/a.txt": "pem", "own/some/b.txt": "jwt",
             "own/other.txt": "aws"}
    for path, kind in names.items():
        t.secrets.update(line for line in values[kind].split("\n") if len(line) > 15 and
                         "PRIVATE" not in line)
        _write(t.volume, {path: values[kind].encode()})
    t.publish(None, "--allow-secrets", "own/exact.txt", "--allow-secrets", "own/some/*.txt",
              volume=t.volume)
    assert sorted(_stored(t)) == ["own/exact.txt", "own/some/a.txt", "own/some/b.txt"]


def vllms_factors_with_a_secret_stay_out_and_without_go(t):
    def factors(name, env):
        return {"vllm/torch_compile_cache/%s/rank_0_0/backbone/cache_key_factors.json" % name:
                json.dumps({"env": env, "config_hash": "abc"}).encode()}
    value = "plain" + _random(t, 12)
    t.secrets.add(value)
    bad = [factors("b%d" % i, {name: value}) for i, name in enumerate((
        "MY_API_KEY", "HF_TOKEN", "DB_PASSWORD", "SOME_SECRET_NAME", "GOOGLE_CREDENTIALS"))]
    good = [factors("g0", {"MY_API_KEY": "", "VLLM_USE_V1": "1"}),
            factors("g1", {"KEYBOARD": "us", "TOKENIZERS_PARALLELISM": "false"})]
    Tree(bad + good).write(t.volume)
    log = t.publish(None, volume=t.volume)
    assert sorted(_stored(t)) == sorted(Tree(good).files), log
    assert "MY_API_KEY" in log, log
    t.publish(None, "--allow-secrets", "vllm/*", volume=t.volume, store=t.path("store2"))
    t.publish(None, "--allow-secrets", list(bad[0])[0], volume=t.volume, store=t.path("store3"))
    assert set(bad[0]) <= set(_stored(t, t.path("store3")))
    assert not set(bad[1]) & set(_stored(t, t.path("store3")))


# ---- bad caches ----

def _quarantine(t, volume=None):
    return snapshot(os.path.join(volume or t.volume, ".warmcache/quarantine"), ours=True)


def a_restored_cache_with_which_the_model_is_not_ready_is_moved_away(t):
    tree = small_tree() + Tree([flashinfer_group("f")])
    _restored(t, tree)
    _read(t.volume, tree.files)
    own = Tree([inductor_file("own")])  # of an earlier sidecar beside this model
    own.write(t.volume)
    t.publish(None, "--complete-after=1h", volume=t.volume)
    before = snapshot(t.store)
    model = _Model(t)
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--interval=1h", "--complete-after=0", "--ready-url", model.at,
                  "--ready-within=1s", "--listen=127.0.0.1:%d" % port,
                  "--result", t.path("result"))
    new = Tree([inductor_file("new"), triton_group("new")])
    new.write(t.volume)
    s.wait_for("WARN warmcache-sidecar: quarantined")
    new += own
    wait_until("moved", lambda: sorted(snapshot(t.volume)) == sorted(new.files))
    moved = _quarantine(t)
    for path, data in tree.files.items():
        found = [d for p, d in moved.items() if p.endswith(path)]
        assert found == [data], "%s isn't in the quarantine: %s" % (path, sorted(moved))
    assert snapshot(t.store) == before, "the store was touched"
    assert check_whole(t.volume, new) == 3
    wait_until("counted", lambda: _metrics(
        port)["quarantined_groups_total"] == len(tree.groups))
    model.asked(3)
    assert s.stop() == 0, s.log
    assert len(_warnings(s, "quarantined")) == 1, s.log
    told = _told(t.path("result"))
    assert set(told) == ENDED, set(told) ^ ENDED
    assert told["quarantined"] == len(tree.groups) and told["ready"] is False, told
    assert _marks(t) == [] and _holds(t, new), s.log
    # In this pod they don't come back; in others they do.
    r = t.init()
    assert r.code == 0 and r.status in ("cold", "partial"), r
    assert not set(snapshot(t.volume)) & set(tree.files), r
    assert check_whole(t.volume, new) == 3
    assert r.json["reason"], r
    fresh = t.fresh("fresh")
    r = t.init(volume=fresh)
    assert set(tree.files) - {p for p in tree.files if p.startswith("triton/")} <= \
        set(snapshot(fresh)), r


def a_volume_in_which_all_was_bad_is_cold_at_the_next_start(t):
    tree = small_tree()
    _restored(t, tree)
    _read(t.volume, tree.files)
    port = servers.free_port()  # it refuses
    s = t.sidecar("--settle=0", "--ready-url", "http://127.0.0.1:%d/" % port,
                  "--ready-within=1s")
    s.wait_for("WARN warmcache-sidecar: quarantined")
    assert s.stop() == 0, s.log
    assert snapshot(t.volume) == {}, s.log
    r = t.init()
    assert r.status in ("cold", "partial") and "quarantine" in r.json["reason"], r
    assert snapshot(t.volume) == {}, r
    # What a sidecar finds there by then is nobody's fault any more.
    s = t.sidecar("--settle=0", "--ready-url", "http://127.0.0.1:%d/" % port,
                  "--ready-within=1s")
    Tree([inductor_file("new")]).write(t.volume)
    time.sleep(2.5)
    assert s.stop() == 0
    assert not _warnings(s, "quarantined") and _holds(t, Tree([inductor_file("new")])), s.log


def a_model_that_gets_ready_in_time_keeps_what_was_restored(t):
    tree = small_tree()
    _restored(t, tree)
    _read(t.volume, tree.files)
    model = _Model(t)
    s = t.sidecar("--settle=0", "--ready-url", model.at, "--ready-within=3s")
    model.asked(2)
    model.ready()
    model.asked(1)
    # That it fails later is another matter.
    wait_until("marked", lambda: _complete(t))
    model.reply = Reply(503)
    time.sleep(3)
    assert s.stop() == 0, s.log
    assert snapshot(t.volume) == tree.files and not _warnings(s, "quarantined"), s.log
    assert _quarantine(t) == {}


def nothing_is_quarantined_without_a_ready_url_or_a_restore(t):
    tree = small_tree()
    _restored(t, tree)
    _read(t.volume, tree.files)
    without = t.sidecar("--settle=0", "--ready-within=1s")
    volume, store = t.fresh("cold"), t.path("store2")
    tree.write(volume)
    model = _Model(t)
    cold = t.sidecar("--settle=0", "--ready-within=1s", "--ready-url", model.at, volume=volume,
                     store=store)
    model.asked(3)
    time.sleep(0.5)
    assert without.stop() == 0 and cold.stop() == 0
    for s, where in ((without, t.volume), (cold, volume)):
        assert snapshot(where) == tree.files, s.log
        assert not _warnings(s, "quarantined") and _quarantine(t, where) == {}, s.log


def the_pods_end_is_no_reason_for_a_quarantine(t):
    """T0 came before the time was over: the model isn't ready because it ends."""
    tree = small_tree()
    _restored(t, tree)
    _read(t.volume, tree.files)
    model = _Model(t)
    s = t.sidecar("--settle=0", "--ready-url", model.at, "--ready-within=2s")
    model.asked(1)
    _pre_stop(t)
    time.sleep(3)
    assert s.stop() == 0, s.log
    assert snapshot(t.volume) == tree.files and not _warnings(s, "quarantined"), s.log


# ---- used or inert ----

def used_and_inert_are_counted_by_profile(t):
    _need_atime(t)
    tritons = [triton_group("t%d" % i, 1000 * (i + 1)) for i in range(3)]
    graphs = [fxgraph_file("g%d" % i, 500 * (i + 1)) for i in range(4)]
    _restored(t, Tree(tritons + graphs))
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--interval=1h", "--listen=127.0.0.1:%d" % port,
                  "--result", t.path("result"))
    s.wait_for("state=started")
    opened = {"triton": [tritons[1]], "inductor": [graphs[0], graphs[2], graphs[3]]}
    left = {"triton": [tritons[0], tritons[2]], "inductor": [graphs[1]]}
    for groups in opened.values():
        for group in groups:
            _read(t.volume, group)
    s.signal(signal.SIGUSR1)
    wait_until("counted", lambda: _labelled(_metrics(port), "cache_groups", state="used") == 4)
    m = _metrics(port)
    for state, groups in (("used", opened), ("inert", left)):
        for profile, them in groups.items():
            labels = {"profile": profile, "state": state}
            assert _labelled(m, "cache_groups", **labels) == len(them), (labels, m)
            assert _labelled(m, "cache_bytes", **labels) == sum(map(_size, them)), (labels, m)
    assert s.stop() == 0, s.log
    told = _told(t.path("result"))
    for word, groups in (("used", opened), ("inert", left)):
        assert told[word] == {p: [len(g), sum(map(_size, g))] for p, g in groups.items()}, told
    status = _last_status(s)
    assert (status["used"], status["inert"]) == ("4", "3"), s.log
    assert not _warnings(s, "inert"), s.log


def a_cache_beside_which_the_model_writes_elsewhere_is_told_with_both_directories(t):
    _need_atime(t)
    _restored(t, Tree([inductor_file("a"), fxgraph_file("a"), fxgraph_file("b")]))
    s = t.sidecar("--settle=200ms", "--interval=300ms", "--spread=1ms")
    s.wait_for("state=started")
    elsewhere = {"cachetorch/" + p.split("/", 1)[1]: d for p, d in
                 {**inductor_file("a"), **fxgraph_file("a"), **fxgraph_file("b")}.items()}
    _write(t.volume, elsewhere)
    s.wait_for("WARN warmcache-sidecar: inert")
    for i in range(3):  # and it isn't said again
        _write(t.volume, {"cachetorch/fxgraph/xx/f%d/x" % i: b"x"})
        s.signal(signal.SIGUSR1)
        time.sleep(0.4)
    assert s.stop() == 0, s.log
    [line] = _warnings(s, "inert")
    assert "cachetorch" in line and re.search(r"\binductor\b", line), line


def a_cache_of_which_nothing_was_opened_when_the_model_is_ready_is_told(t):
    _need_atime(t)
    _restored(t, Tree([fxgraph_file("a"), triton_group("b")]))
    model = _Model(t)
    s = t.sidecar("--settle=0", "--interval=500ms", "--ready-url", model.at)
    model.asked(2)
    assert not _warnings(s, "inert"), "told before the model was ready: %s" % s.log
    model.ready()
    s.wait_for("WARN warmcache-sidecar: inert")
    time.sleep(1.2)
    assert s.stop() == 0, s.log
    [line] = _warnings(s, "inert")
    assert "mount" in line or "variable" in line, line


def a_cache_that_is_used_is_not_told_as_inert(t):
    _need_atime(t)
    graphs = [fxgraph_file("g%d" % i) for i in range(3)]
    _restored(t, Tree(graphs))
    model = _Model(t)
    s = t.sidecar("--settle=0", "--interval=300ms", "--ready-url", model.at)
    s.wait_for("state=started")
    _read(t.volume, graphs[0])
    _write(t.volume, fxgraph_file("new"))
    model.ready()
    _wait_stored(t, Tree([fxgraph_file("new")]), s)
    time.sleep(0.8)
    assert s.stop() == 0, s.log
    assert not _warnings(s, "inert"), s.log


def a_cold_volume_is_not_told_as_inert(t):
    model = _Model(t)
    model.ready()
    Tree([fxgraph_file("a")]).write(t.volume)
    s = t.sidecar("--settle=0", "--interval=300ms", "--ready-url", model.at)
    _wait_stored(t, Tree([fxgraph_file("a")]), s)
    time.sleep(0.8)
    assert s.stop() == 0, s.log
    assert not _warnings(s, "inert"), s.log


def _factors(name, **env):
    return {"vllm/torch_compile_cache/%s/rank_0_0/backbone/cache_key_factors.json" % name:
            json.dumps({"env": env, "config_hash": "0123", "code_hash": "45"}).encode(),
            "vllm/torch_compile_cache/%s/rank_0_0/backbone/computation_graph.py" % name:
            b"graph = 1\n"}


def what_differs_in_vllms_factors_is_named(t):
    _need_atime(t)
    _restored(t, Tree([{p: d} for p, d in _factors(
        "aa", VLLM_SAME="1", VLLM_ATTENTION_BACKEND="FLASH_ATTN", OTHER_API_KEY="").items()]))
    s = t.sidecar("--settle=200ms", "--interval=300ms", "--spread=1ms")
    s.wait_for("state=started")
    value = "plain" + _random(t, 16)
    t.secrets.add(value)
    _write(t.volume, _factors("bb", VLLM_SAME="1", VLLM_ATTENTION_BACKEND="FLASHINFER",
                              OTHER_API_KEY=value))
    s.wait_for("WARN warmcache-sidecar: inert")
    assert s.stop() == 0, s.log
    [line] = _warnings(s, "inert")
    assert "VLLM_ATTENTION_BACKEND" in line and "VLLM_SAME" not in line, line


def a_secret_within_what_differs_is_not_told(t):
    """The whole of the environment is new to the file."""
    _need_atime(t)
    old = {p: b'{"config_hash": "01"}' if p.endswith(".json") else d
           for p, d in _factors("aa").items()}
    _restored(t, Tree([{p: d} for p, d in old.items()]))
    s = t.sidecar("--settle=200ms", "--interval=300ms", "--spread=1ms")
    s.wait_for("state=started")
    value = "plain" + _random(t, 16)
    t.secrets.add(value)
    _write(t.volume, _factors("bb", A_TOKEN=value))
    s.wait_for("WARN warmcache-sidecar: inert")
    assert s.stop() == 0, s.log
    assert value not in s.log, s.log


def _triton_kernel(seed, **meta):
    """As Triton writes one: the kernel's name in the files' names, all else in the metadata."""
    group = {}
    for path, data in triton_group(seed).items():
        where, name = os.path.split(path)
        name = name.replace("k.", "add_kernel.")
        if name == "add_kernel.json":
            data = json.dumps({"name": "add_kernel", "hash": os.path.basename(where),
                               **meta}).encode()
        group[os.path.join(where, name)] = data.replace(b"k.", b"add_kernel.") \
            if name.startswith("__grp__") else data
    return group


def what_differs_in_tritons_metadata_is_named(t):
    _need_atime(t)
    target = {"backend": "cuda", "arch": 90, "warp_size": 32}
    _restored(t, Tree([_triton_kernel("old", target=target, triton_version="3.4.0",
                                      num_warps=4, num_stages=3)]))
    s = t.sidecar("--settle=200ms", "--interval=300ms", "--spread=1ms")
    s.wait_for("state=started")
    _write(t.volume, _triton_kernel("new", target=dict(target, arch=100),
                                    triton_version="3.5.1", num_warps=4, num_stages=3))
    s.wait_for("WARN warmcache-sidecar: inert")
    assert s.stop() == 0, s.log
    [line] = _warnings(s, "inert")
    assert ("target" in line or "arch" in line) and "triton_version" in line, line
    assert "num_warps" not in line, line


# ---- HTTP ----

def health_readiness_and_metrics_are_served(t):
    port = servers.free_port()
    tree = small_tree()
    s = t.sidecar("--settle=0", "--interval=1h", "--listen=127.0.0.1:%d" % port)
    _listens(port)
    assert _get(port, "/healthz")[0] == 200
    wait_until("ready", lambda: _get(port, "/readyz")[0] == 200)
    m = _metrics(port)
    assert m["published_layers_total"] == m["published_groups_total"] == 0, m
    assert _labelled(m, "key_info", model="m", version="v1", platform=MACHINE) == 1, m
    assert _labelled(m, "build_info") == 1 and _labelled(m, "state", state="running") == 1, m
    assert [v for k, v in m.items() if k.startswith("state{")].count(1) == 1, m
    s.signal(signal.SIGSTOP)  # all comes at once
    tree.write(t.volume)
    _write(t.volume, {"inductor/ab/cut.so": b"\x7fELF"})
    s.signal(signal.SIGCONT)
    wait_until("counted", lambda: _labelled(_metrics(port), "rounds_total", result="published"))
    m = _metrics(port)
    assert m["published_groups_total"] == len(tree.groups), m
    assert m["published_files_total"] == len(tree.files), m
    assert m["published_raw_bytes_total"] == _size(tree.files), m
    assert m["published_bytes_total"] == sum(
        os.path.getsize(p) for p in layer.objects(t.store)), m
    assert m["published_layers_total"] == len(layer.objects(t.store)), m
    assert _labelled(m, "rounds_total", result="published") == 1, m
    assert m["publish_duration_seconds_count"] == 1, m
    assert _labelled(m, "queue_groups", reason="torn") == 1, m
    assert m["volume_groups"] == len(tree.groups) + 1, m
    assert m["volume_bytes"] >= _size(tree.files) and m["watches"] > 0, m
    now = time.time()
    for name in ("last_success_timestamp_seconds", "last_publish_timestamp_seconds"):
        assert now - 60 < m[name] <= now + 1, (name, m)
    before = _labelled(m, "rounds_total", result="nothing")
    s.signal(signal.SIGUSR1)
    wait_until("counted", lambda: _labelled(
        _metrics(port), "rounds_total", result="nothing") > before)
    _pre_stop(t)
    wait_until("draining", lambda: _labelled(_metrics(port), "state", state="draining") == 1)
    assert s.stop() == 0, s.log


def metrics_are_what_promtool_likes(t):
    need("promtool")
    tree = small_tree()
    _restored(t, tree)
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--interval=0s", "--listen=127.0.0.1:%d" % port,
                  model="m", version="v1")
    odd = servers.free_port()
    volume = t.fresh("odd")
    disabled = t.sidecar("--settle=soon", "--listen=127.0.0.1:%d" % odd, volume=volume)
    Tree([inductor_file("new")]).write(t.volume)
    s.wait_for(PUBLISHED)
    for one in (port, odd):
        _listens(one)
        code, headers, text = _get(one, "/metrics")
        assert code == 200 and headers["content-type"].startswith("text/plain"), headers
        p = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=t.env())
        assert p.returncode == 0 and not p.stdout.strip(), "%s\n%s" % (p.stdout, text)
    m = _metrics(port)
    assert _labelled(m, "restores_total", status="warm") == 1, m
    assert m["restored_files"] == len(tree.files), m
    assert m["restored_bytes"] == _size(tree.files), m
    assert m["restore_duration_seconds_count"] == 1, m
    assert m["process_resident_memory_bytes"] > 0 and m["process_open_fds"] > 3, m
    names = {k.partition("{")[0] for k in m}
    lacks = {"complete", "quarantined_groups_total", "volume_groups", "watches",
             "published_layers_total", "last_success_timestamp_seconds", "cache_groups",
             "cache_bytes", "queue_groups", "process_cpu_seconds_total"} - names
    assert not lacks, lacks
    assert any(n.startswith("kernel_") and n.endswith("_total") for n in names), names
    assert s.stop() == 0 and disabled.stop() == 0


def failures_are_counted_by_kind(t):
    prefix = t.as_nobody()
    os.chmod(t.volume, 0o777)
    os.makedirs(t.store, mode=0o700)
    Tree([inductor_file("a")]).write(t.volume)
    for top, dirs, _ in os.walk(t.volume):
        for d in dirs:
            os.chmod(os.path.join(top, d), 0o777)
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--interval=0s", "--listen=127.0.0.1:%d" % port, prefix=prefix)
    s.wait_for("publish-failed")
    wait_until("counted", lambda: _labelled(_metrics(port), "failures_total", kind="denied"))
    m = _metrics(port)
    assert _labelled(m, "rounds_total", result="failed") == _labelled(m, "failures_total"), m
    before = _labelled(m, "failures_total")
    s.signal(signal.SIGUSR1)
    wait_until("counted", lambda: _labelled(
        _metrics(port), "failures_total", kind="denied") > before)
    os.chmod(t.store, 0o777)
    s.signal(signal.SIGUSR1)
    wait_until("counted", lambda: _labelled(
        _metrics(port), "rounds_total", result="published") == 1)
    assert s.stop() == 0, s.log


def whether_the_model_is_ready_is_in_the_metrics(t):
    model = _Model(t)
    Tree([inductor_file("a")]).write(t.volume)
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--ready-url", model.at, "--listen=127.0.0.1:%d" % port)
    model.asked(1)
    wait_until("not ready", lambda: _metrics(port).get("model_ready") == 0)
    assert _metrics(port)["complete"] == 0
    model.ready()
    wait_until("ready", lambda: _metrics(port)["model_ready"] == 1)
    wait_until("complete", lambda: _metrics(port)["complete"] == 1)
    assert s.stop() == 0


def a_disabled_sidecar_says_why_over_http(t):
    port = servers.free_port()
    for args in (["--settle=soon"], ["--model=a/b"], ["--store=ftp://x/y"]):
        listen = ["--listen=127.0.0.1:%d" % port]
        s = t.sidecar(*(args + listen if "settle" in args[0] else listen + args))
        s.wait_for("state=disabled")
        _listens(port)
        word = args[0].partition("=")[2].partition(":")[0]
        wait_until("it says why", lambda: word in _get(port, "/readyz")[2])
        assert _get(port, "/readyz")[0] == 503
        assert _get(port, "/healthz")[0] == 200
        m = _metrics(port)
        assert _labelled(m, "state", state="disabled") == 1, m
        assert s.stop(5) == 0, s.log


def a_volume_that_is_not_there_is_not_ready(t):
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--listen=127.0.0.1:%d" % port, volume=t.path("gone"))
    s.wait_for("publish-failed")
    code, _, text = _get(port, "/readyz")
    assert code == 503 and text.strip(), (code, text)
    assert _get(port, "/healthz")[0] == 200
    t.dir("gone")
    s.signal(signal.SIGUSR1)
    wait_until("ready", lambda: _get(port, "/readyz")[0] == 200)
    assert s.stop(8) == 0, s.log


def an_address_that_cannot_be_had_leaves_it_working(t):
    taken = socket.create_server(("127.0.0.1", 0))
    t.undo(taken.close)
    tree = Tree([inductor_file("a")])
    for i, address in enumerate(("127.0.0.1:%d" % taken.getsockname()[1], "nonsense",
                                 "127.0.0.1:99999", "127.0.0.1:", ":x", "[::1", "198.51.100.1:9",
                                 "")):
        t.clear()
        tree.write(t.volume)
        store = t.path("store%d" % i)
        s = t.sidecar("--settle=0", "--listen=" + address, store=store)
        _wait_stored(t, tree, s, 8, store)
        if address:
            assert any(" WARN " in line and "listen" in line for line in s.lines), \
                "no warning of %s:\n%s" % (address, s.log)
        assert s.stop(8) == 0, (address, s.log)


def all_forms_of_an_address_are_listened_at(t):
    port = servers.free_port()
    forms = [(":%d" % port, "127.0.0.1"), ("127.0.0.1:%d" % port, "127.0.0.1")]
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        forms.append(("[::1]:%d" % port, "::1"))
    except OSError:
        pass
    for form, address in forms:
        s = t.sidecar("--settle=0", "--listen=" + form)
        s.wait_for("state=started")

        def answers():
            try:
                return _get(port, "/healthz", address=address)[0] == 200
            except OSError:
                return False
        wait_until("%s answers" % form, answers)
        assert s.stop() == 0, s.log


def _hang(t, port, n):
    """Clients that connect and say nothing, or not all."""
    for i in range(n):
        c = socket.socket()
        t.undo(c.close)
        c.setblocking(False)
        c.connect_ex(("127.0.0.1", port))
        time.sleep(0.01)
        try:
            c.send((b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nX-A: ")[i % 3])
        except OSError:
            pass


def a_probe_is_answered_while_many_clients_hang(t):
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--listen=127.0.0.1:%d" % port)
    _listens(port)
    _hang(t, port, 24)
    start = time.monotonic()
    try:
        assert _get(port, "/healthz")[0] == 200
    except TimeoutError:
        raise AssertionError("no answer in %.1f s" % (time.monotonic() - start))
    assert s.process.poll() is None, s.log


def clients_that_hang_hold_nothing(t):
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--interval=0s", "--listen=127.0.0.1:%d" % port)
    _listens(port)
    _hang(t, port, 8)
    assert _get(port, "/healthz")[0] == 200
    # One that asks without end and reads nothing.
    greedy = socket.create_connection(("127.0.0.1", port), 5)
    t.undo(greedy.close)
    greedy.setblocking(False)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        try:
            greedy.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:
            break
    assert _get(port, "/healthz")[0] == 200
    _hang(t, port, 50)
    tree = Tree([inductor_file("a")])
    tree.write(t.volume)
    _wait_stored(t, tree, s, 8)
    assert s.process.poll() is None, s.log
    start = time.monotonic()
    assert s.stop(8) == 0, s.log
    took = time.monotonic() - start
    assert took < 5, "the end took %.1f s:\n%s" % (took, s.log)


def what_is_no_good_request_gets_its_code(t):
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--listen=127.0.0.1:%d" % port)
    _listens(port)
    for path in ("/", "/nothing", "/metrics/x", "/healthzz", "/../metrics", "/" + "a" * 500):
        assert _get(port, path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE"):
        assert _get(port, "/metrics", method, body=b"x")[0] == 405, method
    assert _get(port, "/metrics?x=1")[0] == 200
    for raw in (b"nonsense\r\n\r\n", b"\r\n\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + b"\0" * 200,
                b"GET\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET " + b"/a" * 50000 + b" HTTP/1.1\r\n",
                b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 20000, b"%s%n%x" * 100 + b"\r\n\r\n"):
        c = socket.create_connection(("127.0.0.1", port), 5)
        try:
            c.sendall(raw)
            try:
                c.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has closed already
            answer = c.recv(4096)
            assert answer == b"" or answer.startswith(b"HTTP/1."), (raw[:40], answer)
            assert not answer or answer.split()[1][:1] in (b"4", b"2", b"5"), (raw[:40], answer)
        except ConnectionError:
            pass
        finally:
            c.close()
    assert _get(port, "/healthz")[0] == 200
    assert s.process.poll() is None and s.stop() == 0, s.log


def nothing_is_listened_at_unless_asked(t):
    s = t.sidecar("--settle=0")
    s.wait_for("state=started")
    inodes = {os.readlink(p) for p in glob.glob("/proc/%d/fd/*" % s.process.pid)
              if os.path.islink(p)}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            with open(table) as f:
                mine = [line for line in f if "socket:[%s]" % (line.split() + [""] * 10)[9]
                        in inodes]
            assert not mine, mine
    assert s.stop() == 0


# ---- the termination message ----

def the_termination_message_says_what_became_of_it(t):
    result = t.path("result")
    tree = small_tree()
    tree.write(t.volume)
    _write(t.volume, {"inductor/ab/cut.so": b"\x7fELF"})
    s = t.sidecar("--settle=0", "--interval=1h", "--complete-after=0", "--result", result)
    s.wait_for(PUBLISHED)
    assert not os.path.exists(result) or _told(result)["status"] not in ("ended", "incomplete")
    _pre_stop(t)
    wait_until("told", lambda: os.path.exists(result) and os.path.getsize(result) > 0)
    assert _told(result)["status"] == "ending"
    os.unlink(os.path.join(t.volume, "inductor/ab/cut.so"))
    assert s.stop() == 0, s.log
    told = _told(result)
    assert set(told) == ENDED - {"ready"}, set(told) ^ ENDED
    stored = layer.objects(t.store)
    assert told["status"] == "ended" and told["key"] == "m/v1/" + MACHINE, told
    assert told["groups"] == len(tree.groups) and told["files"] == len(tree.files), told
    assert told["bytes"] == sum(map(os.path.getsize, stored)), told
    assert told["layers"] == len(stored) and told["failures"] == 0, told
    assert told["waiting"] == told["torn"] == told["withheld"] == told["quarantined"] == 0, told
    assert told["complete"] is _complete(t) is True and told["reason"] == "", told
    assert told["used"] == told["inert"] == {}, told


def the_termination_message_counts_what_stayed_out(t):
    result = t.path("result")
    value = _secrets(t)["github"]
    t.secrets.add(value)
    _write(t.volume, {"inductor/ab/cut.so": b"\x7fELF", "own/a.txt": value.encode(),
                      **inductor_file("a")})
    busy = os.path.join(t.volume, *list(inductor_file("a")))
    with open(busy, "r+b"):
        s = t.sidecar("--settle=0", "--interval=1h", "--result", result)
        s.wait_for("state=started")
        time.sleep(0.3)
        assert s.stop() == 0, s.log
    told = _told(result)
    assert (told["torn"], told["withheld"], told["waiting"]) == (1, 1, 1), told
    assert told["complete"] is False and value not in json.dumps(told), told


def the_termination_message_says_why_something_could_not_be_published(t):
    """With a very long key and reason it still fits."""
    result, key = t.path("result"), {"model": "m" * 128, "version": "v" * 128}
    where = t.path(*["d" * 200] * 4)
    os.makedirs(os.path.dirname(where))
    with open(where, "w") as f:
        f.write("in the way")
    Tree([inductor_file("a")]).write(t.volume)
    s = t.sidecar("--settle=0", "--result", result, "--platform", "p" * 128, store=where, **key)
    s.wait_for("publish-failed")
    s.signal(signal.SIGTERM)
    s.wait(20)
    told = _told(result)
    assert set(told) >= ENDED - {"ready"} and told["status"] == "incomplete", told
    assert told["reason"] and told["failures"] > 0 and told["complete"] is False, told
    assert told["key"].startswith("mmm"), told


def the_termination_message_fits_with_all_profiles_used_and_the_longest_key(t):
    _need_atime(t)
    result, key = t.path("result"), {"model": "m" * 128, "version": "v" * 128}
    groups = [triton_group("a", 100000), fxgraph_file("a", 100000), flashinfer_group("a", 100000),
              {"own/a": blob("o", 100000)}, {"jax/x-cache": blob("j", 100000)},
              {"deepgemm/cache/k/kernel.cu": b"x" * 99999, "deepgemm/cache/k/kernel.cubin":
               elf(b"x" * 100000)}, *({p: d} for p, d in _factors("x", A="1").items())]
    Tree(groups).write(t.volume)
    platform = ["--platform", "p" * 128]
    t.publish(None, *platform, volume=t.volume, **key)
    t.clear()
    r = t.init(*platform, **key)
    assert r.status in ("warm", "partial"), r
    _read(t.volume, groups[1])
    _read(t.volume, groups[3])
    s = t.sidecar("--settle=0", "--result", result, *platform, **key)
    s.wait_for("state=started")
    assert s.stop() == 0, s.log
    told = _told(result)
    assert set(told) >= ENDED - {"ready"} and told["used"] and told["inert"], told


def a_disabled_sidecar_leaves_a_termination_message(t):
    for i, args in enumerate((["--settle=soon"], ["--nonsense"], ["--model=a/b"],
                              ["--store=ftp://" + "x" * 2000])):
        result = t.path("result%d" % i)
        given = ["--result", result]
        s = t.sidecar(*(args + given if i % 2 else given + args))
        s.wait_for("state=disabled")
        assert s.stop(5) == 0, s.log
        told = _told(result)
        assert told["status"] == "disabled" and told["reason"], told


def a_result_that_cannot_be_written_leaves_it_working(t):
    tree = Tree([inductor_file("a")])
    tree.write(t.volume)
    s = t.sidecar("--settle=0", "--result", t.path("no", "such", "dir"))
    s.wait_for(PUBLISHED)
    assert s.stop() == 0 and _holds(t, tree), s.log


# ---- read only ----

def read_only_writes_nothing_and_tells_all(t):
    _need_atime(t)
    graphs = [fxgraph_file("g%d" % i) for i in range(3)]
    _restored(t, Tree(graphs))
    before = snapshot(t.store, ours=True)
    model = _Model(t)
    model.ready()
    port = servers.free_port()
    s = t.sidecar("--mode=readonly", "--settle=0", "--interval=0s", "--complete-after=0",
                  "--listen=127.0.0.1:%d" % port, "--ready-url", model.at,
                  "--result", t.path("result"))
    s.wait_for("state=started")
    _read(t.volume, graphs[0])
    Tree([inductor_file("new"), triton_group("new")]).write(t.volume)
    s.signal(signal.SIGUSR1)
    wait_until("counted", lambda: _labelled(_metrics(port), "cache_groups", state="used") == 1)
    m = _metrics(port)
    assert _labelled(m, "cache_groups", state="inert") == 2 and m["volume_groups"] >= 3, m
    assert m["published_layers_total"] == 0, m
    s.wait_for("INFO warmcache-sidecar: ready")
    _pre_stop(t)
    time.sleep(1.2)
    assert s.stop(8) == 0, s.log
    assert snapshot(t.store, ours=True) == before, s.log
    assert s.count("publish-failed") == 0 and s.count(PUBLISHED) == 0, s.log
    told = _told(t.path("result"))
    assert told["layers"] == 0 and told["failures"] == 0, told
    assert told["used"] == {"inductor": [1, 2000]} and told["inert"] == {"inductor": [2, 4000]}


def read_only_needs_no_right_to_write(t):
    prefix = t.as_nobody()
    tree = small_tree()
    _restored(t, tree)
    os.chmod(t.store, 0o555)
    os.chmod(t.volume, 0o777)
    os.chmod(os.path.join(t.volume, ".warmcache"), 0o777)
    for name in os.listdir(os.path.join(t.volume, ".warmcache")):
        os.chmod(os.path.join(t.volume, ".warmcache", name), 0o777)
    s = t.sidecar("--settle=0", "--interval=0s", "--complete-after=0", prefix=prefix,
                  env=t.env(WARM_MODE="readonly"))
    s.wait_for("state=started")
    _write(t.volume, {"own/new": b"x"})
    s.signal(signal.SIGUSR1)
    time.sleep(0.8)
    assert s.stop(8) == 0, s.log
    assert s.count("publish-failed") == 0, s.log
    # Nor a store at all: what isn't there isn't made.
    s = t.sidecar("--mode=readonly", "--settle=0", store=t.path("nowhere"))
    s.wait_for("state=started")
    time.sleep(0.3)
    assert s.stop(8) == 0, s.log
    assert not os.path.exists(t.path("nowhere"))


# ---- restarts ----

def a_sidecar_that_is_killed_and_starts_again_goes_on(t):
    """Between publishes and in them: nothing twice, nothing lost."""
    written = []
    for i in range(4 if t.quick else 7):
        s = t.sidecar("--settle=0", "--interval=0s")
        if i % 2:
            s.wait_for("state=started")
        for k in range(3):
            written.append(inductor_file("r%d-%d" % (i, k)))
            _write(t.volume, written[-1])
        if i == 0:
            _wait_stored(t, Tree(written), s)
        time.sleep(t.random.random() * 0.5)
        s.kill()
    s = t.sidecar("--settle=0", "--interval=0s", "--complete-after=1h")
    s.wait_for("state=started")
    _wait_stored(t, Tree(written), s)
    before = layer.objects(t.store)
    assert s.stop() == 0, s.log
    assert layer.objects(t.store) == before, s.log
    names = check_store(t.store, Tree(written))
    assert len(names) == len(set(names)) == len(written), names
    assert t.init(volume=t.fresh("out")).status == "warm"


def a_restart_after_pre_stop_is_told_again(t):
    s = t.sidecar("--settle=1h", "--interval=1h")
    s.wait_for("state=started")
    _pre_stop(t)
    s.kill()
    s = t.sidecar("--settle=1h", "--interval=1h")
    s.wait_for("state=started")
    tree = Tree([inductor_file("a")])
    tree.write(t.volume, old=False)
    _pre_stop(t)
    _wait_stored(t, tree, s, 5)
    assert s.stop() == 0


def a_second_sidecar_on_a_volume_says_so(t):
    tree = small_tree()
    tree.write(t.volume)
    first = t.sidecar("--settle=0", "--interval=1h")
    _wait_stored(t, tree, first)
    second = t.sidecar("--settle=0", "--interval=1h")
    second.wait_for("state=")
    wait_until("it says so", lambda: any(
        re.search(" (WARN|ERROR) .*another", line) for line in list(second.lines)), 8)
    assert not any(" WARN " in line for line in first.lines), first.log
    time.sleep(0.5)
    assert first.process.poll() is None and second.process.poll() is None
    late = Tree([inductor_file("late")])
    late.write(t.volume)
    assert second.stop(8) == 0, second.log
    # The first is still the one that is told of the end.
    _pre_stop(t)
    _wait_stored(t, late, first, 5)
    assert first.stop(8) == 0, first.log
    names = check_store(t.store, tree + late)
    assert len(names) == len(set(names)), names


def the_next_sidecar_takes_the_volume_over(t):
    """It began while the one before still ended."""
    first = t.sidecar("--settle=1h", "--interval=1h")
    wait_until("it holds the volume", lambda: _held(t.volume))
    second = t.sidecar("--settle=1h", "--interval=1h")
    second.wait_for("another")
    assert first.stop() == 0, first.log
    tree = Tree([inductor_file("a")])
    tree.write(t.volume, old=False)
    second.signal(signal.SIGUSR1)  # a look
    _pre_stop(t)
    _wait_stored(t, tree, second, 5)
    assert second.stop() == 0, second.log


# ---- the log ----

def a_failure_that_repeats_is_told_once_a_minute(t):
    with open(t.store, "w") as f:
        f.write("in the way")
    Tree([inductor_file("a")]).write(t.volume)
    port = servers.free_port()
    s = t.sidecar("--settle=0", "--interval=0s", "--listen=127.0.0.1:%d" % port)
    s.wait_for("publish-failed")
    for i in range(8):
        _write(t.volume, inductor_file("x%d" % i))
        s.signal(signal.SIGUSR1)
        time.sleep(0.5)
    assert _labelled(_metrics(port), "failures_total") >= 3, s.log
    s.signal(signal.SIGTERM)
    s.wait(20)
    told = _warnings(s, "publish-failed")
    assert len(told) <= 2, s.log  # one of them may be of the end
    assert len([line for line in s.lines if " WARN " in line]) <= 4, s.log


def log_lines_are_json_when_asked(t):
    value = _secrets(t)["github"]
    t.secrets.add(value)
    odd = 'own/"q\\\n\xff\u00e9.txt'.encode("utf-8", "surrogateescape")
    os.makedirs(os.path.join(t.volume, "own"))
    with open(os.path.join(t.volume.encode(), odd), "wb") as f:
        f.write(value.encode())
    with open(os.path.join(t.volume.encode(), b"own/\xff\xfe.txt"), "wb") as f:
        f.write(value.encode())
    _write(t.volume, {"own/plain.txt": value.encode()})
    small_tree().write(t.volume)
    s = t.sidecar("--settle=0", "--interval=0s", "--log-format=json", "--listen=nonsense")
    s.wait_for('"event":"published"')
    s.signal(signal.SIGUSR1)
    _pre_stop(t)
    time.sleep(0.3)
    assert s.stop() == 0, s.log
    events = []
    for line in s.lines:
        try:
            one = json.loads(line)
        except ValueError as e:
            raise AssertionError("%s: %r" % (e, line))
        assert {"time", "level", "event", "text"} <= set(one), line
        events.append(one["event"])
    assert {"published", "status", "secret", "ending"} <= set(events), s.log
