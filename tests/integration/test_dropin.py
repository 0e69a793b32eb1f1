# SPDX-License-Identifier: Apache-2.0
"""The drop-in libnvrtc: a program can't tell it from NVRTC, but by the time that it takes.

nvrtc_probe.c does what a table says by way of a libnvrtc and prints whatever comes back; the lines
of the drop-in must be those of the real library, whether the cache is cold, warm or broken."""

import atexit
import functools
import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import zipfile

from support import ROOT, Failures, Skip, need

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARIES = {13: "WARM_NVRTC_LIBRARY", 12: "TEST_NVRTC12_LIBRARY"}
REAL = {major: os.environ.get(name) for major, name in LIBRARIES.items()}
SOME = {"WARM_NVRTC_LIBRARY", "WARM_NVRTC_HELPER", "WARM_CACHE_DIR", "VIRTUAL_ENV", "CONDA_PREFIX",
        "LD_LIBRARY_PATH", "PYTHONPATH"}

# ---- what is asked of both ----

KERNELS = """template<int N> __global__ void tk(float *a) { a[threadIdx.x] += N; }
__device__ int gv;
__constant__ float cv;
extern "C" __global__ void saxpy(float a, float *x, float *y, int n)
{ int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] = a * x[i] + y[i]; }
__global__ void plain(int *p) { *p = gv + (int)cv; }
"""
SOURCES = {
    "good": KERNELS,
    "warn": KERNELS + "__global__ void w() { int unused; }\n",
    "syntax": "__global__ void f( {",
    "empty": "",
    "link": "extern __device__ int ext(int); __global__ void f(int *p) { *p = ext(1); }\n",
    "ptxas": '__global__ void f() { asm volatile("bogus.insn;"); }\n',
    "macro": "#ifndef OK\n#error need OK\n#endif\n" + KERNELS,
    "shared": "__global__ void f(float *p) { __shared__ float s[40000]; s[threadIdx.x] = 1; "
              "__syncthreads(); *p = s[threadIdx.x ^ 1]; }\n",
    "inc": '#include "h.h"\n__global__ void f(int *p) { *p = VAL; }\n',
    "inc2": '#include "sub/two.h"\n__global__ void f(int *p) { *p = VAL; }\n',
    "angle": "#include <h.h>\n__global__ void f(int *p) { *p = VAL; }\n",
    "nested": "#include <h.h>\n",
    "absent": '#include "nope.h"\n__global__ void f() {}\n',
    "perhaps": "#if __has_include(\"late.h\")\n#include \"late.h\"\n#else\n#define VAL 1\n#endif\n"
               "__global__ void f(int *p) { *p = VAL; }\n",
    "tile": "__tile_global__ void t(float *p) {}\n" + KERNELS,
    "names": "template<int N> __global__ void tk(float *a) { a[threadIdx.x] += N; }\n"
             "#ifdef BAD\n#error bad\n#endif\n"
             '#ifdef PT\n__global__ void q() { asm volatile("bogus.insn;"); }\n#endif\n',
    "file": "__global__ void f(char *p) { const char *s = __FILE__; *p = s[threadIdx.x]; }\n",
    "where": "#include <where.h>\n"
             "__global__ void f(char *p) { const char *s = WHERE; *p = s[threadIdx.x]; }\n",
    "here": "#define WHERE __FILE__\n",
    "recursion": "__device__ int f(int n) { return n < 2 ? 1 : f(n - 1) * n; }\n"
                 "__global__ void k(int *p) { *p = f(*p); }\n",
    "pch": '#include "p.h"\n#pragma nv_hdrstop\n' + KERNELS,
    "val1": "#define VAL 1\n",
    "val2": "#define VAL 2\n",
    "val3": "#define VAL 3\n",
    "noisy": "#define VAL 4\n__device__ inline void noisy() { int unused_of_header; }\n",
    "date": "__device__ const char *date() { return __DATE__; }\n",
    "broken": "#define VAL\n#error broken header\n",
}

# A title, then commands of nvrtc_probe.c; the handle is `a` where none is given (create:b), $N the
# program's own name, $W the current directory at the start. Marks in front: * compiled once, it
# hits in the next process; - it must never be stored; + also done where the cache is broken.
SUCCESS = """
before: create good | dump | low &gv | low nope | add &gv | low &gv | low nope | dump
*no options: create good | compile | dump | low &gv
*+ptx: create good | compile -arch=compute_90 | dump
*+cubin: create good | add &gv | compile -arch=sm_90 | dump | low &gv
*+dlto: create good | compile -dlto | dump
*dlto compute: create good | compile -arch=compute_90 -dlto | dump
*dlto sm: create good | compile -arch=sm_90 -dlto | dump
*optix: create good | compile -optix-ir | dump
*optix sm: create good | compile -arch=sm_90 -optix-ir | dump
*dc: create good | compile -arch=sm_90 -dc | dump
*sm 90a: create good | compile -arch=sm_90a | dump
*syntax only: create good | add &gv | compile --fdevice-syntax-only | low &gv | dump
+tile: create tile | compile --enable-tile | dump
tile of plain: create good | compile --enable-tile -arch=sm_90 | dump
tile dlto: create tile | compile -dlto --enable-tile | dump
tile only: create tile | compile --tile-only | dump
simt only: create tile | compile --simt-only | dump
default tile: create good | compile -default-tile | dump
*debug: create good | compile -arch=sm_90 -G | dump
*lineinfo: create good | compile -arch=sm_90 -lineinfo | dump
*debug and lineinfo: create good | compile -arch=sm_90 -G -lineinfo | dump
*split compile: create good | compile -arch=sm_90 -split-compile=0 | dump
*+warning: create warn | compile -arch=compute_90 | dump
*warning without number: create warn | compile -arch=compute_90 -err-no | dump
*no warnings: create warn | compile -arch=compute_90 -w | dump
*dlto and warning: create warn | compile -dlto | dump
*two archs: create good | compile -arch=compute_90 -arch=compute_80 | dump
*two standards: create good | compile -std=c++14 -std=c++17 | dump
*recursion: create recursion | compile -arch=sm_90 | dump
*ptxas error unseen: create ptxas | compile -arch=compute_90 | dump
*own no-cache: create good | compile --no-cache -arch=sm_90 | dump
*no-cache last: create good | compile -arch=sm_90 -no-cache | dump
*unused directory: create good | compile -arch=compute_90 -I/nope | dump
*option in two words: create warn | compile -arch compute_90 -D X=1 | dump
*ptxas option unseen: create good | compile -arch=compute_90 -Xptxas=--bogus | dump | add plain
*ptxas option waiting: create good | compile -arch=sm_90 -Xptxas | dump
*empty source: create empty | compile | dump
*fast math: create good | compile -arch=sm_90 --use_fast_math -maxrregcount=32 | dump
*own name: create file | compile -arch=sm_90 | dump
"""

FAILURES = """
+syntax: create syntax | add &gv | compile -arch=sm_90 | dump | low &gv | add x | dump
syntax, read by halves: create syntax | compile | raw nvrtcGetPTXSize p:a out | dump
+option: create good | add &gv | compile -arch=sm_90 --bogus | dump | low &gv | add plain | dump
option, log last: create good | compile --bogus | low &gv | add plain | dump
arch: create good | add &gv | compile -arch=sm_1 | dump | low &gv | add plain
+expression: create good | add &gv | add nope | compile -arch=sm_90 | dump | low &gv | low nope |
    add plain
+ptxas: create ptxas | compile -arch=sm_90 | dump
ptxas, PTX first: create ptxas | compile -arch=sm_90 | raw nvrtcGetPTXSize p:a out | dump
link: create link | compile -arch=sm_90 | dump
absent header: create absent | compile -arch=sm_90 | dump
shared memory: create shared | compile -arch=sm_90 | dump
ptxas option: create good | add &gv | compile -arch=sm_90 -Xptxas=--bogus | dump | add plain |
    low &gv
standard: create good | compile -std=c++99 | dump | add plain
registers: create good | compile --maxrregcount=abc | dump | add plain
registers waiting: create good | compile -maxrregcount | dump | add plain
arch waiting: create good | compile -arch | dump | add plain
define waiting: create good | compile -D | dump | add plain
undefine waiting: create good | compile -arch=sm_90 -U | dump
include waiting: create good | compile -include | dump
directory waiting: create good | compile -I | dump
absent preinclude: create good | compile -include=nope.h | dump | add plain
split compile: create good | compile -split-compile=abc | dump | add plain
absent pch: create good | compile --use-pch=/nope.pch | dump | add plain
native: create good | compile -arch=native | dump | add plain
errors of warnings: create warn | compile -arch=compute_90 -Werror=all-warnings | dump | add plain
positional: create good | compile foo.cu | dump | add plain
help: create good | compile --help | dump
verbose: create good | compile -arch=compute_90 -v | dump
dlto with optix: create good | compile -dlto -optix-ir | dump | add plain
old arch: create good | compile -arch=compute_52 | dump
unknown warning: create good | compile -arch=compute_90 -Wbogus | dump
argument refused: create good | compile -lineinfo=true | dump
names of a ptxas failure: create ptxas | add f | compile -arch=sm_90 | low f | add g | dump
empty expression: create good | add '' | compile -arch=compute_90 | dump | low ''
destroyed after a failure: create syntax | compile | destroy | create good | compile | dump
"""

