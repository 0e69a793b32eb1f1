# SPDX-License-Identifier: Apache-2.0
"""Real stores at the node's address, where pods reach them: versitygw (S3) and docker-registry.
Each is started by the first test that asks, and ends with the tests."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time

import kube
from pods import Skip

HOST = kube.ADDRESS[0]
ACCESS, SECRET = "AKIAROOTOFTESTS", "root/secret+of+the+tests0"
_lock = threading.Lock()
_started = {}


def _server(port, make_line):
    with _lock:
        if port in _started:
            return
        work = os.path.join(kube.INSIDE, "work", "port-%d" % port)
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)
        line = make_line(work)
        path = os.path.join(os.environ.get("WARM_PARTS", "build/parts"), "go/bin")
        program = shutil.which(line[0], path=path + ":/usr/bin:/usr/sbin")
        if program is None:
            raise Skip("needs %s" % line[0])
        with open(work + "/log", "wb") as log:
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", program, *line[1:]],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.time() + 20
        while True:
            try:
                socket.create_connection((HOST, port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.time() < end, open(work + "/log").read()
                time.sleep(0.05)
        _started[port] = work


class S3:
    """A bucket of its own for each test."""

    def __init__(self, case, port=7070):
        _server(port, lambda work: [
            "versitygw", "--port", "%s:%d" % (HOST, port), "--access", ACCESS, "--secret", SECRET,
            "--region", "us-east-1", "--quiet", "--keep-alive", "posix", _made(work + "/s3")])
        self.bucket, self.address = case.name[:63], (HOST, port)
        self.directory = _made(os.path.join(_started[port], "s3", self.bucket))
        self.url = "s3://%s?endpoint=http://%s:%d" % (self.bucket, HOST, port)

    @staticmethod
    def keys(secret=SECRET):
        return {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": secret,
                "AWS_REGION": "us-east-1"}


class Registry:
    def __init__(self, case, port=5000):
        def line(work):
            with open(work + "/config.json", "w") as f:  # JSON is YAML
                json.dump({"version": 0.1, "log": {"level": "error", "accesslog": {
                    "disabled": True}}, "http": {"addr": "%s:%d" % (HOST, port)},
                    "storage": {"filesystem": {"rootdirectory": work}}}, f)
            return ["docker-registry", "serve", work + "/config.json"]
        _server(port, line)
        self.url = "oci://%s:%d/%s?plain-http=true" % (HOST, port, case.name)


class Silent:
    """Connections are taken, and nothing is ever answered, until close()."""

    def __init__(self):
        self.socket = socket.create_server((HOST, 0), backlog=64)
        self.url = "s3://caches?endpoint=http://%s:%d" % self.socket.getsockname()

    def close(self):
        self.socket.close()


def _made(directory):
    os.makedirs(directory, exist_ok=True)
    return directory
