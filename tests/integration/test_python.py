# SPDX-License-Identifier: Apache-2.0
"""What scripts/dist builds, as its users get it: the wheel in an empty virtual environment, and the
archive under a C program."""

import functools
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading

from support import MACHINE, ROOT, Skip, need

MYPY = "mypy==1.19.1"  # the last that checks for Python 3.9
GLIBC = (2, 28)
LIBC = r"lib(c|m|dl|pthread|rt)\.so\.\d|ld-linux.*"
PRELUDE = """
import json, os, signal, sys, threading, time
from warmcache import *
SAXPY = '''extern "C" __global__ void saxpy(float a, const float *x, float *y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = a * x[i] + y[i];
}
'''
ARCH = ["-arch=sm_90"]
def refuses(kind, says, function, *args, **named):
    try:
        function(*args, **named)
    except kind as error:
        assert says in str(error), error
        return error
    raise AssertionError("no %s" % kind.__name__)
"""

_lock = threading.Lock()  # tests run beside each other


def _check(line, **more):
    p = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, **more)
    assert p.returncode == 0, "%s: exit %d\n%s" % (line, p.returncode, p.stdout)
    return p.stdout


def _parts():
    return os.path.abspath(os.environ.get("WARM_PARTS", os.path.join(ROOT, "build/parts")))


@functools.lru_cache(maxsize=None)
def _build():
    out = os.path.join(ROOT, "build/dist/out")
    _check([os.path.join(ROOT, "scripts/dist"), out])
    venv = os.path.join(ROOT, "build/dist/venv")
    shutil.rmtree(venv, ignore_errors=True)
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else "python3"
    _check([python, "-m", "venv", venv])
    _check([venv + "/bin/pip", "install", "-q", "--no-index"] + glob.glob(out + "/*.whl"))
    return out, venv


def _dist():
    """Where wheel and archive are, and an environment that the wheel is installed in."""
    with _lock:
        return _build()


def _env(ctx, **more):
    assert "WARM_NVRTC_LIBRARY" in os.environ, "source scripts/nvrtc-env first"
    named = {"WARM_NVRTC_LIBRARY": os.environ["WARM_NVRTC_LIBRARY"], "WARM_CACHE_DIR": ctx.volume}
    return ctx.env(**{**named, **more})


def _run(ctx, code, **env):
    """Run `code` by the environment's Python; what it printed, from JSON."""
    out = _check([_dist()[1] + "/bin/python", "-c", PRELUDE + code], env=_env(ctx, **env),
                 cwd=ctx.tmp)
    return json.loads(out) if out else None


def test_the_second_process_hits(ctx):
    code = """
with Compiler() as compiler:
    result = compiler.compile(SAXPY, name="saxpy.cu", options=ARCH)
    assert result.cubin[:4] == b"\\x7fELF" and result.cubin is result.cubin
    assert b".visible .entry saxpy" in result.ptx and b"\\0" not in result.ptx
    assert result.ltoir is None and result.optixir is None and result.log == ""
print(json.dumps([result.source.name, result.fingerprint, result.cubin.hex()]))
"""
    first, second = _run(ctx, code), _run(ctx, code)
    assert (first[0], second[0]) == ("MISS", "HIT")
    assert first[1:] == second[1:]


def test_a_changed_header_compiles_again(ctx):
    code = """
with Compiler() as compiler:
    result = compiler.compile('#include "own.h"\\n__device__ int x = X;\\n', name="x.cu",
                              options=ARCH + ["-I" + os.getcwd()])
print(json.dumps(result.source.name))
"""
    for text, expected in [("1", "MISS"), ("1", "HIT"), ("2", "MISS"), ("2", "HIT")]:
        with open(ctx.path("own.h"), "w") as f:
            f.write("#define X %s\n" % text)
        assert _run(ctx, code) == expected, text


