#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make the seeds of the corpora anew: python3 tests/fuzz/seeds.py [--bin DIR]. What a fuzzer found
later stands beside them under its hash."""

import argparse
import json
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration"))
import layer  # noqa: E402
import support  # noqa: E402
from layer import text, uv  # noqa: E402


def put(target, name, data):
    where = os.path.join(HERE, "corpus", target)
    os.makedirs(where, exist_ok=True)
    with open(os.path.join(where, "seed-" + name), "wb") as f:
        f.write(data)


def nul_text(b):
    return uv(len(b)) + b + b"\0"


def entry(deps=0, options=2, expressions=1):
    out = b"warmkrn1" + b"F" * 16
    out += nul_text(b"nvrtc 12.4 abc") + nul_text(b"A=1\nB=2\n") + nul_text(b"k.cu")
    out += uv(options) + b"".join(nul_text(b"--std=c++%d" % (17 + i)) for i in range(options))
    out += uv(expressions) + b"".join(nul_text(b"f<%d>" % i) for i in range(expressions))
    out += uv(100) + b"S" * 16 + uv(0) + uv(0) + b"H" * 16
    out += b"".join(nul_text(b"_Z1f") for _ in range(expressions))
    listed = b"".join(bytes([i % 4, i & 1]) + nul_text(b"/usr/include/h%d" % i) + uv(10) + b"D" * 16 + uv(0)
                      for i in range(deps))
    out += uv(deps) + uv(len(listed)) + listed
    out += b"".join(nul_text(b) for b in (b"ptx", support.elf(b"cubin"), b"", b"", b""))
    return out + nul_text(b"a warning") + b"0" * 16


def ledger(groups):
    out = b"warmldg1" + text("01234567-89ab-cdef-0123-456789abcdef") + uv(groups)
    for i in range(groups):
        out += text("triton/g%d" % i) + text("m/v/p") + text("triton")
        out += struct.pack("<QQ", 5, 6) + uv(1) + uv(2)
        for k in range(2):
            out += text("triton/g%d/f%d" % (i, k)) + uv(10) + struct.pack("<qq", 7, 8)
    return out + b"\0" * 8


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default="build/bin")
    args = parser.parse_args()

    t = support.Context(args.bin, False, "seeds")
    try:
        t.publish(support.small_tree(), "--complete-after=0")
        real = layer.objects(t.store)[0]
        data, raw, trailer_bytes = layer.read_trailer(real)
        frames = layer.read(real)[0].frames
        with open(os.path.join(t.fresh("empty"), "x"), "w"):
            pass
        t.publish(support.Tree([support.inductor_file("r")]), volume=t.volume)
        t.init(version="v1", volume=t.volume)
        with open(os.path.join(t.volume, ".warmcache/ledger"), "rb") as f:
            real_ledger = f.read()
    finally:
        t.end()
    base = layer.Layer(key=("m", "v", "p"), kind="L", id=(1, 0))
    base.add("own/a", {"own/a": b"hello"})
    cpu = base.add("own/so@" + "%016x" % 9, {"own/so": b"x" * 600}, flags=layer.CPU_BOUND, bound=9)
    assert cpu
    base.add("triton/D", {"triton/D/a": b"1", "triton/D/b": b"", "triton/D/c": b"3"}, "triton", 5)
    put("index", "real-raw", b"\0" + raw)
    put("index", "real-packed", b"\1" + raw)
    put("index", "real-trailer", b"\2" + data[-trailer_bytes:])
    put("index", "small-raw", b"\0" + base.raw_index())
    put("index", "small-packed", b"\1" + base.raw_index())
    put("index", "small-trailer", b"\2" + base.trailer()[0])
    empty = layer.Layer(key=("m", "v", "p"), id=(1, 0))
    empty.complete = "template"
    put("index", "empty", b"\1" + empty.raw_index())
    newer = layer.Layer(key=("m", "v", "p"), id=(1, 0))
    newer.major = 2
    put("index", "newer", b"\2" + newer.trailer()[0])
    lid = layer.Layer(key=("m", "v", "p"), kind="B", id=(9, 0))
    lid.covered = [(1, 0), (2, 1)]
    put("index", "base", b"\1" + lid.raw_index())

    packed, size = frames[0]
    small = layer.compress(b"abc" * 300)
    put("unpack", "real", struct.pack("<IH", size - 1, 0xffff) + packed[:60000])
    put("unpack", "two", struct.pack("<IH", 899 | 899 << 8, len(small)) + small + small)
    put("unpack", "bomb", struct.pack("<IH", 10, 0xffff) + layer.compress(b"\0" * (8 << 20)))
    put("unpack", "short", struct.pack("<IH", 2000, 0xffff) + small)

    put("entry", "plain", entry())
    put("entry", "deps", entry(deps=5))
    put("entry", "bare", entry(0, 0, 0))

    for i, line in enumerate((
            "30s", "500ms", "5m", "16M", "2G", "true", "0", "text", "json", "18446744073709551615",
            "9223372036854775807", "99999999999h", "a,b", "triton=cache/t", "m", "_", "..", ".m",
            "m\u00e9", "%5F", "5-00000000000000aa", "9007199254740992-0000000000000000",
            "m/v1/x86_64/L-1700000000000-00000000000000aa-120-" + "ab" * 32 + ".tar.zst",
            "_/_/_/B-1-0000000000000000-1-" + "00" * 32 + ".tar.zst",
            "triton/" + "A" * 52 + "/k.json", "inductor/ab/cab.py", "inductor/ab/x.so",
            "inductor/fxgraph/ab/fabc/abc", "vllm/torch_compile_cache/h/rank_0_0/b/vllm_compile_cache.py",
            "flashinfer/0.2/90/generated/k/a.cu", "flashinfer/0.2/90/cached_ops/k/k.so",
            "jax/jit-x-cache", "jax/jit-x-atime", "deepgemm/cache/kernel.x/kernel.cu",
            "tilelang/kernels/h/manifest.json", "nvrtc/v1/ab/ab12.d/ab", "own/file.tmp.12",
            "a/" * 100 + "b", "x" * 255, "tmp/a", "a//b", "/abs")):
        put("options", "%02d" % i, line.encode())

    put("ledger", "two", ledger(2))
    put("ledger", "empty", ledger(0))
    put("ledger", "real", real_ledger)

    put("whole", "so", b"\0" + support.elf(b"code"))
    put("whole", "so-cut", b"\0" + support.elf(b"code" * 100)[:200])
    put("whole", "json", b"\1" + json.dumps({"a": [1, {"b": "c"}]}).encode())
    put("whole", "python", b"\2{'a': ('b', [1, \"x\\\"y\"])}")
    put("whole", "grp", b"\3" + json.dumps({"child_paths": {"k.json": "/c/k.json"}}).encode())
    put("whole", "manifest", b"\4" + json.dumps({"files": {"kernel.cu": {"size": 0}}}).encode())
    put("whole", "ninja", b"\5# ninja log v5\n1\t2\t3\tg.so\tabc\n")
    put("whole", "cubin", b"\6" + support.elf(b"cubin"))
    put("whole", "jax", b"\7" + layer.compress(b"executable" * 50))
    put("whole", "secret", b"\x08" + json.dumps({"env": {"HF_TOKEN": "x", "N": ""}}).encode())

    listed = ("<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
              "<IsTruncated>true</IsTruncated><EncodingType>url</EncodingType><Contents><Key>m/v%2B</Key>"
              "<Size>10</Size></Contents><NextContinuationToken>x&amp;y</NextContinuationToken>"
              "</ListBucketResult>")
    for name, document in (
            ("list", listed), ("cut", listed[:100]), ("cdata", "<a>x<![CDATA[<b>]]>&#x20AC;</a>"),
            ("error", "<Error><Code>AccessDenied</Code><Message>No</Message><Region>eu-1</Region></Error>"),
            ("deep", "<a>" * 17 + "</a>" * 17), ("long", "<a>" + "x" * 4097 + "</a>"),
            ("names", "<x:a xmlns:x='u'><x:b/></x:a>"),
            ("laughs", "<!DOCTYPE r [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]><r>&b;</r>")):
        put("xml", name, document.encode())

    head = "warmcache-head 1 1700000000000\n10 1690000000000 m/v/p/a\n0 -1 m/v/p/b c\n7 5 n/v\nend 3\n"
    for name, document in (
            ("three", head), ("cut", head[:-8]), ("empty", "warmcache-head 1 0\nend 0\n"),
            ("newer", "warmcache-head 2 0\nend 0\n"), ("count", head.replace("end 3", "end 4")),
            ("paths", "warmcache-head 1 0\n1 1 ../x\n1 1 /x\n1 1 m/x\nend 3\n")):
        put("head", name, document.encode())

    for i, line in enumerate((
            "bucket/team?size=5M&flag=true&a=%2fx%26", "user:password@host/x", "b?size=1&size=2",
            "[::1]:9000//a//b//?a=", "b?size=18446744073709551615G", "b?a=%zz", "%41%00", "b#x",
            "Llama-3.1_70B/v1/x86_64/L-1700000000000-ab-120-cd.tar.zst", "-a-/v/p/x", "m/v/", "a.b/c_d/e--f",
            "../../v2/other?n=1", "//evil.test/x", "http://r.test:5000@evil.test/", "?last=a",
            "Sun, 06 Nov 1994 08:49:37 GMT", "x" * 300 + "/v/p/x")):
        put("url", "%02d" % i, line.encode())


main()
