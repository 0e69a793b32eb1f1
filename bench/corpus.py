#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A compile cache in the shape of real ones: 6,196 files, 429 MiB, median 11 KB, p99 1.6 MB.

    corpus.py DIR [--scale 1.0] [--seed 1]

Triton directories (source, TTIR, TTGIR, LLVM IR, PTX, cubin, JSON, __grp__), Inductor's fxgraph
and aotautograd pickles, .py and .cpp. The contents compress as such files do, about 7 times at
zstd's level 1 to 3. The same seed gives the same bytes.
"""
import argparse
import base64
import hashlib
import json
import os
import random
import sys

FILES, BYTES = 6196, 429 << 20
POOL = 6 << 20

PTX = ["\tmov.u32 \t%r{a}, %tid.x;", "\tadd.s32 \t%r{a}, %r{b}, {c};", "\tfma.rn.f32 \t%f{a}, %f{b}, %f{c}, %f{d};",
       "\tld.global.v4.f32 \t{{%f{a}, %f{b}, %f{c}, %f{d}}}, [%rd{b}+{c}];", "\tst.shared.b32 \t[%r{a}+{c}], %r{d};",
       "\tsetp.lt.s32 \t%p{a}, %r{b}, {c};", "\t@%p{a} bra \t$L__BB0_{b};", "$L__BB0_{a}:", "\tbar.sync \t0;",
       "\tmma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {{ %f{a}, %f{b} }}, {{ %r{c}, %r{d} }};"]
LLIR = ["  %{a} = load float, ptr addrspace(1) %{b}, align 4, !tbaa !{d}", "  %{a} = fmul contract float %{b}, %{c}",
        "  %{a} = getelementptr inbounds i8, ptr addrspace(1) %{b}, i64 {c}", "  br i1 %{a}, label %{b}, label %{c}",
        "  %{a} = tail call float @llvm.fma.f32(float %{b}, float %{c}, float %{d})",
        "  store <4 x float> %{a}, ptr addrspace(3) %{b}, align 16", "{a}:                    ; preds = %{b}, %{c}",
        "  %{a} = insertvalue {{ float, float, float, float }} %{b}, float %{c}, {d}"]
TTIR = ["    %{a} = arith.addf %{b}, %{c} : tensor<128x64xf32, #blocked> loc(#loc{d})",
        "    %{a} = tt.load %{b}, %{c} : tensor<128x64x!tt.ptr<f16>, #blocked1> loc(#loc{d})",
        "    %{a} = tt.dot %{b}, %{c}, %{d} : tensor<128x32xf16> * tensor<32x64xf16> -> tensor<128x64xf32>",
        "    %{a} = tt.splat %{b} : i32 -> tensor<128xi32> loc(#loc{d})", "#loc{a} = loc(\"/model/kernels.py\":{b}:{c})"]
PY = ["    tmp{a} = tl.load(in_ptr{b} + (x{c} + {d}*y0), xmask & ymask, eviction_policy='evict_last')",
      "    tmp{a} = tmp{b} * tmp{c}", "    buf{a} = empty_strided_cuda(({b}, {c}), ({c}, 1), torch.float16)",
      "    tl.store(out_ptr{a} + (x{b} + {d}*y{c}), tmp{d}, xmask)", "    # Topologically Sorted Source Nodes: [add_{a}, mul_{b}]",
      "    assert_size_stride(arg{a}_1, ({b}, {c}), ({c}, 1))", "    del arg{a}_1"]


def text_pool(rng, lines):
    """Compilers number what they make, refer to what is near, and unroll."""
    out, size, at = [], 0, 1000
    constants = [rng.randrange(1 << 12) for _ in range(48)]
    body = [rng.choice(lines) for _ in range(24)]
    while size < POOL:
        if rng.random() < 0.02:
            body[rng.randrange(24)] = rng.choice(lines)
        if rng.random() < 0.001:
            at = rng.randrange(200, 9000)
        line = body[at % 24].format(a=at, b=at - rng.randrange(1, 5), c=rng.choice(constants), d=at - 7)
        at += 1
        out.append(line)
        size += len(line) + 1
    return ("\n".join(out) + "\n").encode()


def code_pool(rng):
    """16-byte instructions as in a cubin: few opcodes, registers near each other."""
    opcodes = [rng.randbytes(4) for _ in range(60)]
    controls = [rng.randbytes(4) + bytes(2) for _ in range(12)]
    body = [(rng.choice(opcodes), rng.choice(controls)) for _ in range(64)]
    out = []
    for i in range(POOL // 16):
        if rng.random() < 0.01:
            body[rng.randrange(64)] = (rng.choice(opcodes), rng.choice(controls))
        opcode, control = body[i % 64]
        out.append(opcode + bytes((i % 64, (i + rng.randrange(4)) % 64, 0, i % 6 * 8, 0, 0)) + control)
    return b"".join(out)


def pickle_pool(rng):
    words = [f"{a}.{b}".encode() for a in ("aten", "prims", "inductor", "torch.nn", "ops") for b in
             ("add", "mul", "view", "permute", "clone", "mm", "relu", "convolution", "Tensor", "default", "stride")]
    out = bytearray()
    while len(out) < POOL:
        word = rng.choice(words)
        out += b"\x8c" + bytes((len(word),)) + word + b"\x94K" + bytes((rng.randrange(16),)) + b"K\x01\x86"
        if rng.random() < 0.1:
            out += b"h" + bytes((rng.randrange(256),)) + rng.randbytes(2)
    return bytes(out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    pools = {"ptx": text_pool(rng, PTX), "llir": text_pool(rng, LLIR), "ttir": text_pool(rng, TTIR),
             "py": text_pool(rng, PY), "cubin": code_pool(rng), "pkl": pickle_pool(rng)}
    pools["ttgir"], pools["source"], pools["cpp"] = pools["ttir"], pools["ttir"], pools["py"]
    # Relative sizes; a few kernels are much larger than the rest.
    weight = {"source": 0.4, "ttir": 0.5, "ttgir": 0.8, "llir": 2.6, "ptx": 1.8, "cubin": 1.6}
    files = int(FILES * args.scale)
    plan = []
    triton = int(files * 0.78) // 8
    for _ in range(triton):
        key = base64.b32encode(hashlib.sha256(rng.randbytes(16)).digest()).decode().rstrip("=")
        name = "triton_poi_fused_" + "_".join(rng.sample(["add", "mul", "relu", "mm", "view", "cat"], 3)) + f"_{rng.randrange(99)}"
        size = rng.lognormvariate(0, 1.75)
        below = f"triton/{key}"
        for ext, w in weight.items():
            plan.append((f"{below}/{name}.{ext}", ext, size * w * 1.0))
        plan.append((f"{below}/{name}.json", "json", name))
        plan.append((f"{below}/__grp__{name}.json", "grp", [f"{name}.{e}" for e in weight] + [f"{name}.json"]))
    while len(plan) < files:
        digest = base64.b32encode(rng.randbytes(32)).decode().rstrip("=").lower()
        kind = rng.choice(["fx", "aot", "py", "cpp"])
        size = rng.lognormvariate(0.4, 1.75)
        if kind == "fx":
            plan.append((f"inductor/fxgraph/{digest[:2]}/f{digest}/{digest}", "pkl", size * 1.5))
        elif kind == "aot":
            plan.append((f"inductor/aotautograd/a{digest}/{digest}", "pkl", size * 1.8))
        else:
            plan.append((f"inductor/{digest[1:3]}/c{digest}.{kind}", kind, size))
    total = sum(p[2] for p in plan if isinstance(p[2], float))
    factor = BYTES * args.scale / total
    for path, kind, size in plan:
        full = os.path.join(args.dir, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if kind == "grp":
            data = json.dumps({"child_paths": {n: os.path.join(os.path.dirname(full), n) for n in size}}).encode()
        elif kind == "json":
            data = json.dumps({"name": size, "hash": rng.randbytes(32).hex(), "target": {"backend": "cuda", "arch": 90,
                               "warp_size": 32}, "num_warps": 4, "num_stages": 3, "shared": rng.randrange(99999)}).encode()
        else:
            pool, want, parts = pools[kind], max(200, int(size * factor)), []
            while want > 0:
                n = min(want, rng.randrange(20000, 120000))
                at = rng.randrange(len(pool) - n)
                parts.append(pool[at:at + n])
                want -= n
            data = b"".join(parts)
            if kind == "cubin":
                # A whole ELF file: header, code, one section header.
                data = data[:len(data) // 16 * 16]
                head = (b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (190).to_bytes(2, "little")
                        + (1).to_bytes(4, "little") + bytes(16) + (64 + len(data)).to_bytes(8, "little") + bytes(4)
                        + (64).to_bytes(2, "little") + bytes(4) + (64).to_bytes(2, "little") + (1).to_bytes(2, "little") + bytes(2))
                data = head + data + bytes(64)
        with open(full, "wb") as f:
            f.write(data)
    print(f"{len(plan)} files in {args.dir}", file=sys.stderr)


if __name__ == "__main__":
    main()