def test_headers_name_expressions_and_bytes(ctx):
    _run(ctx, """
with Compiler(os.environ.pop("WARM_CACHE_DIR")) as compiler:
    result = compiler.compile(b'#include "t.h"\\ntemplate <typename A> __global__ void f(A *x) '
                              b'{ *x = T(1); }', headers={"t.h": "typedef float T;"},
                              name_expressions=["f<int>", b"f<T>"], options=[b"-arch=sm_90"])
    assert result.lowered_name("f<int>") == "_Z1fIiEvPT_"
    assert result.lowered_name("f<T>") == "_Z1fIfEvPT_"
    refuses(KeyError, "f<char>", result.lowered_name, "f<char>")
    timed = compiler.compile("__device__ const char *t = __TIME__;", options=ARCH)
    assert timed.source == Source.UNCACHEABLE and "__TIME__" in timed.reason
    counters = compiler.counters
    assert (counters.misses, counters.uncacheable, counters.hits) == (2, 1, 0), counters
with Compiler() as compiler:
    assert compiler.compile(SAXPY, options=ARCH).source == Source.UNSTORED
""")


def test_errors(ctx):
    _run(ctx, """
compiler = Compiler()
error = refuses(CompileError, 'expected a ";"', compiler.compile, "int x", name="bad.cu")
assert isinstance(error, WarmcacheError) and error.nvrtc_result == 6
assert "\\n" not in error.message and "bad.cu(1): error" in error.log
refuses(NvrtcNotFoundError, "/absent", Compiler, nvrtc_library="/absent/libnvrtc.so.13")
with Compiler(helper="/absent/warmcache-nvrtc") as lame:
    refuses(HelperError, "/absent", lame.compile, SAXPY + "// new", options=ARCH)

refuses(TypeError, "source must be str or bytes, not int", compiler.compile, 1)
refuses(TypeError, "options must be a sequence", compiler.compile, SAXPY, options="-arch=sm_90")
refuses(TypeError, "options[1] must be", compiler.compile, SAXPY, options=["-G", 1])
refuses(TypeError, "headers must be a mapping", compiler.compile, SAXPY, headers=["a.h"])
refuses(TypeError, "headers['a.h'] must be", compiler.compile, SAXPY, headers={"a.h": None})
refuses(TypeError, "name must be", compiler.compile, SAXPY, name=1)
refuses(ValueError, "source holds a NUL", compiler.compile, "a\\0b")
refuses(ValueError, "name holds a NUL", compiler.compile, SAXPY, name="a\\0b")
refuses(TypeError, "programs[1] must be a Program", compiler.compile_many, [Program(""), ""])
refuses(TypeError, "programs[0].source", compiler.compile_many, [Program(None)])
refuses(TypeError, "cache_dir must be", Compiler, 1)
refuses(ValueError, "sealed_dirs[0] is not absolute", Compiler, sealed_dirs=["include"])
refuses(ValueError, "timeout is 0", Compiler, timeout=0)
refuses(ValueError, "max_parallel is -1", Compiler, max_parallel=-1)
refuses(ValueError, "not a valid Mode", Compiler, mode=9)
refuses(FileNotFoundError, "CUDA 11", preload_path, 11)
compiler.close()
compiler.close()
refuses(ValueError, "closed", compiler.compile, SAXPY)
refuses(ValueError, "closed", compiler.__enter__)
""")
    _run(ctx, "refuses(NvrtcNotFoundError, '/absent', Compiler)", WARM_NVRTC_LIBRARY="/absent")
    _run(ctx, "refuses(OSError, 'WARM_COMPILER_LIBRARY', Compiler)",
         WARM_COMPILER_LIBRARY="/absent.so")


