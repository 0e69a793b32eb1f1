# SPDX-License-Identifier: Apache-2.0
"""Weeks of a sidecar's life in seconds: under tests/fault/clock.c time passes where a test lets it,
and then what would be waited for is jumped over."""

import collections
import datetime
import itertools
import mmap
import os
import re
import signal
import struct
import subprocess
import time

import fakes
import layer
import servers
from support import (ROOT, Tree, bare_env, best_config, check_store, check_whole, elf, fxgraph_file,
                     inductor_file, other_file, triton_group, wait_until)

MINUTE, HOUR, DAY = 60, 3600, 86400
SETTLE, INTERVAL, STATUS, BACKOFF = 5, 300, 600, 60
LATE = 10  # what a round may take, and what is decided by whole seconds
TICK = 0.012  # of the kernel's clock for files


class _Life:
    """A sidecar, in a time of its own that goes on when it is started again."""

    PAGE = 24 + 24 * (1 << 22)  # struct state of clock.c

    def __init__(self, t, *args, store=None, volume=None, rate=1, **env):
        self.t, self.args, self.rate, self.env = t, args, rate, env
        self.store, self.volume = store or t.store, volume or t.volume
        self._clock = t.compile(os.path.join(ROOT, "tests/fault/clock.c"), "libclock.so")
        self._jumps, self._log, state = t.path("jump"), t.path("log"), t.path("state")
        open(self._log, "w").close()
        t.written.append(lambda: "\n".join(self.lines()))
        with open(state, "wb") as f:
            f.truncate(self.PAGE)
        with open(state, "r+b") as f:
            self._page = mmap.mmap(f.fileno(), self.PAGE)
        self._ours = 0

    def start(self):
        env = bare_env(self.t, **self.env)
        env.update(self.t.env(preload=self._clock, WARM_CLOCK_STATE=self.t.path("state"),
                              WARM_CLOCK_JUMP_FILE=self._jumps, WARM_CLOCK_RATE=self.rate,
                              **env))
        n = len(self.events("status"))
        # To a file: what is told up to a moment can be read at that moment.
        self.sidecar = self.t.sidecar(*self.args, store=self.store, volume=self.volume, env=env,
                                      prefix=["sh", "-c", 'log=$1; shift; exec "$@" 2>>"$log"',
                                              "sh", self._log])
        wait_until("a start", lambda: len(self.events("status")) > n)
        return self

    def _now(self):
        n, = struct.unpack_from("<q", self._page, 8)
        real, mono, wall = struct.unpack_from("<qqq", self._page, 24 * n)
        passed = max(time.time_ns() - real, 0) * self.rate
        return (mono + passed) / 1e9, (wall + passed) / 1e9

    def now(self):
        """Seconds of the sidecar's monotonic clock."""
        return self._now()[0]

    def wall(self):
        return self._now()[1]

    def pass_(self, seconds, real=120):
        """Let as much time pass, in at most so many real seconds."""
        until, end = self.now() + seconds, time.monotonic() + real
        struct.pack_into("<q", self._page, 0, int(until * 1e9))
        while self.now() < until:
            assert self.sidecar.process.poll() is None, self.log
            assert time.monotonic() < end, "%d s left of %d\n%s" % (
                until - self.now(), seconds, self.log)
            time.sleep(0.001)
        time.sleep(TICK)

    def jump(self, seconds):
        """Set its wall clock, by so much in all."""
        with open(self._jumps + ".new", "w") as f:
            f.write("%d" % seconds)
        os.rename(self._jumps + ".new", self._jumps)

    def write(self, *groups):
        """As compilers do: each file is renamed into place."""
        for group in groups:
            for path, data in group.items():
                full = os.path.join(self.volume, path)
                os.makedirs(os.path.dirname(full), exist_ok=True)
                self._ours += 1
                temporary = "%s.tmp.%d" % (full, self._ours)
                with open(temporary, "wb") as f:
                    f.write(data)
                os.rename(temporary, full)

    def stop(self):
        assert self.sidecar.stop() == 0, self.log

    def cpu(self):
        """Seconds of CPU so far."""
        with open("/proc/%d/stat" % self.sidecar.process.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def log(self):
        """For a message: warnings, and the end of it."""
        lines = [line[:240] for line in self.lines() if " environment: " not in line]
        return "\n".join([line for line in lines if " WARN " in line][-20:] + ["..."] + lines[-10:])

    def lines(self):
        with open(self._log, errors="replace") as f:
            return f.read().split("\n")[:-1]

    def events(self, event):
        """[(seconds by the wall clock, line)] of an event; of all warnings by WARN."""
        found = []
        for line in self.lines():
            when, level, _, what = line.split(" ", 3)
            if event in (level, what.split(":")[0]):
                when = datetime.datetime.strptime(when, "%Y-%m-%dT%H:%M:%S.%fZ")
                found.append((when.replace(tzinfo=datetime.timezone.utc).timestamp(), line))
        return found

    def published(self):
        return len(self.events("published"))

    def status(self, name):
        """A number of the last status line."""
        return int(re.search(" %s=(-?[0-9]+)" % name, self.events("status")[-1][1])[1])


def _gaps(events):
    return [b[0] - a[0] for a, b in zip(events, events[1:])]


def _apart(events, seconds):
    """Each comes so many seconds after the one before it, or later."""
    near = [a[1] + "\n" + b[1] for a, b in zip(events, events[1:]) if b[0] - a[0] < seconds]
    assert not near, "%d within %d s of the one before:\n%s" % (len(near), seconds, near[0])


def _created(store):
    """{group's name: [when its layers were made, by their writer's clock, seconds]}"""
    found = collections.defaultdict(list)
    for path in layer.objects(store):
        one = layer.read(path)[0]
        for group in one.groups:
            found[group["name"]].append(one.created / 1000)
    return found


def _check(life, tree, where=None, once=True):
    """At the end: all is in the store, once but for what compilers rewrite; ids grow with the order
    of the puts; and a restore gives the right tree."""
    t, where = life.t, where or life.store
    names = check_store(where, tree)
    twice = [n for n, k in collections.Counter(names).items() if k > 1 and "best_config" not in n]
    assert not (once and twice), "published twice: %s\n%s" % (twice[:3], life.log)
    ids = [tuple(int(p, 10 + 6 * i) for i, p in enumerate(os.path.basename(path).split("-")[1:3]))
           for path in sorted(layer.objects(where), key=lambda p: os.stat(p).st_mtime_ns)]
    assert ids == sorted(ids), "an id is older than one before it: %s" % ids
    for path in os.listdir(life.volume):
        if path != "lost+found":
            subprocess.check_call(["rm", "-rf", os.path.join(life.volume, path)])
    r = t.init(store=life.store, volume=life.volume, env=bare_env(t, **life.env))
    assert r.status == "warm", (r, life.log)
    assert check_whole(life.volume, tree) == len(tree.groups), (r, life.log)


def _some(t, name):
    """What a model compiles at a time."""
    kinds = [triton_group, inductor_file, fxgraph_file, other_file]
    return [kinds[t.random.randrange(4)]("%s.%d" % (name, i), t.random.randrange(100, 5000))
            for i in range(t.random.randrange(1, 4))]


# ---- what it takes (the longest, so it begins first) ----

def _takes(process):
    """(KiB of memory, descriptors, threads, watches)"""
    top = "/proc/%d/" % process.pid
    with open(top + "status") as f:
        text = f.read()
    rss, threads = (int(re.search(n + r":\s+(\d+)", text)[1]) for n in ("VmRSS", "Threads"))
    watches, fds = 0, os.listdir(top + "fd")
    for fd in fds:
        try:
            with open(top + "fdinfo/" + fd) as f:
                watches += f.read().count("inotify wd:")
        except OSError:
            pass  # closed meanwhile
    return rss, len(fds), threads, watches


def memory_descriptors_threads_and_watches_stay(t):
    """Two hundred publishes over a large volume, or as many as go into a minute."""
    files, publishes, seconds = (5000, 60, 20) if t.quick else (30000, 200, 60)
    for i in range(files // 10):
        group = triton_group("f%d" % i, 150)
        top = os.path.dirname(min(group))
        group.update({"%s/k%d.llir" % (top, k): b"x" * 100 for k in range(10 - len(group))})
        Tree([group]).write(t.volume)
    s = t.sidecar("--settle=0", "--interval=1h")
    s.wait_for("INFO warmcache-sidecar: published", timeout=60)
    seen, start = [], time.monotonic()
    while len(seen) < 30 or (len(seen) < publishes and time.monotonic() - start < seconds):
        n = s.count("INFO warmcache-sidecar: published")
        # Directories come and go.
        short = os.path.join(t.volume, "own", "d%d" % n)
        Tree([other_file("n%d" % n), {"own/d%d/x" % n: b"x"}]).write(t.volume)
        s.signal(signal.SIGUSR1)
        s.wait_for("INFO warmcache-sidecar: published", n + 1, timeout=30)
        os.unlink(os.path.join(short, "x"))
        os.rmdir(short)
        seen.append(_takes(s.process))
    tenth = len(seen) // 10
    means = [[sum(x) / len(part) for x in zip(*part)]
             for part in (seen[tenth:3 * tenth], seen[-2 * tenth:])]
    # A layer more in the store is an index more.
    for what, before, after, more in zip(("KiB", "descriptors", "threads", "watches"), *means,
                                         (2048, 1, 0.3, 3)):
        assert after <= before + more, "%.1f, then %.1f %s: %s" % (before, after, what, seen)
    assert s.stop() == 0, s.log


# ---- weeks ----

def _weeks(t, life, where=None):
    """Two weeks of a model that compiles now and then, a quiet day among them."""
    tree, wrote, since = Tree([]), {}, life.now()
    days = 2 if t.quick else 14
    life.write(best_config("tuned"))
    while life.now() - since < days * DAY:
        groups = _some(t, "g%d" % len(wrote))
        wrote[len(wrote)] = life.wall(), groups
        life.write(*groups)
        tree += Tree(groups)
        life.pass_(t.random.choice([1, 30, 5 * MINUTE, HOUR, 5 * HOUR, 9 * HOUR]))
        life.write(best_config("tuned"))
    life.pass_(2 * INTERVAL)
    n, objects = life.published(), len(layer.objects(where or t.store))
    for _ in range(4):
        life.pass_(DAY / 4)
        life.write(best_config("tuned"))
    assert (life.published(), len(layer.objects(where or t.store))) == (n, objects), life.log
    assert 0 < n <= len(wrote), life.log
    _apart(life.events("published"), 0.9 * INTERVAL)
    assert max(_gaps(life.events("status"))) <= STATUS + LATE, life.log
    assert life.status("failures") == 0, life.log
    created = _created(where or t.store)
    for when, groups in wrote.values():
        for group in groups:
            name = next(n for n in created if any(p.startswith(n.split("@")[0]) for p in group))
            assert when <= created[name][0] <= when + SETTLE + 1.1 * INTERVAL + LATE, life.log
    life.stop()
    return tree + Tree([best_config("tuned")])


def two_weeks_beside_a_model(t):
    life = _Life(t).start()
    _check(life, _weeks(t, life))


def two_weeks_beside_a_model_with_s3(t):
    """The server's clock stays, and so is weeks off by the sidecar's."""
    s3 = servers.S3(t)
    life = _Life(t, store=s3.url("team"), **s3.keys()).start()
    where = os.path.join(s3.bucket_dir, "team")
    _check(life, _weeks(t, life, where), where)


def a_day_in_a_minute(t):
    """Nothing is jumped over: time runs on while rounds work."""
    life = _Life(t, rate=1440).start()
    tree, start = Tree([]), life.now()
    while life.now() - start < (2 * HOUR if t.quick else 16 * HOUR):
        groups = _some(t, "g%d" % len(tree.groups))
        life.write(*groups)
        tree += Tree(groups)
        time.sleep(t.random.random() / 2)
    end = time.monotonic() + 20
    while len(set(check_store(t.store))) < len(tree.groups):
        assert time.monotonic() < end, life.log
        time.sleep(0.1)
    assert 0 < life.published() <= (life.now() - start) / (0.9 * INTERVAL) + 2, life.log
    life.stop()
    _check(life, tree)


# ---- a store that is away ----

def _outages(t, life, away, back, where=None):
    tree, where = Tree([]), where or t.store
    for i, hours in enumerate([1, 7] if t.quick else [1, 7, 0.2, 30, 3]):
        groups = _some(t, "before%d" % i)
        life.write(*groups)
        tree += Tree(groups)
        life.pass_(2 * INTERVAL)
        n, failures, since = life.published(), life.status("failures"), life.wall()
        away()
        life.pass_(HOUR)
        for k in range(3):
            groups = _some(t, "during%d.%d" % (i, k))
            life.write(*groups)
            tree += Tree(groups)
            life.pass_(hours * HOUR / 3)
        assert life.published() == n, life.log
        back()
        again = life.wall()
        life.pass_(1.1 * BACKOFF + SETTLE + LATE)
        assert life.published() == n + 1, life.log
        # It went on asking, and not more often than it should.
        tries = life.status("failures") - failures
        most = (again - since) / (0.9 * BACKOFF) + 10
        least = (hours * HOUR - INTERVAL) / (1.1 * BACKOFF + LATE) - 1
        assert least <= tries <= most, (least, tries, most, life.log)
    assert life.events("publish-failed")
    _apart(life.events("publish-failed"), 59)
    life.stop()
    return tree


def a_directory_that_is_away_for_hours(t):
    """Its parent too, as when it is unmounted: else it would be made anew."""
    t.dir("mount")
    life = _Life(t, store=t.path("mount", "store")).start()
    _check(life, _outages(
        t, life, lambda: os.rename(t.path("mount"), t.path("away")),
        lambda: os.rename(t.path("away"), t.path("mount")), life.store))


def a_server_that_is_away_for_hours(t):
    s3 = servers.S3(t)
    proxy = servers.Toxiproxy(t, s3.endpoint.split("//")[1])
    life = _Life(t, store=s3.url("team", endpoint=proxy.endpoint), **s3.keys()).start()
    where = os.path.join(s3.bucket_dir, "team")
    _check(life, _outages(t, life, lambda: proxy.enable(False), proxy.enable, where), where)


# ---- credentials that change ----

class _Issuer(fakes.Issuer):
    """Keys that end by the sidecar's time."""

    def __init__(self, t):
        super().__init__(t, 3600)
        self.life, self.ends, self.made, self.refused = None, {}, [], 0

    def new(self, kind="ASIA"):
        made = super().new(kind)
        self.ends[made[0]] = self.life.now() + self.seconds
        self.made.append(self.life.now())
        return made

    def check(self, request, service):
        given = fakes.parse_authorization(request)
        if given and self.life.now() > self.ends.get(given[0], float("inf")):
            self.refused += 1
            return 400, "ExpiredToken", "The provided token has expired."
        return super().check(request, service)


class _Front(fakes.S3Front):
    """Its clock is right, by the sidecar's time."""

    @property
    def clock(self):
        return self.issuer.life._now()[1] - time.time() if self.issuer.life else 0

    @clock.setter
    def clock(self, value):
        pass


def _rotating(t):
    s3, issuer = servers.S3(t), _Issuer(t)
    front = _Front(t, s3, issuer)
    return s3, issuer, front, os.path.join(s3.bucket_dir, "team")


def _compile(life, tree, hours, every=40 * MINUTE, most=SETTLE + 1.1 * INTERVAL + LATE):
    """Now and then something new, that arrives soon each time."""
    until = life.now() + hours * HOUR
    while life.now() < until:
        groups = _some(life.t, "c%d" % len(tree.groups))
        life.write(*groups)
        tree += Tree(groups)
        n = life.published()
        life.pass_(most)
        assert life.published() > n, life.log
        life.pass_(every)
    return tree


def keys_in_a_file_that_are_rotated(t):
    s3, issuer, front, where = _rotating(t)
    file, numbers = t.path("credentials"), itertools.count()

    def rotate(old=None, gap=0):
        access = "AKIA%016d" % next(numbers)
        issuer.add(access, "secret-of-" + access)
        if old and gap:  # the other way round, by somebody who is in a hurry
            del issuer.keys[old]
            life.pass_(gap)
        with open(file + ".new", "w") as f:
            f.write("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n" % (
                access, issuer.keys[access][0]))
        os.rename(file + ".new", file)
        if old and not gap:
            del issuer.keys[old]
        return access

    access = rotate()
    life = _Life(t, store=s3.url("team", endpoint=front.url), AWS_SHARED_CREDENTIALS_FILE=file)
    issuer.life = life
    life.start()
    tree = Tree([])
    for i in range(3 if t.quick else 12):
        tree = _compile(life, tree, 2)
        access = rotate(access)
    assert life.status("failures") == 0, life.log
    for i in range(1 if t.quick else 4):
        groups = _some(t, "gap%d" % i)
        life.write(*groups)
        tree += Tree(groups)
        access = rotate(access, HOUR)
        n = life.published()
        life.pass_(1.1 * BACKOFF + LATE)
        assert life.published() == n + 1, life.log
        tree = _compile(life, tree, 2)
    life.stop()
    _check(life, tree, where)


def _expiring(t, life, source, issuer, where):
    """`source` hands out what ends after an hour."""
    issuer.life = life
    life.start()
    tree = _compile(life, Tree([]), 9 if t.quick else 72)
    assert life.status("failures") == 0 and issuer.refused == 0, life.log
    assert max(_gaps([(m,) for m in issuer.made])) > 50 * MINUTE
    # It is away when they end, too: nothing but that is in the way.
    source.down = True
    life.pass_(2 * HOUR)
    groups = _some(t, "down")
    life.write(*groups)
    tree += Tree(groups)
    n = life.published()
    life.pass_(HOUR)
    assert life.published() == n and life.status("failures") > 0, life.log
    source.down = False
    life.pass_(1.1 * BACKOFF + LATE)
    assert life.published() == n + 1, life.log
    failures = life.status("failures")
    tree = _compile(life, tree, 5)
    assert life.status("failures") == failures, life.log
    life.stop()
    _check(life, tree, where)


class _Sts(fakes.Sts):
    down = False

    def handle(self, request):
        return fakes.Reply(503) if self.down else super().handle(request)


class _Container(fakes.Container):
    down = False

    def handle(self, request):
        return fakes.Reply(503) if self.down else super().handle(request)


def a_web_identity_of_which_credentials_last_an_hour(t):
    s3, issuer, front, where = _rotating(t)
    token = t.path("token")
    with open(token, "w") as f:
        f.write("web-identity")
    sts = _Sts(t, issuer, {"web-identity"})
    life = _Life(t, store=s3.url("team", endpoint=front.url), AWS_ENDPOINT_URL_STS=sts.url,
                 AWS_ROLE_ARN="arn:aws:iam::1:role/r", AWS_WEB_IDENTITY_TOKEN_FILE=token)
    _expiring(t, life, sts, issuer, where)


def a_container_of_which_credentials_last_an_hour(t):
    s3, issuer, front, where = _rotating(t)
    token = t.path("token")
    with open(token, "w") as f:
        f.write("of-the-container")
    agent = _Container(t, issuer, token)
    life = _Life(t, store=s3.url("team", endpoint=front.url),
                 AWS_CONTAINER_CREDENTIALS_FULL_URI=agent.url + "/creds",
                 AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=token)
    _expiring(t, life, agent, issuer, where)


def a_status_line_in_the_middle_of_a_round_brings_no_publish_forward(t):
    s3, issuer, front, where = _rotating(t)
    issuer.add("AKIATHEONE", "secret-of-the-one")
    life = _Life(t, store=s3.url("team", endpoint=front.url), AWS_ACCESS_KEY_ID="AKIATHEONE",
                 AWS_SECRET_ACCESS_KEY="secret-of-the-one")
    issuer.life = life
    life.start()
    life.write(inductor_file("a"))
    life.pass_(HOUR - 5 * MINUTE)
    names = ["a"]
    for i in range(4):
        front.latency = 1  # so that a round takes three
        told = life.events("status")[-1][0] + STATUS
        life.pass_(told - life.wall() - SETTLE - 1.3)
        life.write(inductor_file("b%d" % i))
        begins = life.wall() + SETTLE
        time.sleep(0.5)
        life.write(inductor_file("c%d" % i))
        names += ["b%d" % i, "c%d" % i]
        life.pass_(2 * INTERVAL)
        front.latency = 0
        _apart(life.events("published"), 0.9 * INTERVAL)
        if begins + 0.1 < told:  # else this machine was too slow for it
            break
    life.stop()
    _check(life, Tree([inductor_file(n) for n in names]), where)


# ---- a volume that is full ----

def a_volume_that_is_full_for_hours(t):
    volume = t.dir("small")
    t.mount("-t", "tmpfs", "-o", "size=12m", "tmpfs", volume)
    life = _Life(t, "--max-file-bytes=4M", volume=volume).start()
    tree, ballast = Tree([]), os.path.join(volume, "ballast")  # too large to be published
    for i in range(2 if t.quick else 8):
        groups = _some(t, "before%d" % i)
        life.write(*groups)
        tree += Tree(groups)
        life.pass_(2 * INTERVAL)
        # Less is left than a spool may take, and the model goes on into the last byte.
        left = os.statvfs(volume)
        with open(ballast, "wb") as f:
            f.truncate(5 << 20)
            f.write(b"b" * (left.f_bavail * left.f_frsize - (300 << 10)))
        during = _some(t, "during%d" % i)
        life.write(*during)
        cut, name = elf(t.random.randbytes(400 << 10)), "inductor/cu/cut%d.so" % i
        full = os.path.join(volume, name)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        try:
            with open(full, "wb", buffering=0) as f:
                for at in range(0, len(cut), 4096):
                    f.write(cut[at:at + 4096])
            raise AssertionError("the volume isn't full")
        except OSError:
            pass
        n = life.published()
        life.pass_(t.random.choice([HOUR, 5 * HOUR]))
        assert life.published() == n, life.log
        os.unlink(ballast)
        life.pass_(INTERVAL)
        assert life.published() > n, life.log
        life.write({name: cut})
        tree += Tree(during) + Tree([{name: cut}])
        life.pass_(2 * INTERVAL)
    assert life.events("publish-failed")
    _apart(life.events("publish-failed"), 59)
    life.stop()
    _check(life, tree)


# ---- clocks that are set ----

def _jumps(t, life, where=None):
    tree, at = Tree([inductor_file("first")]), 0
    life.write(*tree.groups)
    life.pass_(HOUR)
    for i, jump in enumerate([-DAY, 7 * DAY] if t.quick else
                             [-DAY, 7 * DAY, -3 * HOUR, -7 * DAY, 10, -10, 30 * DAY, -60 * DAY]):
        early, late = _some(t, "early%d" % i), _some(t, "late%d" % i)
        life.write(*early)
        life.pass_(1)  # not settled yet: back, they are of the future
        at += jump
        life.jump(at)
        time.sleep(0.01)
        cpu, n = life.cpu(), life.published()
        life.pass_(1.1 * INTERVAL + 2 * SETTLE + LATE)
        assert life.published() > n, life.log
        life.write(*late)
        life.pass_(1.1 * INTERVAL + 2 * SETTLE + LATE)
        tree += Tree(early) + Tree(late)
        assert set(check_store(where or t.store)) and life.published() > n + 1, life.log
        life.pass_(DAY)
        time.sleep(0.3)
        assert life.cpu() - cpu < 1, "it was busy for %.2f s" % (life.cpu() - cpu)
    life.stop()
    return tree


def a_clock_that_is_set_back_and_forth(t):
    life = _Life(t).start()
    _check(life, _jumps(t, life))


def a_clock_that_is_set_back_and_forth_with_s3(t):
    s3, issuer, front, where = _rotating(t)
    issuer.add("AKIATHEONE", "secret-of-the-one")
    life = _Life(t, store=s3.url("team", endpoint=front.url), AWS_ACCESS_KEY_ID="AKIATHEONE",
                 AWS_SECRET_ACCESS_KEY="secret-of-the-one")
    issuer.life = life
    life.start()
    _check(life, _jumps(t, life, where), where)


# ---- a sidecar that dies ----

def _deaths(t, life):
    tree = Tree([])
    for i in range(12 if t.quick else 50):
        groups = _some(t, "g%d" % i) + [other_file("large%d" % i, t.random.choice([1, 2 << 20]))]
        life.write(*groups)
        tree += Tree(groups)
        if i % 2:  # in the middle of a round, if it takes so long
            life.pass_(SETTLE - 1)
            struct.pack_into("<q", life._page, 0, int((life.now() + 400) * 1e9))
            time.sleep(t.random.random() * 0.03)
        else:
            life.pass_(t.random.choice([1, SETTLE, INTERVAL, HOUR]))
        life.sidecar.kill()
        time.sleep(t.random.random() * 0.02)
        life.start()
    life.pass_(2 * INTERVAL)
    life.stop()
    return tree


def a_sidecar_that_is_killed_at_any_moment(t):
    life = _Life(t).start()
    _check(life, _deaths(t, life))


def a_sidecar_that_is_killed_at_any_moment_with_s3(t):
    s3 = servers.S3(t)
    life = _Life(t, store=s3.url("team"), **s3.keys()).start()
    _check(life, _deaths(t, life), os.path.join(s3.bucket_dir, "team"))
