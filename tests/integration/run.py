#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the integration tests: python3 tests/integration/run.py [--bin DIR] [--quick] [NAME...]

A test is a function of a test_*.py beside this file whose name doesn't begin with '_'. NAME
chooses those whose "file.function" holds it. Ends with "N passed, N failed".

--store s3|s3-tls|oci|http runs the suites that know directories alone against another kind of
store; see kinds.py."""

import argparse
import importlib
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import kinds  # noqa: E402
import support  # noqa: E402

WORKERS = 4  # most of the time is waiting


def collect(names):
    tests = []
    for file in sorted(os.listdir(HERE)):
        if not (file.startswith("test_") and file.endswith(".py")):
            continue
        module = importlib.import_module(file[:-3])
        for name, fn in list(vars(module).items()):
            full = "%s.%s" % (file[5:-3], name)
            if (callable(fn) and not name.startswith("_") and
                    getattr(fn, "__module__", None) == module.__name__ and
                    (not names or any(n in full for n in names))):
                tests.append((full, fn))
    return tests


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default="build/bin")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=WORKERS)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--store", choices=sorted(kinds.KINDS))
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    tests = collect(args.names or (kinds.SUITES if args.store else []))
    if args.list:
        print("\n".join(name for name, _ in tests))
        return 0
    if not args.store:
        return run_all(tests, args)
    server = support.Context(args.bin, args.quick, "server")
    try:
        support.Context.kind = kinds.KINDS[args.store](server)
        return run_all(tests, args)
    finally:
        server.end()


def run_all(tests, args):
    passed, failed, skipped = [], [], []
    lock = threading.Lock()

    def run(test):
        name, fn = test
        start = time.monotonic()
        context = support.Context(args.bin, args.quick, fn.__name__)
        word, note, into = "ok", "", passed
        why_not = context.kind.why_not(name) if context.kind else None
        try:
            try:
                if why_not:
                    raise support.Skip(why_not)
                fn(context)
                context.check_secrets()
            finally:
                context.end()
        except support.Skip as e:
            word, note, into = "skip", " (%s)" % e, skipped
        except BaseException as e:
            note = "\n    " + "".join(traceback.format_exception(e)).strip().replace("\n", "\n    ")
            word, into = "FAIL", failed
        with lock:
            into.append(name)
            print("%-4s %5.1fs %s%s" % (word, time.monotonic() - start, name.replace("_", " "),
                                        note), flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(run, [t for t in tests if not getattr(t[1], "alone", False)]))
    for test in tests:
        if getattr(test[1], "alone", False):
            run(test)
    print("%d passed, %d failed%s" % (len(passed), len(failed),
                                      ", %d skipped" % len(skipped) if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
