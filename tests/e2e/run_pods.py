#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the tests that need a cluster: tests/e2e/cluster run python3 tests/e2e/run_pods.py [NAME...]
where a NAME is a part of MODULE.TEST.

A test is a function of a test_*.py here that isn't a program itself, whose name doesn't begin with '_'.
It gets a Case and returns what it saw: shown as tables, and as JSON in build/e2e.json. Tests of a
module that says ALONE run one after another, after the others."""

import glob
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import kube  # noqa: E402
import pods  # noqa: E402

WORKERS = 5  # they wait, most of the time
TERMINATION = ["at_t0", "written", "whole", "draining", "model_end", "sigterm", "end", "exit"]
SEEN = ["ready", "init", "sidecar", "note"]
START = ["ready", "adds", "spread", "before", "init", "api", "own", "status"]


def modules():
    names = sorted(os.path.basename(path)[:-3] for path in glob.glob(HERE + "/test_*.py"))
    found = map(importlib.import_module, names)
    return [module for module in found if not hasattr(module, "main")]


def collect(module, names):
    return [(name, fn) for name, fn in vars(module).items()
            if callable(fn) and not name.startswith("_") and fn.__module__ == module.__name__ and
            (not names or any(n in "%s.%s" % (module.__name__, name) for n in names))]


def run(test):
    name, fn = test
    case, began = pods.Case(name), time.time()
    try:
        row, fault = fn(case), None
    except pods.Skip as skip:
        row, fault = {"note": "skipped: %s" % skip}, None
    except Exception:  # noqa: BLE001: a test's fault is told, whatever it is
        row, fault = None, traceback.format_exc()
    print("%s %s (%.0f s)" % ("ok  " if fault is None else "FAIL", name, time.time() - began),
          flush=True)
    if fault:
        print(fault)
        for pod in case.pods:
            for container in ("warmcache-init", "warmcache-sidecar", "model"):
                print("--- %s: %s: %s" % (pod.name, container, pod.terminated(container)))
                print(pod.text(container))
    case.close()
    return name, row, fault


def table(title, columns, rows):
    lines = [[title, *columns]]
    for name, row in rows.items():
        lines.append([name.replace("_", " ")] + ["" if row.get(c) is None else str(row[c])
                                                 for c in columns])
    widths = [max(map(len, column)) for column in zip(*lines)]
    print()
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def main(names):
    subprocess.run("ip address add %s/32 dev lo && iptables -I INPUT -d %s -j DROP" % (
        pods.SILENT, pods.SILENT), shell=True, stderr=subprocess.DEVNULL)  # or there already
    pods.Case.tasks = kube.Tasks()
    results = []
    try:
        found = [(getattr(m, "ALONE", False), test) for m in modules()
                 for test in collect(m, names)]
        assert len({name for _, (name, _) in found}) == len(found), "two tests of one name"
        with ThreadPoolExecutor(WORKERS) as pool:
            results += pool.map(run, [test for alone, test in found if not alone])
        results += map(run, [test for alone, test in found if alone])
    finally:
        pods.Case.tasks.close()
    with open("build/e2e.json", "w") as f:
        json.dump({name: row for name, row, _ in results}, f, indent=1)
    rows = {name: row for name, row, _ in results if row and "t0" in row}
    if rows:
        table("seconds from T0", TERMINATION, rows)
        print()
        for name, row in rows.items():
            print("%s\n  message: %s\n  last status: %s" % (
                name.replace("_", " "), json.dumps(row["message"]), row["last_status"]))
            if "note" in row:
                print("  note: %s" % row["note"])
    seen = {name: row for name, row, _ in results if row and "note" in row and "t0" not in row}
    if seen:
        table("what was seen", SEEN, seen)
    for name, row, _ in results:
        if row and "t0" not in row and name not in seen:
            table("seconds", START, row)
    failed = sum(fault is not None for _, _, fault in results)
    print("\n%d passed, %d failed" % (len(results) - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
