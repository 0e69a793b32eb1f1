# SPDX-License-Identifier: Apache-2.0
"""What the comparisons share: running and timing commands, and the table."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, "build/bin")
# A child's peak RSS begins with that of the process that started it, so that one is small: 8 MiB.
LAUNCHER = """
import json, os, sys, time
out = os.dup(1)
os.set_inheritable(out, False)
start = time.monotonic()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, usage = os.wait4(child, 0)
seconds = time.monotonic() - start
os.write(out, json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss / 1024,
                          usage.ru_utime + usage.ru_stime]).encode())
"""


def call(command, **kwargs):
    child = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)
    if child.returncode != 0:
        raise SystemExit(f"{command}: exit {child.returncode}\n{child.stderr[-2000:]}")
    return child.stdout


def timed(command, **kwargs):
    """Wall seconds, peak RSS in MiB and seconds of CPU of one command."""
    code, seconds, rss, cpu = json.loads(call([sys.executable, "-I", "-S", "-c", LAUNCHER, *command], **kwargs))
    if code != 0:
        raise SystemExit(f"{command}: exit {code}")
    return seconds, rss, cpu


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def publish(volume, key, grow, **kwargs):
    """Run a sidecar over `volume`; `grow` adds files once it has started. Its log, and the seconds
    from SIGTERM to its end."""
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen([f"{BIN}/warmcache-sidecar", *key, "--volume", volume, "--settle", "1h"], stderr=log,
                                 **kwargs)
        try:
            time.sleep(1)
            grow()
            start = time.monotonic()
            child.send_signal(signal.SIGTERM)
            code = child.wait()
        finally:
            child.kill()
        log.seek(0)
        text = log.read()
    if code != 0:
        raise SystemExit(f"the sidecar failed:\n{text}")
    return text, time.monotonic() - start


def table(title, rows):
    """Rows of name, value, goal, whether it is met, note; goal and met are None for what has none."""
    print(f"{title}\n")
    print(f"{'':40}{'measured':>10}  {'goal':<16}")
    for name, value, goal, met, note in rows:
        verdict = "" if met is None else "met" if met else "MISSED"
        print(f"{name:40}{value:>10}  {goal or '':<16}{verdict:8}{note}".rstrip())
    print()