def test_many_programs(ctx):
    _run(ctx, """
programs = [Program(SAXPY + "// %d" % i, name="%d.cu" % i, options=ARCH) for i in range(6)]
with Compiler() as compiler:
    seen = []
    results = compiler.compile_many(programs, progress=lambda *done: seen.append(done))
    assert [one.source for one in results] == [Source.MISS] * 6
    assert sorted(i for i, _ in seen) == list(range(6))
    assert all(one is results[i] for i, one in seen)
    hits = compiler.compile_many(iter(programs))
    assert [one.source for one in hits] == [Source.HIT] * 6
    assert [one.cubin for one in hits] == [one.cubin for one in results]
    assert compiler.compile_many([]) == []

    seen = []
    programs[2] = Program("nonsense", name="bad.cu")
    error = refuses(CompileManyError, "1 of 6 programs failed, first programs[2]: bad.cu",
                    compiler.compile_many, programs, lambda *done: seen.append(done))
    assert isinstance(error.errors[2], CompileError) and "bad.cu(1)" in error.errors[2].log
    assert [i for i in range(6) if error.results[i] is None] == [2]
    assert [i for i in range(6) if error.errors[i] is not None] == [2]
    assert (2, None) in seen and len(seen) == 6

    # What stops it: an exception of the callback, and Ctrl-C.
    many = [Program("// %d" % i) for i in range(400)]
    refuses(ZeroDivisionError, "", compiler.compile_many, many[:200], lambda *done: 1 / 0)
    def interrupt(misses):
        while compiler.counters.misses < misses + 10:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt, args=[compiler.counters.misses]).start()
    refuses(KeyboardInterrupt, "", compiler.compile_many, many[200:])
    assert compiler.counters.misses < 400
assert results[0].cubin  # outlives the compiler
""")


def test_options_of_a_compiler(ctx):
    _run(ctx, """
with Compiler(helper="/absent/warmcache-nvrtc", fallback=True) as compiler:
    result = compiler.compile(SAXPY, options=ARCH)
    assert result.cubin and result.source == Source.UNCACHEABLE and "/absent" in result.reason
    assert compiler.counters.uncacheable_host == 1
with Compiler(max_bytes=20000, max_parallel=1, timeout=60, mode=Mode.SEALED,
              sealed_dirs=["/usr"]) as compiler:
    compiler.compile_many([Program(SAXPY + "// %d" % i, options=ARCH) for i in range(20)])
    assert compiler.counters.evicted > 0 and compiler.counters.helpers_started == 1
    assert compiler.compile(SAXPY + "// 19", options=ARCH).source == Source.HIT
with Compiler(timeout=0.001) as compiler:
    refuses(HelperError, "took over 1 ms", compiler.compile, SAXPY + "// late", options=ARCH)
""")


def test_threads_share_a_compiler(ctx):
    _run(ctx, """
compiler, failed = Compiler(), []
def work():
    try:
        for i in range(40):
            result = compiler.compile(SAXPY + "// %d" % (i % 4), options=ARCH)
            assert result.cubin[:4] == b"\\x7fELF"
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not failed, failed
counters = compiler.counters
assert counters.hits + counters.misses == 320 and counters.failed == 0, counters

# One that is closed under a call: the call ends as it would have.
results = []
t = threading.Thread(target=lambda: results.append(compiler.compile(SAXPY + "// long",
                                                                   options=ARCH)))
t.start()
compiler.close()
t.join()
assert len(results) == 1 and results[0].cubin
""")


def test_a_fork_goes_on_with_compiler_and_results(ctx):
    _run(ctx, """
compiler = Compiler()
result = compiler.compile(SAXPY, options=ARCH)
child = os.fork()
if child == 0:
    try:
        assert compiler.compile(SAXPY, options=ARCH).source == Source.HIT
        assert compiler.compile(SAXPY + "//", options=ARCH).cubin == result.cubin
        compiler.close()
    except BaseException as error:
        sys.stderr.write(repr(error))
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert compiler.compile(SAXPY + "//", options=ARCH).source == Source.HIT
assert compiler.compile(SAXPY + "// after", options=ARCH).cubin == result.cubin
""")


def test_the_predictor_reads_at_its_second_boot(ctx):
    line = [_dist()[1] + "/bin/python", os.path.join(ROOT, "compiler/examples/predictor.py")]
    cold, warm = [json.loads(_check(line, env=_env(ctx), cwd=ctx.tmp)) for _ in range(2)]
    assert (cold["compiled"], cold["hits"]) == (2, 0), cold
    assert (warm["compiled"], warm["hits"]) == (0, 2), warm
    assert "saxpy is right" in warm["predict"] or "no GPU" in warm["predict"], warm


