# SPDX-License-Identifier: Apache-2.0
"""The layer format, written a second time and from its description alone: to look into what the
programs made, and to make layers that lie."""

import ctypes
import hashlib
import io
import os
import struct
import tarfile

_zstd = ctypes.CDLL("libzstd.so.1")
_zstd.ZSTD_compressBound.restype = ctypes.c_size_t
_zstd.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
_zstd.ZSTD_compress.restype = ctypes.c_size_t
_zstd.ZSTD_compress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p,
                                ctypes.c_size_t, ctypes.c_int]
_zstd.ZSTD_decompress.restype = ctypes.c_size_t
_zstd.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p,
                                  ctypes.c_size_t]
_zstd.ZSTD_isError.argtypes = [ctypes.c_size_t]

MAGIC = 0x184D2A5B
FIXED = 136
FRAME = 4 << 20
SELF_KEYED, MUTABLE, MOUNT_BOUND, CPU_BOUND = 1, 2, 4, 8


def compress(data, level=3):
    room = ctypes.create_string_buffer(_zstd.ZSTD_compressBound(len(data)))
    n = _zstd.ZSTD_compress(room, len(room), data, len(data), level)
    assert not _zstd.ZSTD_isError(n)
    return room.raw[:n]


def decompress(data, size):
    room = ctypes.create_string_buffer(max(size, 1))
    n = _zstd.ZSTD_decompress(room, size, data, len(data))
    assert not _zstd.ZSTD_isError(n) and n == size, "a frame doesn't decode to its size"
    return room.raw[:n]


def uv(v):
    out = b""
    while True:
        out += bytes([v & 0x7F | (0x80 if v > 0x7F else 0)])
        v >>= 7
        if v == 0:
            return out


def text(s):
    b = s if isinstance(s, bytes) else s.encode("utf-8", "surrogateescape")
    return uv(len(b)) + b


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        assert self.at + n <= len(self.data), "short"
        self.at += n
        return self.data[self.at - n:self.at]

    def num(self, n):
        return int.from_bytes(self.take(n), "little")

    def uv(self):
        v = shift = 0
        while True:
            b = self.num(1)
            v |= (b & 0x7F) << shift
            shift += 7
            if not b & 0x80:
                return v

    def text(self):
        return self.take(self.uv()).decode("utf-8", "surrogateescape")

    def id(self):
        return (self.uv(), self.num(8))


class Layer:
    """A layer's index, and what is needed to write it with any lie."""

    def __init__(self, key=("m", "v1", os.uname().machine), kind="L", id=(1700000000000, 1)):
        self.key, self.kind, self.id = tuple(key), kind, id
        self.created, self.mount, self.program = 0, "/v", "test"
        self.complete, self.covered = None, []
        self.frames = []  # (compressed, raw size)
        self.groups = []  # dicts: name, origin, profile, bound, flags, files
        self.major, self.minor = 1, 0

    def add(self, name, files, profile="file", flags=0, bound=0, raw=True):
        """`files`: {path: bytes}; one frame a group."""
        blob = io.BytesIO()
        listed = []
        for path, data in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            blob.write(info.tobuf(tarfile.USTAR_FORMAT) if len(path) < 100 and raw else b"\0" * 512)
            listed.append({"path": path, "size": len(data), "mode": 0, "mtime": 10 ** 18,
                           "frame": len(self.frames), "offset": blob.tell()})
            blob.write(data + b"\0" * (-len(data) % 512))
        self.frames.append((compress(blob.getvalue()), len(blob.getvalue())))
        self.groups.append({"name": name, "origin": self.id, "profile": profile, "bound": bound,
                            "flags": flags, "files": listed})
        return self.groups[-1]

    def raw_index(self):
        out = bytearray(self.kind.encode())

        def put_id(i):
            return uv(i[0]) + struct.pack("<Q", i[1])
        out += put_id(self.id)
        for part in self.key:
            out += text(part)
        out += struct.pack("<q", self.created) + text(self.mount) + text(self.program)
        out += bytes([self.complete is not None]) + text(self.complete or "")
        out += uv(len(self.covered)) + b"".join(put_id(i) for i in self.covered)
        out += uv(len(self.frames))
        for packed, size in self.frames:
            out += uv(len(packed)) + uv(size) + hashlib.sha256(packed).digest()
        out += uv(len(self.groups))
        for g in self.groups:
            out += text(g["name"]) + put_id(g["origin"]) + text(g["profile"])
            out += struct.pack("<Q", g["bound"]) + uv(g["flags"]) + uv(len(g["files"]))
            for f in g["files"]:
                out += text(f["path"]) + uv(f["size"]) + uv(f["mode"])
                out += struct.pack("<q", f["mtime"]) + uv(f["frame"]) + uv(f["offset"])
        return bytes(out)

    def trailer(self, raw=None, raw_bytes=None):
        raw = self.raw_index() if raw is None else raw
        packed = compress(raw)
        digest = hashlib.sha256(packed).digest()
        head = struct.pack("<II", MAGIC, FIXED - 8 + len(packed)) + b"warmidx\n"
        head += struct.pack("<HHII", self.major, self.minor, len(packed),
                            len(raw) if raw_bytes is None else raw_bytes)
        head += digest
        return head + b"\0" * (FIXED - len(head)) + packed, len(packed), digest

    def name(self, index_bytes, digest):
        return "%s/%s-%d-%016x-%d-%s.tar.zst" % (
            "/".join(p or "_" for p in self.key), self.kind, self.id[0], self.id[1], index_bytes,
            digest.hex())

    def write(self, store, raw=None, raw_bytes=None):
        trailer, index_bytes, digest = self.trailer(raw, raw_bytes)
        path = os.path.join(store, self.name(index_bytes, digest))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(b"".join(p for p, _ in self.frames) + trailer)
        return path


