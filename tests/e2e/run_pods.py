#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the tests that need a cluster: tests/e2e/cluster run python3 tests/e2e/run_pods.py [NAME...]

A test is a function of test_termination.py, test_manifests.py or test_start.py whose name doesn't
begin with '_'. It gets a Case and returns what it saw: shown as tables, and as JSON in
build/e2e.json."""

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
import test_manifests  # noqa: E402
import test_start  # noqa: E402
import test_termination  # noqa: E402

WORKERS = 5  # they wait, most of the time
TERMINATION = ["at_t0", "written", "whole", "draining", "model_end", "sigterm", "end", "exit"]
START = ["ready", "adds", "spread", "before", "init", "api", "own", "status"]


def collect(module, names):
    return [(name, fn) for name, fn in vars(module).items()
            if callable(fn) and not name.startswith("_") and fn.__module__ == module.__name__ and
            (not names or any(n in name for n in names))]


def run(test):
    name, fn = test
    case, began = pods.Case(name), time.time()
    try:
        row, fault = fn(case), None
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
    for pod in case.pods:
        if not pod.over:
            try:
                pod.delete(0)
            except kube.ApiError:
                pass
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
        with ThreadPoolExecutor(WORKERS) as pool:
            results += pool.map(run, collect(test_termination, names))
            results += pool.map(run, collect(test_manifests, names))
        results += map(run, collect(test_start, names))
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
    for name, row, _ in results:
        if row and "t0" not in row:
            table("seconds", START, row)
    failed = sum(fault is not None for _, _, fault in results)
    print("\n%d passed, %d failed" % (len(results) - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