AGAIN = """
+ok ok: create good | add &gv | add tk<3> | compile -arch=compute_90 | low &gv | low tk<3> | dump |
    compile -arch=sm_80 | low &gv | low tk<3> | dump | reread
ok ok same: create good | add &gv | compile -arch=compute_90 | dump | compile -arch=compute_90 |
    dump | low &gv | reread
cubin, ptx: create good | compile -arch=sm_90 | compile -arch=compute_90 | dump
cubin, dlto: create good | compile -arch=sm_90 | compile -dlto | dump
dlto, cubin: create good | compile -dlto | dump | compile -arch=sm_90 | dump
dlto, optix: create good | compile -dlto | compile -optix-ir | dump
optix, ptx: create good | compile -optix-ir | compile -arch=compute_90 | dump
dlto, dlto: create good | compile -dlto | compile -dlto -arch=sm_90 | dump
optix, optix: create good | compile -optix-ir | compile -optix-ir -arch=sm_90 | dump
tile, ptx: create tile | compile --enable-tile | dump | compile -arch=compute_90 --simt-only | dump
+fails, ok: create macro | add &gv | compile -arch=compute_90 | low &gv | add tk<3> |
    compile -arch=compute_90 -DOK | dump | low &gv | low tk<3> | add tk<4>
option, name, ok: create good | add &gv | compile --bogus | add tk<3> | compile -arch=compute_90 |
    dump | low &gv | low tk<3> | add tk<4>
option, ok: create good | compile --bogus | compile -arch=sm_90 | dump
arch, dump, name, ok: create good | compile -arch=sm_1 | dump | add &gv | dump |
    compile -arch=sm_90 | dump | low &gv
ok, fails: create macro | add &gv | compile -arch=sm_90 -DOK | low &gv | compile -arch=sm_90 |
    dump | low &gv | add tk<3> | reread
ok, option: create good | add &gv | compile -arch=sm_90 | low &gv | compile -arch=sm_90 --bogus |
    dump | low &gv | add tk<3> | reread
ok, arch: create good | add &gv | compile -arch=sm_90 | compile -arch=sm_1 | dump | low &gv |
    add tk<3>
dlto, option: create good | compile -dlto | dump | compile --bogus | dump
dlto, fails: create macro | compile -dlto -DOK | compile | dump
optix, option: create good | compile -optix-ir | compile --bogus | dump
optix, fails: create macro | compile -optix-ir -DOK | compile | dump
ok, ptxas, ok: create ptxas | compile -arch=compute_90 | dump | compile -arch=sm_90 | dump |
    compile -arch=compute_80 | dump
warns, silent: create warn | compile -arch=compute_90 | dump | compile -arch=compute_90 -w | dump
ok, fails, ok: create macro | add &gv | compile -arch=sm_90 -DOK | low &gv | compile | low &gv |
    compile -arch=sm_90 -DOK | dump | low &gv | reread
bad expression twice: create good | add nope | add &gv | compile -arch=compute_90 | low &gv |
    compile -arch=compute_90 | dump | low &gv
three times: create good | add &gv | add tk<3> | compile -arch=compute_90 | low &gv | low tk<3> |
    compile -arch=compute_90 | low &gv | compile -arch=sm_80 | low tk<3> | reread | dump
names by option: create names | add tk<K> | compile -arch=compute_90 -DK=3 | low tk<K> |
    compile -arch=compute_90 -DK=4 | low tk<K> | reread | dump
ok, ptxas of names: create names | add tk<K> | compile -arch=sm_90 -DK=3 | low tk<K> |
    compile -arch=sm_90 -DK=4 -DPT | dump | low tk<K>
ok, front end of names: create names | add tk<K> | compile -arch=sm_90 -DK=3 | low tk<K> |
    compile -arch=sm_90 -DK=4 -DBAD | dump | low tk<K>
front end, ok of names: create names | add tk<K> | compile -arch=sm_90 -DK=3 -DBAD |
    compile -arch=sm_90 -DK=4 | dump | low tk<K>
ok, bad name: create names | add tk<K> | compile -arch=sm_90 -DK=3 | compile -arch=sm_90 |
    low tk<K> | dump
ok, count below zero: create good | compile -arch=compute_90 | compilen a -1 | dump
fails, count below zero: create syntax | compile | compilen a -1 | dump
ok, NULL options: create good | compile -arch=sm_90 | compile @null | dump
"""

NAMES = """
added after: create good | compile -arch=compute_90 | add &gv | low &gv
*+names: create good | add &gv | add tk<3> | add saxpy | add plain | add &cv | compile -arch=sm_90 |
    low &gv | low tk<3> | low saxpy | low plain | low &cv | dump | reread
*twice the same: create good | add &gv | add &gv | compile -arch=compute_90 | dump | low &gv
*order: create good | add tk<3> | add tk<4> | compile -arch=compute_90 | dump | low tk<3> |
    low tk<4>
*order reversed: create good | add tk<4> | add tk<3> | compile -arch=compute_90 | dump | low tk<3>
*spaces: create good | add tk<3> | add 'tk< 3 >' | compile -arch=compute_90 | dump | low tk<3> |
    low 'tk< 3 >' | low 'tk<3 >'
*unknown: create good | add &gv | compile -arch=compute_90 | low nope | low &gv | low saxpy
*unknown, none added: create good | compile -arch=compute_90 | low nope | low &gv
*names of dlto: create good | add &gv | compile -dlto | dump | low &gv
*names of optix: create good | add &gv | compile -optix-ir | dump | low &gv
NULL expressions: create good | raw nvrtcAddNameExpression p:a @null | compile |
    raw nvrtcAddNameExpression p:a @null | raw nvrtcGetLoweredName p:a s:x @null |
    raw nvrtcGetLoweredName p:a @null out
many: create good | add tk<1> | add tk<2> | add tk<3> | add tk<4> | add tk<5> | add tk<6> |
    add tk<7> | add tk<8> | add tk<9> | add tk<10> | add tk<11> | add tk<12> | add tk<13> |
    add tk<14> | add tk<15> | add tk<16> | add tk<17> | add tk<18> | add tk<19> | add tk<20> |
    add tk<21> | add tk<22> | add tk<23> | add tk<24> | add tk<25> | compile -arch=sm_90 |
    low tk<25> | low tk<1> | dump
"""

GETTERS = ["nvrtcGet%s%s" % (what, end) for end in ("Size", "")
           for what in ("PTX", "CUBIN", "LTOIR", "NVVM", "OptiXIR", "TileIR", "ProgramLog")]
OF_PROGRAM = GETTERS + ["nvrtcCompileProgram", "nvrtcAddNameExpression", "nvrtcGetLoweredName",
                        "nvrtcGetPCHCreateStatus", "nvrtcGetPCHHeapSizeRequired",
                        "nvrtcSetFlowCallback", "nvrtcDestroyProgram"]
WITH_OUTPUT = GETTERS + ["nvrtcGetPCHHeapSizeRequired", "nvrtcAddNameExpression",
                         "nvrtcSetFlowCallback"]
