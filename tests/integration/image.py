#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The image that `make image` has written, as root: python3 tests/integration/image.py [NAME...]

Its programs run in its own root, read-only, as its user. Then suites that know nothing of images
run with it (as root, who owns the tests' directories), also against S3 over TLS. 3 minutes."""

import argparse
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import kinds  # noqa: E402
import run  # noqa: E402
import servers  # noqa: E402
import support  # noqa: E402
from support import (ROOT, Tree, bare_env, check_whole, need, other_file, small_tree,  # noqa: E402
                     some_tree)

LAYOUT = os.path.join(ROOT, "build", "image")
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
SUITES = ["main_way.", "cli.", "stores", "sidecar.", "compact.", "limits.", "volume."]
# They run a program as somebody else, who may not enter a root, or with a name server of their own, or
# with a helper that is a script.
LEFT_OUT = ["a_read_only_store_is_denied", "a_key_that_fails_keeps", "without_permission",
            "an_unreadable_far_store", "with_an_unreadable_part", "a_store_that_denies",
            "a_nameserver_that_never", "a_credential_helper", "of_other_uids", "that_is_closed_to_us"]
USER = 65532
SPDX = "application/spdx+json"

# Enter the root as a container would be. It may not be written to, /tmp is a volume, and what the
# runtime brings lies over it. The process stays the same one, for signals.
WRAPPER = """#!/bin/sh
root=%(root)s
export root
exec unshare --mount --propagation private /bin/sh -c '
mount --bind "$root" "$root" && mount -o remount,bind,ro "$root" &&
mount --rbind /tmp "$root/tmp" && mount --rbind /proc "$root/proc" && mount --rbind /dev "$root/dev" ||
exit 99
for file in resolv.conf hosts ssl/certs/ca-certificates.crt; do
	[ ! -e "$root.etc/$file" ] || mount --bind "$root.etc/$file" "$root/etc/$file" || exit 99
done
exec chroot --userspec=%(user)s "$root" %(program)s "$@"
' sh "$@"
"""


# ---- the layout, and its root ----

def _blob(digest):
    kind, value = digest.split(":")
    with open(os.path.join(LAYOUT, "blobs", kind, value), "rb") as f:
        data = f.read()
    assert hashlib.sha256(data).hexdigest() == value, digest
    return data


def _json(descriptor):
    data = _blob(descriptor["digest"])
    assert len(data) == descriptor["size"], descriptor
    return json.loads(data)


class Image:
    """This machine's image, unpacked into `root`, and programs that enter it."""

    def __init__(self, top):
        with open(os.path.join(LAYOUT, "index.json")) as f:
            names = json.load(f)["manifests"]
        assert len(names) == 1, names
        self.listed = _json(names[0])["manifests"]
        self.descriptor = next(m for m in self.listed if m["platform"]["architecture"] == ARCH)
        self.manifest = _json(self.descriptor)
        self.config = _json(self.manifest["config"])
        self.bills = [_json(m) for m in self.listed if m.get("artifactType") == SPDX]
        layer, = self.manifest["layers"]
        self.tar = gzip.decompress(_blob(layer["digest"]))
        self.root = os.path.join(top, "root")
        with tarfile.open(fileobj=io.BytesIO(self.tar)) as tar:
            self.members = tar.getmembers()
            tar.extractall(self.root, filter="tar")
        for name in ("proc", "dev", "etc"):
            os.makedirs(os.path.join(self.root, name), exist_ok=True)
        for name in ("resolv.conf", "hosts"):
            open(os.path.join(self.root, "etc", name), "w").close()
        os.chmod(os.path.join(self.root, "tmp"), 0o1777)
        self.programs = sorted(os.listdir(os.path.join(self.root, "usr/local/bin")))
        self.bin, self.root_bin = (self._enter(top, "bin", USER), self._enter(top, "root-bin", 0))

    def _enter(self, top, name, user):
        """A directory of programs that run in the root as `user`."""
        path = os.path.join(top, name)
        os.mkdir(path)
        for program in self.programs:
            file = os.path.join(path, program)
            with open(file, "w") as f:
                f.write(WRAPPER % {"root": self.root, "user": "%d:%d" % (user, user),
                                   "program": "/usr/local/bin/" + program})
            os.chmod(file, 0o755)
        return path

    def lay(self, name, data):
        """A file over the image's etc/NAME, as a runtime's or a volume's."""
        path = os.path.join(self.root + ".etc", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)


IMAGE = None


class Dns:
    """A name server on 127.0.77.1 that knows `names`."""

    address = "127.0.77.1"

    def __init__(self, t, names):
        self.names, self.asked = names, []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((self.address, 53))
        threading.Thread(target=self._serve, daemon=True).start()
        t.undo(self.socket.close)

    def _serve(self):
        while True:
            try:
                data, peer = self.socket.recvfrom(512)
            except OSError:
                return
            labels, at = [], 12
            while data[at]:
                labels.append(data[at + 1:at + 1 + data[at]].decode())
                at += 1 + data[at]
            kind, = struct.unpack(">H", data[at + 1:at + 3])
            name = ".".join(labels)
            self.asked.append(name)
            found = self.names.get(name) if kind == 1 else None
            code = 0 if name in self.names else 3
            head = data[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, bool(found), 0, 0)
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(found) \
                if found else b""
            self.socket.sendto(head + data[12:at + 5] + answer, peer)


def _open_to_all(t):
    """The pod's volumes are its user's."""
    for path in (t.volume, t.dir("store")):
        os.chown(path, USER, USER)


def _bucket(t):
    """An S3 server with a certificate of store.test, and its URL by that name."""
    tls = servers.Authority(t)
    os.chmod(tls.ca, 0o644)
    s3 = servers.S3(t, tls)
    endpoint = "https://store.test:%d" % s3.port
    return s3, tls, "s3://%s/team?endpoint=%s" % (s3.bucket, endpoint)


def _passes(t, store, env):
    """Published by the image's sidecar, restored by its init."""
    tree = some_tree(t.path())
    tree.write(t.volume)
    for top, dirs, files in os.walk(t.volume):
        for name in dirs + files:
            os.chown(os.path.join(top, name), USER, USER)
    t.publish(None, volume=t.volume, store=store, env=env)
    t.clear()
    os.chown(t.volume, USER, USER)
    r = t.init(store=store, env=env)
    assert r.code == 0 and r.status == "warm", (r, r.json)
    assert check_whole(t.volume, tree) == len(tree.groups)
    assert {os.stat(os.path.join(t.volume, p)).st_uid for p in tree.files} == {USER}
    t.clear()
    os.chown(t.volume, USER, USER)


# ---- tests ----

def the_programs_start_by_name_with_the_image_s_own_environment(t):
    with open(os.path.join(ROOT, "VERSION")) as f:
        version = f.read().strip()
    config = IMAGE.config["config"]
    assert config["User"] == "%d:%d" % (USER, USER), config
    assert {"warmcache", "warmcache-init", "warmcache-sidecar"} <= set(IMAGE.programs)
    for program in IMAGE.programs:
        for option, expected in (("--version-info", version), ("--help", program)):
            out = subprocess.run(["env", "-i"] + config["Env"] + [
                shutil.which("chroot"), "--userspec=" + config["User"], IMAGE.root, program, option],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert out.returncode == 0 and expected in out.stdout, (program, out)
    assert subprocess.run([os.path.join(IMAGE.bin, "warmcache")] + config["Cmd"][1:],
                          stdout=subprocess.DEVNULL).returncode == 0


def nothing_else_can_be_run_and_nothing_is_anyone_s_but_root_s(t):
    for m in IMAGE.members:
        assert (m.uid, m.gid) == (0, 0), m
        assert m.name == "tmp" or m.mode & 0o7022 == 0, (m.name, oct(m.mode))
        if m.isfile() and m.mode & 0o111:
            assert m.name.startswith("usr/local/bin/warmcache") or "/ld-linux" in m.name, m
        assert m.isfile() or m.isdir(), m.name
    assert len({m.mtime for m in IMAGE.members}) == 1
    assert not any(p in ("sh", "bash", "kubectl-warmcache", "warmcache-nvrtc")
                   for p in (os.path.basename(m.name) for m in IMAGE.members))


def a_store_on_a_volume_without_anything_else(t):
    _open_to_all(t)
    _passes(t, t.store, bare_env(t))


def s3_over_tls_by_a_name_that_dns_knows(t):
    dns = Dns(t, {"store.test": "127.0.0.1"})
    IMAGE.lay("resolv.conf", b"nameserver 127.0.77.1\nsearch ns.svc.cluster.local\noptions ndots:5\n")
    _open_to_all(t)
    s3, tls, url = _bucket(t)
    env = bare_env(t, **s3.keys())
    try:
        refused = t.init(store=url, env=env)  # by a CA that nobody knows
        assert refused.status in ("cold", "error") and "certificate" in refused.err, refused
        _passes(t, url + "&ca=" + tls.ca, env)
        _passes(t, url, {**env, "SSL_CERT_FILE": tls.ca})
        with open(os.path.join(IMAGE.root, "etc/ssl/certs/ca-certificates.crt"), "rb") as f:
            bundle = f.read()
        assert bundle.count(b"BEGIN CERT") > 100
        with open(tls.ca, "rb") as f:
            IMAGE.lay("ssl/certs/ca-certificates.crt", bundle + f.read())
        _passes(t, url, env)
    finally:
        shutil.rmtree(IMAGE.root + ".etc", ignore_errors=True)
    assert "store.test.ns.svc.cluster.local" in dns.asked and "store.test" in dns.asked, dns.asked


def a_name_of_etc_hosts(t):
    IMAGE.lay("hosts", b"127.0.0.1 localhost store.test\n")
    try:
        _open_to_all(t)
        s3, tls, url = _bucket(t)
        _passes(t, url + "&ca=" + tls.ca, bare_env(t, **s3.keys()))
    finally:
        shutil.rmtree(IMAGE.root + ".etc", ignore_errors=True)


def archives_of_every_kind_are_imported(t):
    need("zstd")
    _open_to_all(t)
    tree = small_tree() + Tree([other_file("y")])
    source = t.fresh("source")
    tree.write(source)
    raw = t.path("in.tar")
    with tarfile.open(raw, "w", format=tarfile.PAX_FORMAT) as f:
        f.add(source, arcname=".")
    kinds_of = {"tar": None, "tar.gz": "gzip", "tar.bz2": "bzip2", "tar.xz": "xz",
                "tar.zst": "zstd", "tar.lz4": "lz4", "zip": None}
    env = t.env(TMPDIR=t.dir("work"))
    os.chown(t.path("work"), USER, USER)
    for i, (suffix, tool) in enumerate(kinds_of.items()):
        path = t.path("in." + suffix)
        if suffix == "zip":
            shutil.make_archive(path[:-4], "zip", source)
        elif tool and not shutil.which(tool):
            continue
        elif tool:
            with open(path, "wb") as f:
                subprocess.check_call([tool, "-c", raw], stdout=f, stderr=subprocess.DEVNULL)
        key = ["--store", t.store, "--model", "m", "--version", "v%d" % i]
        back = t.fresh("back")
        os.chown(back, USER, USER)
        t.run("import", path, "--mount", back, *key, env=env)
        t.run("pull", back, *key, env=env)
        for name, data in tree.files.items():
            with open(os.path.join(back, name), "rb") as f:
                assert f.read() == data, (suffix, name)
    out = os.path.join(t.path("work"), "out.tar.gz")
    t.run("export", out, *key, env=env)
    with tarfile.open(out) as f:
        assert set(f.getnames()) == set(tree.files), f.getnames()


def compaction_has_a_place_to_work(t):
    _open_to_all(t)
    for i in range(4):
        volume = t.fresh()
        other_tree = Tree([other_file("x%d" % i)])
        other_tree.write(volume)
        subprocess.check_call(["chown", "-R", str(USER), volume])
        t.publish(None, volume=volume)
    said = json.loads(t.run("compact", "--json", "--store", t.store, env=t.env()).stdout)
    assert len(said["keys"]) == 1 and said["keys"][0].get("base"), said


def the_sidecar_serves_metrics(t):
    _open_to_all(t)
    port = servers.free_port()
    s = t.sidecar("--listen=127.0.0.1:%d" % port)
    s.wait_for("state=started")
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    c.request("GET", "/metrics")
    answer = c.getresponse()
    assert answer.status == 200 and b"# TYPE warm" in answer.read()
    assert s.stop() == 0


def the_bill_names_every_file(t):
    bill = next(b for b in IMAGE.bills if b["subject"]["digest"] == IMAGE.descriptor["digest"])
    spdx = json.loads(_blob(bill["layers"][0]["digest"]))
    assert spdx["spdxVersion"] == "SPDX-2.3"
    sums = {f["fileName"]: c["checksumValue"] for f in spdx["files"] for c in f["checksums"]
            if c["algorithm"] == "SHA256"}
    with tarfile.open(fileobj=io.BytesIO(IMAGE.tar)) as tar:
        assert sums == {"./" + m.name: hashlib.sha256(tar.extractfile(m).read()).hexdigest()
                        for m in tar if m.isfile()}
    owned = [f for p in spdx["packages"] for f in p.get("hasFiles", ())]
    assert sorted(owned) == sorted(f["SPDXID"] for f in spdx["files"])
    unknown = [p["name"] for p in spdx["packages"][1:] if p["licenseDeclared"] == "NOASSERTION"]
    assert not unknown, unknown


def skopeo_reads_it_and_a_registry_takes_it_whole(t):
    skopeo = servers.system("skopeo")

    def call(*args):
        return subprocess.run([skopeo, "--insecure-policy"] + list(args), check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "NO_PROXY": "127.0.0.1", "TMPDIR": t.tmp}).stdout
    seen = json.loads(call("inspect", "oci:" + LAYOUT))
    assert seen["Architecture"] == ARCH and seen["Digest"].startswith("sha256:"), seen
    archive = json.loads(call("inspect", "oci-archive:" + LAYOUT + "/../warmcache-image.tar"))
    assert archive["Layers"] == seen["Layers"]
    registry = servers.Registry(t)
    at = "127.0.0.1:%d/warmcache" % registry.port
    for tag, options in (("one", []), ("all", ["--all"])):
        call("copy", "--quiet", "--dest-tls-verify=false", *options, "oci:" + LAYOUT,
             "docker://%s:%s" % (at, tag))
        there = json.loads(call("inspect", "--tls-verify=false", "docker://%s:%s" % (at, tag)))
        assert there["Layers"] == seen["Layers"], there
    c = http.client.HTTPConnection("127.0.0.1", registry.port)
    for m in IMAGE.listed:
        c.request("GET", "/v2/warmcache/manifests/" + m["digest"], headers={
            "Accept": m["mediaType"]})
        answer = c.getresponse()
        assert answer.status == 200, (answer.status, m)
        assert hashlib.sha256(answer.read()).hexdigest() == m["digest"].split(":")[1]


# ---- main ----

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    args.quick, args.jobs, args.bin = True, 1, None
    if os.geteuid() != 0:
        sys.exit("image.py: enters the image's root, so it needs root")
    if not os.path.exists(LAYOUT):
        sys.exit("image.py: no build/image: make image")
    global IMAGE
    top = tempfile.mkdtemp(prefix="warm-image.")
    os.chmod(top, 0o755)
    failed = 0
    try:
        IMAGE = Image(top)
        mine = [("image." + n, f) for n, f in globals().items()
                if callable(f) and getattr(f, "__module__", "") == __name__ and
                re.match("[a-z]", n) and n != "main"]
        args.bin = IMAGE.bin
        chosen = [x for x in mine if not args.names or any(n in x[0] for n in args.names)]
        failed |= run.run_all(chosen, args) if chosen else 0
        if not args.names:
            args.bin, args.jobs = IMAGE.root_bin, run.WORKERS
            failed |= run.run_all([x for x in run.collect(SUITES)
                                   if not any(n in x[0] for n in LEFT_OUT)], args)
            server = support.Context(args.bin, True, "server")
            try:
                support.Context.kind = kinds.KINDS["s3-tls"](server)
                failed |= run.run_all(run.collect(["main_way.", "cli."]), args)
            finally:
                server.end()
    finally:
        shutil.rmtree(top, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
