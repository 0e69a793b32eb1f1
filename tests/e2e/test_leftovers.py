#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/e2e/cluster leaves nothing behind: what the machine shows before `up` and after `down` is
the same, after a good run, when half of it was killed, all of it, or `up`, and when `up` failed.

Other programs of the machine come and go meanwhile. So of processes those count that run or mention
what is the cluster's, or live in a namespace that wasn't there before; of the rest everything."""

import glob
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CLUSTER = HERE + "/cluster"
PARTS = os.path.realpath(os.environ.get("WARM_PARTS", "build/parts")) + "/k8s"
NAMES = ("mnt", "net", "pid", "ipc", "uts", "cgroup")
# Change by themselves.
RESTLESS = ("/proc/sys/fs/", "/proc/sys/kernel/random/", "/proc/sys/kernel/ns_last_pid",
            "/proc/sys/kernel/pty/nr", "/proc/sys/net/netfilter/nf_conntrack_count",
            "/proc/sys/kernel/perf_event_max_sample_rate")
PLACES = ("/run", "/var/log", "/var/lib", "/etc", "/opt", "/mnt")
OURS = ("containerd", "kube", "cni", "runc", "netns", "e2e", "etcd")


def text(*command):
    return subprocess.check_output(command, text=True).splitlines()


def links(pid):
    for name in NAMES:
        try:
            yield os.readlink("/proc/%s/ns/%s" % (pid, name))
        except OSError:
            return


def namespaces():
    return {link for pid in os.listdir("/proc") if pid.isdigit() for link in links(pid)}


def processes(known):
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            exe = os.readlink("/proc/%s/exe" % pid)
            with open("/proc/%s/cmdline" % pid) as f:
                line = f.read().replace("\0", " ")
        except OSError:
            continue
        foreign = [link for link in links(pid) if link not in known]
        if foreign or exe.startswith(PARTS) or PARTS in line or CLUSTER + " " in line:
            found.add("%s %s %s" % (pid, line[:100], foreign))
    return found


def sysctls():
    values = set()
    for top, _, files in os.walk("/proc/sys"):
        for file in files:
            path = os.path.join(top, file)
            if path.startswith(RESTLESS):
                continue
            try:
                with open(path) as f:
                    values.add("%s=%s" % (path, f.read().strip()))
            except (OSError, UnicodeDecodeError):
                pass
    return values


def snapshot(known):
    return {
        "processes": processes(known),
        "namespaces": namespaces() - known,
        "named namespaces": set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set(),
        "mounts": set(open("/proc/self/mountinfo")),
        "links": {line.split(": ", 2)[1] for line in text("ip", "-o", "link")},
        "addresses": set(" ".join(line.split()[1:4]) for line in text("ip", "-o", "address")),
        "rules": {line for line in text("iptables-save") if not line.startswith("#")},
        "sysctls": sysctls(),
        "cgroups": {top for top, _, _ in os.walk("/sys/fs/cgroup")},
        "files": {path for place in PLACES for depth in ("/*", "/*/*")
                  for path in glob.glob(place + depth)
                  if any(name in os.path.basename(path) for name in OURS)},
        "state": set(glob.glob(PARTS + "/run*")),
    }


def compare(before, after):
    faults = []
    for what in before:
        faults += ["%s: new: %s" % (what, x) for x in sorted(after[what] - before[what])]
        if what not in ("processes", "namespaces"):
            faults += ["%s: gone: %s" % (what, x) for x in sorted(before[what] - after[what])]
    return faults


def cluster(command, check=True):
    return subprocess.run([CLUSTER, command], check=check, stdout=subprocess.DEVNULL,
                          stderr=None if check else subprocess.DEVNULL).returncode


def running():
    """[(pid, program)] of the cluster."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            exe = os.readlink("/proc/%s/exe" % pid)
        except OSError:
            continue
        if exe.startswith(PARTS + "/bin/"):
            found.append((int(pid), os.path.basename(exe)))
    return sorted(found)


def with_a_pod():
    """A cluster in which a container runs, so that there are shims, veths and cgroups."""
    cluster("up")
    code = ("import sys; sys.path.insert(0, %r); import kube; kube.Pod({'apiVersion': 'v1', "
            "'kind': 'Pod', 'metadata': {'name': 'left'}, 'spec': {'containers': [{'name': 'c', "
            "'image': 'e2e.local/model:1', 'imagePullPolicy': 'Never', 'command': ['/bin/sleep', "
            "'1000']}]}}).wait_ready()" % HERE)
    subprocess.run([CLUSTER, "run", "python3", "-c", code], check=True)
    names = {name for _, name in running()}
    assert {"etcd", "kubelet", "containerd", "containerd-shim-runc-v2"} <= names, names
    assert glob.glob("/sys/fs/cgroup/*/warmcache-e2e-*"), "no cgroup of the cluster was seen"


def after_a_run():
    with_a_pod()


def half_of_it_killed():
    with_a_pod()
    for pid, name in running():
        if name in ("etcd", "kubelet", "containerd"):
            os.kill(pid, signal.SIGKILL)


def shims_and_api_killed():
    with_a_pod()
    for pid, name in running():
        if name in ("containerd-shim-runc-v2", "kube-apiserver", "kube-scheduler"):
            os.kill(pid, signal.SIGKILL)


def its_first_process_killed():
    with_a_pod()
    os.kill(next(pid for pid, name in running() if name == "holder"), signal.SIGKILL)


def up_killed():
    up = subprocess.Popen([CLUSTER, "up"], stdout=subprocess.PIPE, start_new_session=True)
    for line in up.stdout:
        if b"containerd" in line:
            break
    os.killpg(up.pid, signal.SIGKILL)
    up.wait()
    assert running(), "nothing was up yet"


def up_that_failed():
    """An image that isn't one: by then etcd, the API server and containerd run."""
    broken = PARTS + "/images/zz-broken.tar"
    shutil.copy(__file__, broken)
    try:
        assert cluster("up", check=False) != 0, "a broken image was imported"
    finally:
        os.unlink(broken)
    assert not running(), "a failed up left %s" % running()


def main():
    cluster("down")
    failed = 0
    for test in (up_that_failed, up_killed, after_a_run, half_of_it_killed, shims_and_api_killed,
                 its_first_process_killed):
        known = namespaces()
        before, began = snapshot(known), time.time()
        test()
        ended = time.time()
        cluster("down")
        took = time.time() - ended
        faults = compare(before, snapshot(known))
        failed += bool(faults)
        print("%s leftovers: %s (%.0f s, down %.1f s)" % (
            "FAIL" if faults else "ok  ", test.__name__.replace("_", " "), ended - began, took),
            *faults, sep="\n     ", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