ODD = """
+the rest: version | errors -2 31 | errors 999 999 | bundled info | handle
NULL everywhere: raw nvrtcVersion @null @null | raw nvrtcVersion out @null |
    raw nvrtcVersion @null out | raw nvrtcGetNumSupportedArchs @null |
    raw nvrtcGetSupportedArchs @null | raw nvrtcGetPCHHeapSize @null |
    raw nvrtcGetBundledHeadersInfo @null @null | raw nvrtcInstallBundledHeaders @null i:0 out |
    raw nvrtcRemoveBundledHeaders @null out | raw nvrtcCreateProgram @null | raw __nvrtcCPEx @null
no source: createn a @null $N 0 @none @none | createn a @null $N -1 @none @none
no program: raw nvrtcCreateProgram @null s:x s:y i:0 | raw nvrtcCreateProgram @null @null s:y i:-1
no name: createn a syntax @null 0 @none @none | compile | dump | destroy |
    createn a warn @null 0 @none @none | compile | dump
+empty name: createn a syntax '' 0 @none @none | compile | dump | destroy |
    createn a warn '' 0 @none @none | compile | dump
headers below zero: createn a good $N -1 val1 h.h | createn b good $N -1 @none @none
no headers, arrays given: createn a good $N 0 val1 h.h | compile | dump
headers NULL: createn a good $N 1 @none h.h | createn b good $N 1 val1 @none |
    createn c good $N 1 @null h.h | createn d good $N 1 val1 @null
header twice: createn a inc $N 2 val1 h.h | create:b inc $N h.h val1 x.h val2 h.h val3
header without name: createn a good $N 1 val1 '' | compile | dump
empty header: create inc $N h.h empty | compile | dump
clobbered: clobber a inc | compile | dump
count below zero: create good | compilen a -1 | dump | add &gv | compile | dump | low &gv
count zero: create good | compilen a 0 | dump
count zero, no array: create good | compilen a 0 @none | dump
no array: create good | compilen a 1 @none | dump | add &gv
+NULL option: create good | compile @null | dump | add &gv | compile | dump
NULL among options: create good | compile -arch=compute_90 @null -w | dump
NULL behind options: create good | compile -arch=compute_90 @null | dump
empty option: create good | compile '' | dump
options in one: create warn | compile '-arch=compute_90 -w' | dump
destroyed: raw nvrtcDestroyProgram @null | raw nvrtcDestroyProgram &z | create good | destroy |
    destroy
destroyed after compiles: create good | compile | destroy | destroy | create good | compile |
    compile | destroy | destroy
+cpex: cpex a good $N 0 | add &gv | compile -arch=sm_90 | low &gv | dump |
    compile -arch=compute_90 | dump | destroy
cpex with headers: cpex a inc $N 0 h.h val3 | compile | dump | add x | destroy
cpex with callback: cpex a inc $N 2 h.h val3 | compile | dump
cpex unknown key: cpex a good $N 1
cpex without source: cpex a @null $N 0
two at once: create good | create:b warn | compile -arch=sm_90 | compile:b -arch=compute_90 |
    dump:b | dump | destroy | dump:b | destroy:b
NULL program: %s
no output: create good | %s
no output after ok: create good | add &gv | compile -arch=sm_90 | %s
no output after failure: create good | compile --bogus | %s
""" % (" | ".join("raw %s @null out" % f for f in OF_PROGRAM) + " | " +
       " | ".join("raw %s @null @null" % f for f in OF_PROGRAM),
       *[" | ".join("raw %s p:a @null" % f for f in WITH_OUTPUT)] * 3)

# These share the process: the heap's size stays.
STEERED = """
heap: heap | heap 1000 | heap 0 | heap 300000000 | heap 268435456
callback: create good | callback 0 | compile -arch=sm_90 | called | dump
+callback that cancels: create good | add &gv | callback 1 | compile -arch=sm_90 | called | dump |
    add tk<3> | low &gv
callback persists: create good | callback 1 | compile -arch=compute_90 | compile -arch=compute_90 |
    callback 0 | compile -arch=compute_90 | dump
callback after ok: create good | add tk<3> | compile -arch=sm_90 | callback 1 | low tk<3> | dump |
    compile -arch=sm_80 | called | dump | low tk<3> | reread
callback after failure: create syntax | compile | callback 0 | dump | compile | called | dump
no callback: create good | raw nvrtcSetFlowCallback p:a @null @null | compile | dump
pch: write p.h val1 | create pch | compile --pch | dump | ls . | compile | dump
pch by name: create pch | compile --create-pch=own.pch | dump | ls . | create:b pch |
    compile:b --use-pch=own.pch | dump:b
pch, no heap: heap 0 | create pch | compile --pch | dump | heap 268435456
pch twice: create pch | compile --pch | compile --pch | dump
pch unasked: create good | compile | raw nvrtcGetPCHCreateStatus p:a |
    raw nvrtcGetPCHHeapSizeRequired p:a out | compile | raw nvrtcGetPCHCreateStatus p:a
time: create good | add &gv | compile -arch=sm_90 --time=/nope/x.csv | dump | low &gv
time of a file: create good | compile -arch=compute_90 --time=t.csv | dump | ls .
-date: create date | compile | dump
-date in a header: create inc $N h.h date | compile -DVAL=1 | dump
-untraceable: create good | compile -Xcudafe=--bogus | dump | destroy | create good |
    compile -time | dump
trace of a file: create good | compile -arch=compute_90 --fdevice-time-trace=trace.json | dump |
    ls .
"""

FILES = """
*header: create inc $N h.h val3 | compile -arch=compute_90 | dump
*headers: create inc2 $N sub/two.h nested h.h val3 | compile | dump
headers that look beside themselves: create inc2 $N sub/two.h inc h.h val3 | compile | dump
*header of angles: create angle $N h.h val2 | compile | dump
+header hides a file: create inc $N h.h val1 | compile | dump | destroy | create inc | compile |
    dump
header by another name: create inc $N ./h.h val1 | compile | dump
noisy header: create inc $N h.h noisy | compile | dump | destroy | create inc $W/x/$N h.h noisy |
    compile | dump | destroy | create inc x/$N h.h noisy | compile | dump
broken header: create inc $N h.h broken | compile | dump | destroy | create inc $W/x/$N h.h broken |
    compile | dump
*file: create inc | compile | dump
*file of angles: create angle | compile -I. | dump
*file, absolute: create angle | compile -I$W | dump
file by another -I: create angle | compile -Ix | dump | destroy | create angle | compile -Iy | dump
+file beside the name: create inc $W/x/$N | compile | dump | destroy | create inc $W/y/$N |
    compile | dump | destroy | create inc x/$N | compile | dump | destroy | create inc ./y/$N |
    compile | dump | destroy | create inc $W/n/$N | compile | dump
file below: create inc2 | compile | dump | destroy | create inc2 x/$N | compile | dump
+warning under other names: create warn | compile | dump | destroy | create warn $W/x/$N | compile |
    dump | destroy | create warn x/$N | compile | dump | destroy | create warn ./$N | compile |
    dump | destroy | create warn ../w/$N | compile | dump | destroy | create warn $W/y/$N |
    compile | dump | destroy | create warn | compile | dump
warning under other names, full first: create warn $W/x/$N | compile | dump | destroy |
    create warn $W/y/$N | compile | dump | destroy | create warn | compile | dump
warning in a file: create inc noisy/$N | compile | dump | destroy | create inc $W/noisy/$N |
    compile | dump | destroy | create inc ./noisy/$N | compile | dump | destroy | chdir noisy |
    create inc | compile | dump | destroy | create inc ./$N | compile | dump | chdir ..
warning in a file of angles: create angle | compile -Inoisy | dump | destroy | create angle |
    compile -I./noisy | dump | destroy | create angle | compile -I$W/noisy | dump
error under other names: create syntax $W/x/$N | compile | dump | destroy | create syntax x/$N |
    compile | dump | destroy | create syntax | compile | dump
error in a file: create inc bad/$N | compile | dump | destroy | create inc $W/bad/$N | compile |
    dump
own name elsewhere: create file | compile -arch=sm_90 | dump | destroy | create file $W/x/$N |
    compile -arch=sm_90 | dump | destroy | create file x/$N | compile -arch=sm_90 | dump
own name by a header: create where $N where.h here | compile | dump | destroy |
    create where $W/x/$N where.h here | compile | dump | destroy | create where x/$N where.h here |
    compile | dump
own name by a file: chdir x | create where | compile -I$W/inc | dump | destroy |
    create where $W/y/$N | compile -I$W/inc | dump | destroy | create where ../y/$N |
    compile -I$W/inc | dump | destroy | create where | compile -I$W/inc | dump | chdir ..
lineinfo elsewhere: create good | compile -lineinfo | dump | destroy | create good $W/x/$N |
    compile -lineinfo | dump | destroy | create good x/$N | compile -lineinfo | dump | destroy |
    chdir x | create good | compile -lineinfo | dump | chdir ..
debug elsewhere: create good | compile -arch=sm_90 -G | dump | destroy | create good $W/x/$N |
    compile -arch=sm_90 -G | dump | destroy | chdir x | create good | compile -arch=sm_90 -G |
    dump | destroy | create good $W/x/$N | compile -arch=sm_90 -G | dump | chdir ..
dlto elsewhere: create good | compile -dlto | dump | destroy | create good $W/x/$N | compile -dlto |
    dump | destroy | chdir x | create good | compile -dlto | dump | destroy | create good $W/x/$N |
    compile -dlto | dump | chdir ..
optix elsewhere: create good | compile -optix-ir | dump | destroy | create good $W/x/$N |
    compile -optix-ir | dump | destroy | chdir x | create good | compile -optix-ir | dump |
    chdir ..
preinclude: create file | compile -include=h.h | dump | destroy | create file x/$N |
    compile -include=h.h | dump | destroy | chdir x | create file | compile -include=h.h | dump |
    chdir ..
name of a directory: create good x/ | compile | dump | destroy | create warn / | compile | dump
name with spaces: create warn 'a b.cu' | compile | dump
name without end: create warn $W/none/of/them/$N | compile | dump
"""