def test_a_program_with_the_preloaded_library_hits(ctx):
    code = """
import ctypes, json, sys
nvrtc = ctypes.CDLL("libnvrtc.so.13")
program, size = ctypes.c_void_p(), ctypes.c_size_t()
source, options = b"__device__ int x = 1;", (ctypes.c_char_p * 1)(b"-arch=sm_90")
assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"x.cu", 0, None, None) == 0
assert nvrtc.nvrtcCompileProgram(program, 1, options) == 0
assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0 and size.value > 0
"""
    path = _run(ctx, "print(json.dumps(str(preload_path(13))))")
    env = _env(ctx, preload=path, WARM_COMPILER_LOG=ctx.path("log"))
    for _ in range(2):
        _check([_dist()[1] + "/bin/python", "-c", code], env=env, cwd=ctx.tmp)
    with open(ctx.path("log")) as f:
        assert [json.loads(line)["event"] for line in f] == ["miss", "hit"]


def test_binaries_need_no_newer_glibc(ctx):
    need("objdump")
    package, = glob.glob(_dist()[1] + "/lib/python3*/site-packages/warmcache")
    binaries = [f for f in glob.glob(package + "/lib/**", recursive=True) if os.path.isfile(f)]
    assert len(binaries) == 4, binaries
    for path in binaries:
        assert os.access(path, os.X_OK), path
        listing = _check(["objdump", "-p", "-T", path])
        versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", listing)}
        assert versions and max(versions) <= GLIBC, "%s needs GLIBC %s" % (path, max(versions))
        for name in re.findall(r"NEEDED +(\S+)", listing):
            assert re.fullmatch(LIBC, name), "%s needs %s" % (path, name)


def test_the_archive_serves_c_programs(ctx):
    need("pkg-config")
    _check(["tar", "-xf"] + glob.glob(_dist()[0] + "/*.tar.gz"), cwd=ctx.tmp)
    tree, = glob.glob(ctx.path("warmcache-compiler-*-" + MACHINE))
    env = _env(ctx, PKG_CONFIG_PATH=tree + "/lib/pkgconfig")
    flags = _check(["pkg-config", "--cflags", "--libs", "warmcache-compiler"], env=env).split()
    static = [f.replace("-lwarmcache", "-l:libwarmcache") for f in flags]
    static = [f + ".a" if f.startswith("-l:") else f for f in static] + ["-ldl", "-pthread"]
    need("cc")
    with open(ctx.path("user.c"), "w") as f:
        f.write("""#include <stdio.h>
#include <string.h>
#include <warmcache/compiler.h>
int main(void)
{
	struct warm_compiler_error error = WARM_COMPILER_ERROR_INIT;
	static const char source[] = "__device__ int x = 1;";
	struct warm_compile_program program = { .source = source, .source_bytes = strlen(source) };
	struct warm_compile_result *result;
	struct warm_compiler *compiler;
	if (warm_compiler_open(NULL, &compiler, &error) != 0 ||
	    warm_compiler_compile(compiler, &program, &result, &error) != 0)
		return puts(error.message), 1;
	printf("%d", (int)warm_compile_result_source(result));
	warm_compile_result_free(result);
	warm_compiler_close(compiler);
	return 0;
}
""")
    _check(["cc", "user.c", "-o", "shared", "-Wl,-rpath," + tree + "/lib"] + flags, cwd=ctx.tmp)
    _check(["cc", "user.c", "-o", "static"] + static, cwd=ctx.tmp)
    assert _check([ctx.path("shared")], env=env) == "1"
    assert _check([ctx.path("static")], env=env) == "0"


def test_the_same_tree_gives_the_same_bytes(ctx):
    def digests(out):
        return {os.path.basename(f): hashlib.sha256(open(f, "rb").read()).hexdigest()
                for f in glob.glob(out + "/*")}
    first = digests(_dist()[0])
    with _lock:
        _check(["sh", "-c", "umask 077; exec scripts/dist " + ctx.path("out")], cwd=ROOT)
    assert len(first) == 2 and digests(ctx.path("out")) == first


def test_types(ctx):
    _dist()
    python = _parts() + "/dist/bin/python"
    if subprocess.call([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", MYPY],
                       stderr=subprocess.DEVNULL) != 0:
        raise Skip("needs mypy")
    _check([python, "-m", "mypy", "--strict", "--python-version=3.9", "--cache-dir=" + ctx.tmp,
            os.path.join(ROOT, "compiler/python/warmcache")])
