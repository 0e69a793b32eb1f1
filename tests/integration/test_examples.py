# SPDX-License-Identifier: Apache-2.0
"""compiler/examples, as a reader would run them: cold, then warm. (predictor.py: test_python.py.)"""

import json
import os
import signal
import subprocess


def _example(ctx, name):
    program = os.path.join(os.path.dirname(os.path.abspath(ctx.bin)), "examples", name)
    assert os.path.exists(program), "%s isn't built" % program
    return program


def _env(ctx):
    assert "WARM_NVRTC_LIBRARY" in os.environ, "source scripts/nvrtc-env first"
    return ctx.env(WARM_NVRTC_LIBRARY=os.environ["WARM_NVRTC_LIBRARY"], WARM_CACHE_DIR=ctx.volume)


def test_templates_in_cpp_hit_in_the_second_process(ctx):
    def run():
        p = subprocess.run([_example(ctx, "templates")], env=_env(ctx), text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert p.returncode == 0, p.stderr
        return [line.split(" ", 1) for line in p.stdout.splitlines()]

    cold, warm = run(), run()
    assert [word for word, _ in cold] == ["miss"] * 3, cold
    assert [word for word, _ in warm] == ["hit"] * 3, warm
    assert [rest for _, rest in cold] == [rest for _, rest in warm]
    assert "scale<float, 4> _Z5scaleIfLi4E" in cold[1][1], cold


def test_a_model_in_c_hits_in_the_second_process(ctx):
    def run():
        p = subprocess.Popen([_example(ctx, "model"), os.environ["TEST_CUDA_INCLUDE"]],
                             env=_env(ctx), text=True, stdout=subprocess.PIPE)
        ready = json.loads(p.stdout.readline())
        p.send_signal(signal.SIGTERM)
        assert p.wait(10) == 0
        return ready

    cold, warm = run(), run()
    assert (cold["compiled"], cold["hits"]) == (3, 0), cold
    assert (warm["compiled"], warm["hits"]) == (0, 3), warm