# What stands on the disk, or around, changes between two calls on one program.
CHANGES = """
header of a failure appears: create absent | compile | write nope.h val1 | dump | add x | compile |
    dump
header of a failure goes bad: create inc | compile --bogus | write h.h broken | dump | compile |
    dump | write h.h val3
header changes before the second: create inc | compile -arch=sm_90 | write h.h val2 |
    compile --bogus | dump | compile -dlto | dump | write h.h val3
header breaks before the second: create inc | add f | compile -arch=sm_90 | low f |
    write h.h broken | compile | dump | low f | write h.h val3
header appears: create perhaps | compile | dump | write late.h val2 | destroy | create perhaps |
    compile | dump
directory changes: create inc x/$N | compile -arch=sm_90 | chdir y | compile --bogus | dump |
    chdir ..
directory changes before the getter: create absent | compile | chdir x | dump | chdir ..
"""

ALL = [SUCCESS, FAILURES, AGAIN, NAMES, ODD, STEERED, FILES, CHANGES]
TREE = {"h.h": "val3", "x/h.h": "val1", "y/h.h": "val2", "noisy/h.h": "noisy", "bad/h.h": "broken",
        "sub/two.h": "inc", "x/sub/two.h": "inc", "n/other.h": "val1",
        "inc/where.h": "here"}
WITH_HANDLE = {"create", "compile", "add", "low", "dump", "destroy", "callback", "term"}


class _Case:
    def __init__(self, line):
        marks, title, commands = re.fullmatch(r"([*+-]*)([^:]+): (.*)", line).groups()
        self.title, self.plain, self.brief = title, "*" in marks, "+" in marks
        self.unstored = "-" in marks
        self.name = re.sub(r"\W+", "_", title) + ".cu"
        self.commands = commands.split(" | ")

    def lines(self, where):
        yield ["case", self.title]
        for command in self.commands + ["destroy"]:
            words = [w.replace("$W", where).replace("$N", self.name) for w in shlex.split(command)]
            word, _, handle = words[0].partition(":")
            if word in WITH_HANDLE:
                words[:1] = [word, handle or "a"]
            if word == "create" and len(words) == 3:
                words.append(self.name)
            yield words


def _cases(*tables):
    """A line that begins with a space goes on with the one before."""
    return [_Case(line) for table in tables
            for line in re.sub(r"\n\s+", " ", table.strip()).splitlines()]