def refresh(store):
    """Called before somebody looks into a store; kinds.py puts what it needs in its place."""


def objects(store, fresh=True):
    """Every layer of a directory store: no temporary files, no heads for web servers."""
    if fresh:
        refresh(store)
    found = []
    for top, dirs, files in os.walk(store):
        dirs[:] = [d for d in dirs if not d.startswith(".")]
        found += [os.path.join(top, f) for f in files if not f.startswith(".") and f != "head"]
    return sorted(found)


def read_trailer(path):
    """(index bytes, raw index) of an object, its digests checked."""
    name = os.path.basename(path)
    kind, ms, rand, index_bytes, rest = name.split("-")
    index_bytes = int(index_bytes)
    with open(path, "rb") as f:
        data = f.read()
    packed = data[-index_bytes:]
    assert hashlib.sha256(packed).hexdigest() == rest.split(".")[0], "%s: index digest" % name
    head = Reader(data[-index_bytes - FIXED:-index_bytes])
    assert head.num(4) == MAGIC and head.num(4) == FIXED - 8 + index_bytes
    assert head.take(8) == b"warmidx\n"
    head.take(4)
    assert head.num(4) == index_bytes
    return data, decompress(packed, head.num(4)), FIXED + index_bytes


def read(path):
    """Parse an object to its end and verify each frame. Returns (Layer, {path: bytes})."""
    data, raw, trailer_bytes = read_trailer(path)
    r = Reader(raw)
    layer = Layer(kind=chr(r.num(1)))
    layer.id = r.id()
    layer.key = (r.text(), r.text(), r.text())
    layer.created = r.num(8)
    layer.mount, layer.program = r.text(), r.text()
    marked, mark = r.num(1), r.text()
    layer.complete = mark if marked else None
    layer.covered = [r.id() for _ in range(r.uv())]
    at, blobs, starts = 0, [], []
    tar = 0
    for _ in range(r.uv()):
        size, raw_size, digest = r.uv(), r.uv(), r.take(32)
        packed = data[at:at + size]
        assert hashlib.sha256(packed).digest() == digest, "%s: a frame's digest" % path
        blobs.append(decompress(packed, raw_size))
        layer.frames.append((packed, raw_size))
        starts.append(tar)
        tar += raw_size
        at += size
    assert at == len(data) - trailer_bytes, "%s: frames and trailer fill the object" % path
    whole = b"".join(blobs)
    contents = {}
    for _ in range(r.uv()):
        g = {"name": r.text(), "origin": r.id(), "profile": r.text(), "bound": r.num(8),
             "flags": r.uv(), "files": []}
        for _ in range(r.uv()):
            f = {"path": r.text(), "size": r.uv(), "mode": r.uv(), "mtime": r.num(8),
                 "frame": r.uv(), "offset": r.uv()}
            start = starts[f["frame"]] + f["offset"] if f["size"] else 0
            contents[f["path"]] = whole[start:start + f["size"]]
            g["files"].append(f)
        layer.groups.append(g)
    assert r.at == len(raw), "%s: the index ends where its bytes end" % path
    if whole:  # and it is a tar for everybody else
        names = tarfile.open(fileobj=io.BytesIO(whole)).getnames()
        assert sorted(names) == sorted(contents), "%s: tar and index differ" % path
    return layer, contents