def _escape(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def _script(path, lines):
    sources = [["source", name, text] for name, text in SOURCES.items()]
    with open(path, "w") as f:
        for words in sources + list(lines):
            f.write("\t".join(map(_escape, words)) + "\n")
    return path


# ---- programs ----

_lock = threading.Lock()


@functools.lru_cache(None)
def _scratch():
    path = tempfile.mkdtemp(prefix="warm-dropin.")
    atexit.register(shutil.rmtree, path, True)
    return path


def _build(out, *flags, source=os.path.join(HERE, "nvrtc_probe.c")):
    need("cc")
    subprocess.check_call(["cc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra",
                           "-pthread", "-o", out, source, *flags, "-ldl"])
    return out


def _probe():
    with _lock:
        out = os.path.join(_scratch(), "nvrtc_probe")
        return out if os.path.exists(out) else _build(out)


def _real(major):
    if not REAL[major] or not os.path.exists(REAL[major]):
        raise Skip("needs %s, which scripts/nvrtc-env sets" % LIBRARIES[major])
    return REAL[major]


def _dropin(t, major):
    if t._sanitized():
        raise Skip("a sanitizer's runtime must come first")
    return os.path.join(os.path.dirname(t.bin), "lib", "nvrtc", "libnvrtc.so.%d" % major)


def _env(t, **more):
    env = {k: v for k, v in t.env(TMPDIR=t.tmp, HOME=t.tmp).items() if k not in SOME}
    env.update({k: str(v) for k, v in more.items() if v is not None})
    return env


def _run(line, env, cwd, timeout=300):
    p = subprocess.run(line, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, errors="replace", timeout=timeout)
    assert p.returncode == 0, "%s: exit %d\n%s\n%s" % (
        line[0], p.returncode, "\n".join(p.stdout.splitlines()[-3:])[-2000:], p.stderr[-2000:])
    return p.stdout


def _lines(text):
    """What never repeats is left out: the process in a file's name, and so the log's size."""
    text = re.sub(r"ProgramLog=\d+('[^']*__nvrtc_auto_pch_)\d+", r"ProgramLog=N\1PID", text)
    return [line for line in text.splitlines() if not line.startswith("source ")]


def _apart(line, other):
    """Both from shortly before the place where they part."""
    at = len(os.path.commonprefix([line, other]))
    start = max(0, line.rfind(" ", 0, max(0, at - 20)))
    return "\n    real    %s\n    drop-in %s" % (line[start:at + 120], other[start:at + 120])


def _by_case(lines):
    found, case = {}, ""
    for line in lines:
        if line.startswith("case "):
            case = line[5:].rpartition(" -> ")[0]
        found.setdefault(case, []).append(line)
    return found


def _compare(what, want, got):
    want, got, differ = _by_case(want), _by_case(got), []
    for case in list(want) + [c for c in got if c not in want]:
        lines, others = want.get(case, []), got.get(case, [])
        for line, other in zip(lines, others):
            if line != other:
                differ.append("%s: %s%s" % (case, line.partition(" -> ")[0], _apart(line, other)))
        if len(lines) != len(others):
            differ.append("%s: %d lines for %d" % (case, len(others), len(lines)))
    assert not differ, "%s: %d lines differ\n  %s" % (what, len(differ), "\n  ".join(differ[:3]))


class _Both:
    """One table, and the real library's lines for it."""

    def __init__(self, t, major, cases):
        self.t, self.major, self.cases = t, major, cases
        assert len({c.name for c in cases}) == len(cases), "two cases of one name"
        self.where = t.dir("w")
        self.log = t.path("log")
        self.script = _script(t.path("script"),
                              [words for c in cases for words in c.lines(self.where)])
        self.want = self._lines_of(_real(major), _env(t))
        assert len(self.want) > len(cases), self.want

    def _lines_of(self, library, env):
        self.t.clear(self.where)
        for path, source in TREE.items():
            os.makedirs(os.path.dirname(os.path.join(self.where, path)), exist_ok=True)
            with open(os.path.join(self.where, path), "w") as f:
                f.write(SOURCES[source])
        return _lines(_run([_probe(), library, self.script], env, self.where))

    def check(self, what, preload=True, **more):
        """Returns {program name: [events]}."""
        library = _dropin(self.t, self.major)
        env = {"WARM_NVRTC_LIBRARY": _real(self.major), "WARM_CACHE_DIR": self.t.volume,
               "WARM_COMPILER_LOG": self.log, "LD_PRELOAD": library if preload else None}
        env.update(more)
        if os.path.exists(self.log):
            os.unlink(self.log)
        got = self._lines_of(library, _env(self.t, **env))
        _compare("%d %s" % (self.major, what), self.want, got)
        events = {}
        if os.path.exists(self.log):
            with open(self.log) as f:
                for e in map(json.loads, f):
                    events.setdefault(e["name"], []).append(e["event"])
        return events

    def check_cold_and_warm(self):
        failures = Failures()
        plain = [c.name for c in self.cases if c.plain]
        cold, warm = {}, {}
        with failures:
            cold = self.check("cold")
            wrong = {n: cold.get(n) for n in plain if cold.get(n, ["none"])[0] != "miss"}
            assert not wrong, "not cached: %s" % wrong
        with failures:
            warm = self.check("warm", preload=False)
            wrong = {n: warm.get(n) for n in plain if warm.get(n, ["none"])[0] != "hit"}
            wrong.update({n: e for n, e in warm.items() if set(e) & {"miss", "unstored"}})
            assert not wrong, "not found again: %s" % wrong
        with failures:
            stored = {c.name: (cold.get(c.name), warm.get(c.name)) for c in self.cases
                      if c.unstored and {"miss", "hit"} & set(warm.get(c.name, ()))}
            assert not stored, "stored: %s" % stored
        failures.tell()


# ---- the same as the real library ----

def _cold_and_warm(t, major, *tables):
    cases = _cases(*tables)
    if t.quick and major == 12:
        cases = [c for c in cases if c.brief] or cases
    _Both(t, major, cases).check_cold_and_warm()


def what_compiles_looks_as_by_13(t):
    _cold_and_warm(t, 13, SUCCESS, NAMES)


def what_compiles_looks_as_by_12(t):
    _cold_and_warm(t, 12, SUCCESS, NAMES)


def what_fails_looks_as_by_13(t):
    _cold_and_warm(t, 13, FAILURES, ODD)


def what_fails_looks_as_by_12(t):
    _cold_and_warm(t, 12, FAILURES, ODD)


def what_is_compiled_again_looks_as_by_13(t):
    _cold_and_warm(t, 13, AGAIN, STEERED)


def what_is_compiled_again_looks_as_by_12(t):
    _cold_and_warm(t, 12, AGAIN, STEERED)


def names_and_files_look_as_by_13(t):
    _cold_and_warm(t, 13, FILES)


def names_and_files_look_as_by_12(t):
    _cold_and_warm(t, 12, FILES)


def what_changes_between_two_calls_looks_as_by_nvrtc(t):
    failures = Failures()
    for major in (13, 12):
        with failures:
            _cold_and_warm(t, major, CHANGES)
        t.clear()
    failures.tell()


def _brief():
    return [c for c in _cases(*ALL) if c.brief]


def _damage(volume):
    """Cut or flip each entry."""
    for n, path in enumerate(sorted(glob.glob(volume + "/nvrtc/**", recursive=True))):
        if os.path.isfile(path):
            with open(path, "r+b") as f:
                data = f.read()
                at = len(data) * (n % 4) // 4
                if n % 4 == 0:
                    f.truncate(len(data) // 2)
                f.seek(at)
                f.write(bytes(b ^ 0xff for b in data[at:at + 8]))


def _broken(t, major):
    failures = Failures()
    both = _Both(t, major, _brief())
    with failures:
        assert both.check("switched off", WARM_NVRTC="off") == {}
    with failures:
        assert both.check("without a cache", preload=False, WARM_CACHE_DIR="") == {}
    assert os.listdir(t.volume) == []
    with failures:
        events = both.check("a missing directory", WARM_CACHE_DIR=t.path("gone"))
        assert not any("hit" in e or "miss" in e for e in events.values()), events
        assert not os.path.exists(t.path("gone"))
    with failures:
        events = both.check("no helper", WARM_NVRTC_HELPER="/nonexistent")
        assert not any("miss" in e for e in events.values()), events
    with failures:
        both.check("cold")
    with failures:
        events = both.check("hits without a helper", WARM_NVRTC_HELPER="/nonexistent")
        assert all(events[c.name][0] == "hit" for c in both.cases if c.plain), events
    _damage(t.volume)
    with failures:
        both.check("damaged entries")
    failures.tell()


def a_broken_cache_is_not_seen_by_13(t):
    _broken(t, 13)


def a_broken_cache_is_not_seen_by_12(t):
    _broken(t, 12)


def a_full_or_read_only_cache_is_not_seen(t):
    both = _Both(t, 13, [c for c in _brief() if c.plain])
    small = t.dir("small")
    t.mount("-t", "tmpfs", "-o", "size=32k", "tmpfs", small)
    for left in (0, 4096, 8192):
        with open(os.path.join(small, "ballast"), "wb", buffering=0) as f:
            try:
                f.write(b"\0" * (32768 - left))
                f.write(b"\0")
            except OSError:
                pass
        both.check("a full disk, %d left" % left, WARM_CACHE_DIR=small)
        _empty(small)
    both.check("cold")
    events = both.check("warm")
    assert all(e == ["hit"] for e in events.values()), events
    locked = t.dir("locked")
    t.mount("-t", "tmpfs", "-o", "ro", "tmpfs", locked)
    events = both.check("a read-only directory", WARM_CACHE_DIR=locked)
    assert all(e == ["unstored"] for e in events.values()), events


def _empty(path):
    for name in os.listdir(path):
        full = os.path.join(path, name)
        shutil.rmtree(full) if os.path.isdir(full) else os.unlink(full)


# ---- names, and what loading it does ----

def _table():
    """{major: names} of compiler/dropin/names.h."""
    with open(os.path.join(ROOT, "compiler/dropin/names.h")) as f:
        rows = re.findall(r"^\tX\((\w+), (\d+), (\d+)\)", f.read(), re.M)
    return {major: {name for name, first, last in rows if int(first) <= major <= int(last)}
            for major in REAL}


def _exports(library):
    """{name: version} of what it defines, but for the version's own symbol."""
    need("readelf")
    text = subprocess.check_output(["readelf", "--dyn-syms", "-W", library], text=True)
    rows = re.findall(r" [A-Z]+ +(?:GLOBAL|WEAK) +DEFAULT +(?:\d+|ABS) +(\S+)", text)
    pairs = [row.partition("@")[::2] for row in rows]
    return {name: version.strip("@") for name, version in pairs if not name.startswith("libnvrtc.")}


def _wheel(t, major, package):
    """libnvrtc of the newest wheel; None where that is the pinned one, or no index is reached."""
    with open(os.path.join(ROOT, "scripts/setup")) as f:
        pinned = re.search(r"[( ]%s==([\d.]+)" % package, f.read()).group(1)
    pip = [os.environ.get("TEST_CUPY_PYTHON", "python3"), "-m", "pip", "--timeout=10",
           "--retries=0", "--disable-pip-version-check"]
    quiet = {"stderr": subprocess.DEVNULL, "env": _env(t)}
    p = subprocess.run(pip + ["index", "versions", package], stdout=subprocess.PIPE, text=True,
                       **quiet)
    newest = re.search(r"^Available versions:.*?\b(%d\.[\d.]+)" % major, p.stdout, re.M)
    if newest and newest.group(1) == pinned:
        return None
    where = t.dir(package)
    if newest and subprocess.call(pip + ["download", "-q", "--no-deps", "-d", where, "%s==%s" % (
            package, newest.group(1))], stdout=subprocess.DEVNULL, **quiet) == 0:
        with zipfile.ZipFile(glob.glob(where + "/*.whl")[0]) as wheel:
            member, = [n for n in wheel.namelist() if re.search(r"/libnvrtc\.so\.\d+$", n)]
            return wheel.extract(member, where)
    print("note  pip reaches no index: %s %s stands for the newest" % (package, pinned))
    return None


def its_names_are_those_of_every_release(t):
    packages = {13: "nvidia-cuda-nvrtc", 12: "nvidia-cuda-nvrtc-cu12"}
    for major, names in _table().items():
        node = "libnvrtc.so.%d" % major
        assert _exports(_dropin(t, major)) == dict.fromkeys(names, node), major
        for real in (_real(major), _wheel(t, major, packages[major])):
            if real is not None:
                theirs = _exports(real)
                assert set(theirs.values()) == {node}, (real, theirs)
                lacks = sorted(set(theirs) - names)
                assert not lacks, "compiler/dropin/names.h lacks %s of %s" % (lacks, real)


def it_needs_libc_alone_and_has_no_constructor(t):
    for major in REAL:
        text = subprocess.check_output(["readelf", "-dW", _dropin(t, major)], text=True)
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
        assert [n for n in needed if not n.startswith("ld-linux")] == ["libc.so.6"], needed
        assert re.findall(r"\(SONAME\).*\[(.*)\]", text) == ["libnvrtc.so.%d" % major]
        assert not re.findall(r"\((?:RPATH|RUNPATH|TEXTREL)\)", text), text
        # One is the C runtime's own.
        for what in ("INIT_ARRAYSZ", "FINI_ARRAYSZ"):
            assert re.findall(r"\(%s\) +(\d+)" % what, text) == ["8"], text


def _maps(t, preload):
    env = _env(t, WARM_CACHE_DIR=t.volume, WARM_COMPILER_LOG=t.path("log"), LD_PRELOAD=preload)
    return set(re.findall(r"/\S+", _run(["cat", "/proc/self/maps"], env, t.tmp)))


def _calls(t, command, preload):
    """Every (call, path) of a command that has to do with files and sockets."""
    out = t.path("trace")
    env = _env(t, WARM_CACHE_DIR=t.volume, WARM_COMPILER_LOG=t.path("log"))
    line = ["strace", "-f", "-o", out, "-e", "trace=file,network"]
    line += ["-E", "LD_PRELOAD=" + preload] if preload else []
    if subprocess.call(line + command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=env) != 0:
        raise Skip("strace is refused here")
    with open(out) as f:
        return re.findall(r'^\d+ +(\w+)\([^"\n]*"?([^"\n]*)', f.read(), re.M)


def loading_it_does_nothing(t):
    for major in REAL:
        library = _dropin(t, major)
        assert _maps(t, library) - _maps(t, None) == {library}
    need("strace")
    for command in (["/bin/true"], ["/bin/bash", "-c", "/bin/true; exit 0"]):
        calls = _calls(t, command, _dropin(t, 13))
        more = set(calls) - set(_calls(t, command, None))
        assert {path for _, path in more} == {_dropin(t, 13)}, more
        assert len([c for c in calls if c in more]) == (1 if len(command) == 1 else 2), more
    assert not os.path.exists(t.path("log")) and os.listdir(t.volume) == []


# ---- finding the real library ----

STUB = """
int nvrtcVersion(int *major, int *minor) { *major = MAJOR; *minor = NUMBER; return 0; }
const char *nvrtcGetErrorString(int code) { return code == 0 ? "stub" : "stub error"; }
"""
NOTHING = "int nothing_%s;\n"
SYSTEM = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib",
          "/usr/local/cuda/targets/sbsa-linux/lib", "/usr/lib/x86_64-linux-gnu",
          "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")


def _library(t, path, text, *flags):
    """A shared library of `text`."""
    need("cc")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(t.path("library.c"), "w") as f:
        f.write(text)
    subprocess.check_call(["cc", "-shared", "-fPIC", "-w", "-o", path, t.path("library.c"), *flags])
    return path


def _stub(t, where, number, major=13):
    """A libnvrtc that knows its number alone, and its builtins; returns its directory."""
    node = "libnvrtc.so.%d" % major
    with open(t.path("map"), "w") as f:
        f.write("%s { global: nvrtc*; local: *; };" % node)
    _library(t, os.path.join(where, node), STUB, "-DMAJOR=%d" % major, "-DNUMBER=%d" % number,
             "-Wl,-soname," + node, "-Wl,--version-script=" + t.path("map"))
    _library(t, os.path.join(where, "libnvrtc-builtins.so.%d.0" % major), NOTHING % number)
    return where


def _client(t, path, *flags, needs=13, where=None):
    """A shared library that needs libnvrtc.so.N, found in `where` when it is linked."""
    where = where or _stub(t, t.dir("link%d" % needs), 0, needs)
    return _library(t, path, NOTHING % "client", "-Wl,--no-as-needed",
                    os.path.join(where, "libnvrtc.so.%d" % needs), *flags)


def _ask(t, *lines, library="", preload=None, program=None, cwd=None, **more):
    script = _script(t.path("ask"), lines)
    env = _env(t, LD_PRELOAD=preload, **more)
    # Alone in its process, and soon: it must neither crash nor look for itself forever.
    return _lines(_run([program or _probe(), library, script], env, cwd or t.tmp, timeout=60))


def _found(t, *before, major=13, **more):
    """The number of the stub that the drop-in finds, or what it says where it finds none."""
    more.setdefault("preload", _dropin(t, major))
    *_, version, errors, loaded = _ask(t, *before, ["version"], ["errors", "11", "11"], ["loaded"],
                                       **more)
    rc, number = version.split(" -> ")[1].split()[:2]
    if rc == "0":
        assert number.startswith("%d." % major), version
        # The loader maps each file once; it and the drop-in.
        assert len(set(loaded.split()[2:])) == len(loaded.split()[2:]), loaded
        return int(number.split(".")[1])
    assert rc == "11" and number == "-1.-1", version
    return errors.split("11:", 1)[1]


def _system_has_none():
    for where in SYSTEM:
        if glob.glob(where + "/libnvrtc.so.1[23]"):
            raise Skip("%s has a libnvrtc" % where)
    if os.path.exists("/etc/ld.so.cache"):
        with open("/etc/ld.so.cache", "rb") as f:
            if b"libnvrtc.so.1" in f.read():
                raise Skip("the loader's cache has a libnvrtc")


def the_variable_goes_first(t):
    one, two = _stub(t, t.dir("one"), 1), _stub(t, t.dir("two"), 2)
    named = os.path.join(one, "libnvrtc.so.13")
    assert _found(t, WARM_NVRTC_LIBRARY=named, LD_LIBRARY_PATH=two) == 1
    assert _found(t, WARM_NVRTC_LIBRARY="", LD_LIBRARY_PATH=two) == 2
    os.symlink(named, t.path("link.so"))
    assert _found(t, WARM_NVRTC_LIBRARY=t.path("link.so")) == 1
    gone = _found(t, WARM_NVRTC_LIBRARY=t.path("gone"), LD_LIBRARY_PATH=two)
    assert isinstance(gone, str) and t.path("gone") in gone and "warmcache" in gone, gone


def one_that_is_loaded_already_is_taken(t):
    one, two = _stub(t, t.dir("one"), 1), _stub(t, t.dir("two"), 2)
    opened = ["open", os.path.join(one, "libnvrtc.so.13")]
    assert _found(t, opened, LD_LIBRARY_PATH=two) == 1


def the_path_of_an_object_that_needs_it_is_followed(t):
    failures = Failures()
    top = t.dir("top")
    _stub(t, top + "/lib/far", 1)
    _stub(t, t.dir("other"), 2)
    ways = {"absolute": top + "/lib/far", "origin": "$ORIGIN/../lib/far",
            "braces": "${ORIGIN}/../lib/far", "several": "/nonexistent:$ORIGIN:$ORIGIN/../lib/far"}
    for name, path in ways.items():
        for tags in ("--enable-new-dtags", "--disable-new-dtags"):
            with failures:
                so = _client(t, top + "/bin/%s.so" % name, "-Wl,-rpath," + path, "-Wl," + tags)
                number = _found(t, ["open", so], LD_LIBRARY_PATH=t.path("other"))
                assert number == 1, (name, tags, number)
    with failures:
        _stub(t, top + "/origin", 3)
        so = _client(t, top + "/origin/origin.so", "-Wl,-rpath,$ORIGIN")
        number = _found(t, ["open", so], LD_LIBRARY_PATH=t.path("other"))
        assert number == 3, number
    with failures:
        # By a link elsewhere, as the loader sees it.
        os.makedirs(top + "/linked/bin")
        _stub(t, top + "/linked/lib/far", 4)
        os.symlink(top + "/bin/origin.so", top + "/linked/bin/origin.so")
        number = _found(t, ["open", top + "/linked/bin/origin.so"])
        assert number == 4, number
    with failures:
        # One that needs no libnvrtc says nothing about where it lies.
        so = _library(t, top + "/bin/none.so", NOTHING % "none", "-Wl,-rpath," + top + "/lib/far")
        number = _found(t, ["open", so], LD_LIBRARY_PATH=t.path("other"))
        assert number == 2, number
    with failures:
        _stub(t, t.dir("twelve"), 5, 12)
        so = _client(t, top + "/bin/twelve.so", "-Wl,-rpath," + t.path("twelve"), needs=12)
        number = _found(t, ["open", so], major=12, LD_LIBRARY_PATH=t.path("other"))
        assert number == 5, number
    failures.tell()


def the_path_of_the_program_itself_is_followed(t):
    """It has no name in the loader's list."""
    failures = Failures()
    _stub(t, t.dir("lib"), 1)
    for n, path in enumerate((t.path("lib"), "$ORIGIN/lib")):
        for tags in ("--enable-new-dtags", "--disable-new-dtags"):
            program = _build(t.path("program%d%s" % (n, tags)), "-Wl,--no-as-needed",
                             t.path("lib/libnvrtc.so.13"), "-Wl,-rpath," + path, "-Wl," + tags)
            with failures:
                number = _found(t, program=program)
                assert number == 1, (path, tags, number)
    failures.tell()


def wheels_beside_a_loaded_object_are_found(t):
    failures = Failures()
    for packages in ("lib/python3.11/site-packages", "lib/python3/dist-packages"):
        site = t.path(packages)
        _stub(t, site + "/nvidia/cu13/lib", 1)
        _stub(t, site + "/nvidia/cuda_nvrtc/lib", 2, 12)
        so = _library(t, site + "/some/module/_c.so", NOTHING % "c")
        with failures:
            found = _found(t, ["open", so]), _found(t, ["open", so], major=12)
            assert found == (1, 2), (packages, found)
    failures.tell()


def an_environment_of_python_is_found(t):
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        top = t.dir(variable)
        _stub(t, top + "/lib/python3.12/site-packages/nvidia/cu13/lib", 1)
        _stub(t, top + "/lib", 2, 12)
        assert _found(t, **{variable: top}) == 1
        assert _found(t, major=12, **{variable: top}) == 2


def it_never_finds_itself(t):
    failures = Failures()
    own = os.path.dirname(_dropin(t, 13))
    real = _stub(t, t.dir("real"), 1)
    copy, stripped, link = t.dir("copy"), t.dir("stripped"), t.dir("link")
    for where in (copy, stripped):
        shutil.copy(_dropin(t, 13), where)
        _library(t, where + "/libnvrtc-builtins.so.13.0", NOTHING % "copy")
    subprocess.check_call(["strip", "--strip-all", stripped + "/libnvrtc.so.13"])
    os.symlink(_dropin(t, 13), link + "/libnvrtc.so.13")
    for path in (own, copy, stripped, link, ":".join((own, copy, stripped, link, ""))):
        with failures:
            where = {"LD_LIBRARY_PATH": path + ":" + real}
            assert _found(t, **where) == 1, path
            assert _found(t, preload=None, library="libnvrtc.so.13", **where) == 1, path
            assert _found(t, preload=stripped + "/libnvrtc.so.13", **where) == 1, path
            so = _client(t, t.path("client.so"), "-Wl,-rpath," + where["LD_LIBRARY_PATH"],
                         "-Wl,--disable-new-dtags")
            assert _found(t, ["open", so]) == 1, path
    for library in (_dropin(t, 13), copy + "/libnvrtc.so.13", stripped + "/libnvrtc.so.13",
                    link + "/libnvrtc.so.13"):
        with failures:
            said = _found(t, WARM_NVRTC_LIBRARY=library, LD_LIBRARY_PATH=real)
            assert isinstance(said, str) and "drop-in" in said, (library, said)
            assert "WARM_NVRTC_LIBRARY" in said, said
    failures.tell()


CALLS = [["create", "a", "good", "x.cu"], ["compile", "a"], ["dump", "a"], ["add", "a", "x"],
         ["low", "a", "x"], ["destroy", "a"], ["cpex", "b", "good", "x.cu", "0"],
         ["heap"], ["heap", "4096"], ["bundled", "info"], ["handle"], ["version"]]


def where_there_is_none_every_call_says_so(t):
    _system_has_none()
    failures = Failures()
    for major in REAL:
        library = _dropin(t, major)
        lines = _ask(t, CALLS[0], CALLS[6], *CALLS[7:9], *CALLS[11:], ["errors", "0", "20"],
                     preload=library, WARM_CACHE_DIR=t.volume)
        with failures:
            assert [re.findall(r"-?\d+", x.split(" -> ")[1])[0] for x in lines[:2]] == ["11"] * 2
            assert lines[2].endswith("-> 11:1515870810"), lines
            assert lines[4].endswith("-> 11 -1.-1 11:-1 11:"), lines
        with failures:
            said = lines[-1].split(" 11:")[1].split(" 12:")[0]
            assert "libnvrtc.so.%d" % major in said and "WARM_NVRTC_LIBRARY" in said, said
            assert "libnvrtc.so.%d" % (25 - major) not in said, said
        with failures:
            # The same where it isn't preloaded, and where a directory has nothing of use.
            for env in ({"LD_LIBRARY_PATH": os.path.dirname(library)},
                        {"VIRTUAL_ENV": t.tmp, "LD_LIBRARY_PATH": os.path.dirname(library)}):
                said = _found(t, major=major, preload=None, library="libnvrtc.so.%d" % major, **env)
                assert isinstance(said, str) and "WARM_NVRTC_LIBRARY" in said, said
    failures.tell()


def what_is_no_library_is_passed_over(t):
    real = _stub(t, t.dir("real"), 1)
    failures = Failures()
    for name, data in (("empty", b""), ("text", b"INPUT(libnvrtc.so)\n"), ("short", b"\x7fELF")):
        bad = t.dir(name)
        with open(bad + "/libnvrtc.so.13", "wb") as f:
            f.write(data)
        os.symlink("nowhere", t.dir(name + "2") + "/libnvrtc.so.13")
        os.mkdir(t.dir(name + "3") + "/libnvrtc.so.13")
        path = ":".join((bad, t.path(name + "2"), t.path(name + "3"), real))
        with failures:
            assert _found(t, LD_LIBRARY_PATH=path) == 1, name
            said = _found(t, WARM_NVRTC_LIBRARY=bad + "/libnvrtc.so.13")
            assert isinstance(said, str) and bad in said, said
    failures.tell()


def without_builtins_it_is_used_without_a_cache(t):
    """It may know better where they are."""
    alone, whole = t.dir("alone"), _stub(t, t.dir("whole"), 1)
    _stub(t, alone, 2)
    os.unlink(alone + "/libnvrtc-builtins.so.13.0")
    assert _found(t, WARM_NVRTC_LIBRARY=alone + "/libnvrtc.so.13") == 2
    assert _found(t, LD_LIBRARY_PATH=alone) == 2
    assert _found(t, LD_LIBRARY_PATH=alone + ":" + whole) == 1


def both_majors_live_in_one_process(t):
    failures = Failures()
    one, two = _stub(t, t.dir("one"), 1), _stub(t, t.dir("two"), 2, 12)
    both = "%s:%s" % (_dropin(t, 13), _dropin(t, 12))
    lines = [["open", "libnvrtc.so.12", "use"], ["version"], ["open", "libnvrtc.so.13", "use"],
             ["version"], ["open", "libnvrtc.so.12", "use"], ["version"]]
    for preload in (both, ":".join(reversed(both.split(":")))):
        got = [x.split(" -> ")[1].split()[:2] for x in
               _ask(t, *lines, preload=preload, LD_LIBRARY_PATH=one + ":" + two)][1::2]
        with failures:
            assert got == [["0", "12.2"], ["0", "13.1"], ["0", "12.2"]], got
        # A program linked against one of them, and what it loads against the other.
        with failures:
            program = _linked(t, "program", two + "/libnvrtc.so.12",
                              ["nvrtcVersion", "nvrtcGetErrorString"])
            got = _ask(t, ["version"], *lines[2:4], program=program, preload=preload,
                       LD_LIBRARY_PATH=one + ":" + two)
            assert " 12.2" in got[0] and " 13.1" in got[2], got
    with failures:
        # The variable names one; the other's drop-in must not take it for its own.
        got = _found(t, major=12, preload=both, library="libnvrtc.so.12", LD_LIBRARY_PATH=two,
                     WARM_NVRTC_LIBRARY=one + "/libnvrtc.so.13")
        assert got == 2 or isinstance(got, str), got
    failures.tell()


def _linked(t, out, library, names, *flags):
    """The probe, linked against these names of a library, which its RUNPATH leads to."""
    with open(t.path("linked.c"), "w") as f:
        f.writelines("extern char %s[];\n" % n for n in names)
        f.write("const struct { const char *name; const void *function; } linked[] = {\n")
        f.writelines('{ "%s", %s },\n' % (n, n) for n in names)
        f.write("{ 0, 0 } };\n")
    return _build(t.path(out), t.path("linked.c"), "-Wl,--no-as-needed", library,
                  "-Wl,-rpath," + os.path.dirname(library), *flags)


def linked_programs_are_served(t):
    """By each way that leads to the drop-in; the real library is where their own path says."""
    failures = Failures()
    asked = [["create", "a", "good", "linked.cu"], ["add", "a", "tk<3>"],
             ["compile", "a", "-arch=sm_90"], ["dump", "a"], ["low", "a", "tk<3>"],
             ["destroy", "a"], ["version"], ["errors", "0", "20"]]
    opened = ["open", "libnvrtc.so.%d", "use"]
    for major in REAL:
        library, log = _dropin(t, major), t.path("log%d" % major)
        dirs = {"LD_LIBRARY_PATH": os.path.dirname(library)}
        names = sorted(_table()[major])
        program = _linked(t, "new%d" % major, _real(major), names, "-Wl,--enable-new-dtags")
        old = _linked(t, "old%d" % major, _real(major), names, "-Wl,--disable-new-dtags")
        both = ":".join(_dropin(t, m) for m in (25 - major, major))
        asks = [dict(preload=library, program=program), dict(program=program, **dirs),
                dict(preload=library, program=old), dict(preload=both, program=program)]
        want = _ask(t, *asked, program=program)
        more = {"WARM_CACHE_DIR": t.fresh(), "WARM_COMPILER_LOG": log}
        for n, ask in enumerate(asks):
            with failures:
                got = _ask(t, *asked, **ask, **more)
                assert got == want, (major, ask, got)
                assert _events(log) == ["hit" if i else "miss" for i in range(n + 1)], ask
        use = [opened[0], opened[1] % major, opened[2]]
        real = os.path.dirname(_real(major))
        for n, ask in enumerate((dict(preload=library, LD_LIBRARY_PATH=real),
                                 dict(LD_LIBRARY_PATH=dirs["LD_LIBRARY_PATH"] + ":" + real))):
            with failures:
                got = _ask(t, use, *asked, **ask, **more)
                assert got[1:] == want, (major, ask, got)
                assert _events(log)[-1] == "hit" and len(_events(log)) == 5 + n, ask
    failures.tell()


def _events(log):
    if not os.path.exists(log):
        return []
    with open(log) as f:
        return [json.loads(line)["event"] for line in f]


# ---- threads, forks, signals ----

def sixteen_threads_get_what_one_gets(t):
    for major in REAL:
        want = _ask(t, ["threads", "1", "6"], library=_real(major))
        assert "-> 0 bad" in want[0], want
        env = {"WARM_NVRTC_LIBRARY": _real(major), "WARM_CACHE_DIR": t.fresh(),
               "WARM_COMPILER_LOG": t.path("log")}
        for _ in range(2):
            got = _ask(t, ["threads", "16", "6"], preload=_dropin(t, major),
                       library=_dropin(t, major), **env)
            assert got[0].split(" -> ")[1] == want[0].split(" -> ")[1], (major, got, want)
        misses = _events(t.path("log")).count("miss")
        assert misses == 5 * (14 - major), misses


def a_fork_goes_on_with_its_programs(t):
    made = ["create", "a", "good", "fork.cu"]
    asked = [made, ["add", "a", "tk<3>"], ["fork", "compile", "a", "-arch=sm_90"],
             ["compile", "a", "-arch=sm_90"], ["fork", "dump", "a"], ["fork", "low", "a", "tk<3>"],
             ["dump", "a"], ["fork", "compile", "a", "-dlto"], ["compile", "a", "-dlto"],
             ["fork", "dump", "a"], ["dump", "a"],
             ["create", "b", "syntax", "fork.cu"], ["compile", "b"], ["fork", "dump", "b"],
             ["fork", "destroy", "b"], ["dump", "b"], ["fork", "threads", "2", "6"],
             ["fork", "version"], ["destroy", "a"], ["destroy", "b"]]
    for major in REAL:
        want = _ask(t, *asked, library=_real(major))
        env = {"WARM_NVRTC_LIBRARY": _real(major), "WARM_CACHE_DIR": t.fresh()}
        for what in ("cold", "warm"):
            got = _ask(t, *asked, preload=_dropin(t, major), library=_dropin(t, major), **env)
            _compare("%d %s" % (major, what), want, got)


def the_programs_signal_handler_stays(t):
    """NVRTC takes SIGTERM for itself while it compiles."""
    include = os.environ.get("TEST_CUDA_INCLUDE", "")
    if not os.path.exists(include + "/cuda_fp16.h"):
        raise Skip("needs TEST_CUDA_INCLUDE")
    source = "#include <cuda_fp16.h>\n__global__ void f(__half *x) { *x = *x * *x; }\n"
    asked = [["source", "half", source], ["create", "a", "half", "half.cu"],
             ["term", "a", "-arch=sm_90", "-I" + include], ["dump", "a"], ["destroy", "a"]]
    want = _ask(t, asked[0], asked[1], ["compile"] + asked[2][1:], *asked[3:], library=_real(13))
    env = {"WARM_NVRTC_LIBRARY": _real(13), "WARM_CACHE_DIR": t.volume,
           "WARM_COMPILER_LOG": t.path("log")}
    got = _ask(t, *asked, preload=_dropin(t, 13), library=_dropin(t, 13), **env)
    assert got[1].endswith("-> 0 handled kept"), got
    assert got[2:] == want[2:], (got, want)
    assert _events(t.path("log")) == ["miss"]


# ---- programs that know nothing of it ----

CUDA_BINDINGS = """
import hashlib
from cuda.bindings import nvrtc

def ask(call, *args):
    rc, *rest = call(*args)
    return [int(rc)] + rest

def read(size, get, program):
    n = size(program)[1]
    data = b" " * n
    get(program, data)
    return n, hashlib.sha256(data).hexdigest(), data if get is nvrtc.nvrtcGetProgramLog else ""

def tell(program):
    for what in ("CUBIN", "PTX", "LTOIR", "OptiXIR", "ProgramLog"):
        print(what, read(getattr(nvrtc, "nvrtcGet%sSize" % what),
                         getattr(nvrtc, "nvrtcGet" + what), program))

source = b'#include "v.h"\\ntemplate<int N> __global__ void k(int *x) { int unused; *x += N * V; }'
for text, options in ((source, [b"-arch=sm_90"]), (source + b"}", [b"-arch=sm_90"]),
                      (source, [b"-arch=compute_80", b"-bogus"]), (source, [b"-dlto"])):
    rc, program = ask(nvrtc.nvrtcCreateProgram, text, b"bound.cu", 1, [b"#define V 7"], [b"v.h"])
    print(rc, ask(nvrtc.nvrtcAddNameExpression, program, b"k<3>"))
    print(ask(nvrtc.nvrtcCompileProgram, program, len(options), options))
    print(ask(nvrtc.nvrtcGetLoweredName, program, b"k<3>"))
    tell(program)
    print(ask(nvrtc.nvrtcDestroyProgram, program))
print(ask(nvrtc.nvrtcVersion), ask(nvrtc.nvrtcGetSupportedArchs))
print(ask(nvrtc.nvrtcGetErrorString, nvrtc.nvrtcResult.NVRTC_ERROR_COMPILATION))
"""

CUPY = """
import hashlib, os, sys
import cupy
from cupy.cuda import compiler
compiler._get_arch_for_options_for_nvrtc = lambda arch=None: ("-arch=sm_90", "cubin")
own = os.path.join(os.path.dirname(cupy.__file__), "_core/include")
options = ("-I" + own, "-std=c++17") + tuple("-I" + where for where in sys.argv[1:])
source = "#include <cupy/carray.cuh>\\ntemplate<typename T> __global__ void square(" \\
         "CArray<T, 1, true, true> a) { a[0] *= a[0]; }"
code, names = compiler.compile_using_nvrtc(source, options, 90,
                                           name_expressions=("square<float>", "square<double>"))
print(hashlib.sha256(code).hexdigest(), sorted(names.items()))
# As RawModule does it, up to the driver.
code, names = compiler.compile_using_nvrtc("extern \\"C\\" __global__ void f(int *p) { *p = 1; }",
                                           options + ("-ftz=true",), 90, "raw.cu",
                                           cache_in_memory=True)
print(hashlib.sha256(code).hexdigest(), names)
try:
    compiler.compile_using_nvrtc("nonsense", options, 90, "bad.cu")
except compiler.CompileException as e:
    print(str(e).replace(os.path.dirname(e.name), "DIR"))
"""


def _python(t, code, *args, **more):
    python = os.environ.get("TEST_CUPY_PYTHON", "")
    if not os.path.exists(python):
        raise Skip("needs TEST_CUPY_PYTHON")
    env = _env(t, CUPY_CACHE_DIR=t.fresh("cupy"), **more)
    return _run([python, "-c", code.replace("\\\\", "\\"), *args], env, t.tmp).splitlines()


def _unmodified(t, code, want_cold, want_warm, *args):
    """Without the drop-in, then with it in two processes: the same, and {event: names}."""
    want = _python(t, code, *args)
    failures = Failures()
    for what, want_events in (("cold", want_cold), ("warm", want_warm)):
        log = t.path(what)
        got = _python(t, code, *args, LD_PRELOAD="%s:%s" % (_dropin(t, 13), _dropin(t, 12)),
                      WARM_CACHE_DIR=t.volume, WARM_COMPILER_LOG=log)
        with failures:
            assert got == want, "%s:%s" % (what, "".join(_apart(a, b) for a, b in zip(want, got)
                                                         if a != b))
        with failures:
            with open(log) as f:
                events = [(e["event"], e["name"]) for e in map(json.loads, f)]
            assert events == want_events, events
    failures.tell()


def cuda_bindings_sees_no_difference(t):
    errors = [("error", "bound.cu")] * 2
    _unmodified(t, CUDA_BINDINGS, [("miss", "bound.cu"), *errors, ("miss", "bound.cu")],
                [("hit", "bound.cu"), *errors, ("hit", "bound.cu")])


def cupy_sees_no_difference(t):
    """It names each program after a directory of its own."""
    include = os.environ.get("TEST_CUDA_INCLUDE", "")
    _unmodified(t, CUPY, [("miss", "kern.cu"), ("miss", "default_program"), ("error", "bad.cu")],
                [("hit", "kern.cu"), ("hit", "default_program"), ("error", "bad.cu")],
                include, include + "/cccl")


# ---- what else a program may do ----

def a_program_that_closes_its_files_gets_none_back_changed(t):
    """As one that becomes a daemon: numbers that the drop-in held are the program's own then."""
    env = {"WARM_NVRTC_LIBRARY": _real(13), "WARM_CACHE_DIR": t.volume,
           "WARM_COMPILER_LOG": t.path("log")}
    asked = [["create", "a", "good", "one.cu"], ["compile", "a"], ["refile", "12"],
             ["create", "b", "good", "two.cu"], ["compile", "b"], ["dump", "b"], ["destroy", "b"],
             ["create", "b", "good", "one.cu"], ["compile", "b"], ["dump", "b"], ["refiled"]]
    want = _ask(t, *asked, library=_real(13))
    assert want[-1].endswith("12 as they were"), want
    got = _ask(t, *asked, preload=_dropin(t, 13), library=_dropin(t, 13), **env)
    _compare("13", want, got)
