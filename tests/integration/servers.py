# SPDX-License-Identifier: Apache-2.0
"""Real servers that stores are tested against, each on a free port of 127.0.0.1 until its test
ends: versitygw (S3), docker-registry, nginx, fake-gcs-server, toxiproxy. Fakes of services that
can't be had are in fakes.py."""

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import support
from support import Skip

PARTS = os.environ.get("WARM_PARTS", os.path.join(support.ROOT, "build", "parts"))
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
EMPTY = "application/vnd.oci.empty.v1+json"
NAME = "dev.warmcache.name"


def find(program):
    """Path of a server: what PARTS holds, then PATH, then /usr/sbin."""
    path = os.pathsep.join([os.path.join(PARTS, "go", "bin"), os.environ.get("PATH", ""),
                            "/usr/sbin"])
    found = shutil.which(program, path=path)
    if found is None:
        raise Skip("needs %s" % program)
    return found


def system(program):
    """Path of a client as the system installs it: a shim that comes first may be broken."""
    found = shutil.which(program, path="/usr/bin:/usr/local/bin:" + os.environ.get("PATH", ""))
    if found is None:
        raise Skip("needs %s" % program)
    return found


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def stop(process):
    if process.poll() is None:
        process.kill()
    process.wait()


def start(ctx, make_line, tries=3):
    """Run `make_line(port)` until its port answers. Returns (process, port); it ends with the
    test, and with the runner."""
    killer = [find("setpriv"), "--pdeathsig", "KILL"]
    for _ in range(tries):
        port = free_port()
        line = make_line(port)
        log = ctx.path("server-%s-%d.log" % (os.path.basename(line[0]), port))
        with open(log, "wb") as f:
            p = subprocess.Popen(killer + line, stdin=subprocess.DEVNULL, stdout=f, stderr=f)
        end = time.monotonic() + 20
        while p.poll() is None and time.monotonic() < end:
            if _answers(port):
                ctx.undo(stop, p)
                return p, port
            time.sleep(0.03)
        stop(p)
    with open(log, errors="replace") as f:
        raise AssertionError("%s doesn't start:\n%s" % (line[0], f.read()[-2000:]))


# ---- TLS ----

def _openssl(*args, data=None):
    return subprocess.run([system("openssl")] + list(args), input=data, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout


class Authority:
    """A CA of our own and a certificate of 127.0.0.1 and localhost by it."""

    def __init__(self, ctx, name="ca"):
        top = ctx.dir(name)
        self.ca, self.cert, self.key = (os.path.join(top, f) for f in ("ca.pem", "crt", "key"))
        ca_key, request, names = (os.path.join(top, f) for f in ("ca.key", "csr", "names"))
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        _openssl("req", "-x509", *new, "-keyout", ca_key, "-out", self.ca, "-days", "2",
                 "-subj", "/CN=%s of the tests" % name)
        _openssl("req", *new, "-keyout", self.key, "-out", request, "-subj", "/CN=localhost")
        with open(names, "w") as f:
            f.write("subjectAltName=DNS:localhost,DNS:*.localhost,DNS:store.test,IP:127.0.0.1\n")
        _openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-days", "2",
                 "-CAcreateserial", "-extfile", names, "-out", self.cert)

    def server_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


# ---- S3 ----

class S3:
    """versitygw: objects are plain files, `bucket_dir`/KEY, also those that others put there."""

    access, secret, region, bucket = "AKIAROOTOFTESTS", "root/secret+of+the+tests0", "us-east-1", \
        "caches"

    def __init__(self, ctx, tls=None, root_dir=None):
        self.root, self.tls = root_dir or ctx.dir("s3"), tls
        ctx.secrets.add(self.secret)
        self.bucket_dir = os.path.join(self.root, self.bucket)
        os.makedirs(self.bucket_dir, exist_ok=True)

        def line(port):
            args = ["--port", "127.0.0.1:%d" % port, "--access", self.access, "--secret",
                    self.secret, "--region", self.region, "--quiet", "--keep-alive"]
            args += ["--cert", tls.cert, "--key", tls.key] if tls else []
            return [find("versitygw")] + args + ["posix", self.root]
        self.process, self.port = start(ctx, line)
        self.endpoint = "%s://127.0.0.1:%d" % ("https" if tls else "http", self.port)

    def url(self, prefix="", **parameters):
        """The URL of a store below `prefix`; endpoint=None leaves the endpoint out."""
        parameters = {"endpoint": self.endpoint, **({"ca": self.tls.ca} if self.tls else {}),
                      **{k.replace("_", "-"): v for k, v in parameters.items()}}
        return "s3://%s%s%s" % (self.bucket, "/" + prefix if prefix else "", query(parameters))

    def keys(self):
        """Environment with the root's keys."""
        return {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}

    def aws(self, *args):
        """Run Amazon's own client."""
        env = {"PATH": "/usr/bin:/bin", "AWS_DEFAULT_REGION": self.region, "HOME": self.root,
               "AWS_EC2_METADATA_DISABLED": "true", **self.keys()}
        tls = ["--ca-bundle", self.tls.ca] if self.tls else []
        p = subprocess.run([system("aws"), "--endpoint-url", self.endpoint] + tls + list(args),
                           env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           timeout=60)
        assert p.returncode == 0, p.stderr
        return p.stdout

    def open_to_all(self):
        """Everybody may list and read the bucket."""
        arn = "arn:aws:s3:::" + self.bucket
        policy = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"],
             "Resource": [arn, arn + "/*"]}]}
        self.aws("s3api", "put-bucket-policy", "--bucket", self.bucket, "--policy",
                 json.dumps(policy))

    def uploads(self):
        """Multipart uploads that are under way."""
        text = self.aws("s3api", "list-multipart-uploads", "--bucket", self.bucket)
        return json.loads(text or "{}").get("Uploads", [])


def query(parameters):
    pairs = ["%s=%s" % (k, urllib.parse.quote(str(v), safe=":/,"))
             for k, v in parameters.items() if v is not None]
    return "?" + "&".join(pairs) if pairs else ""


# ---- OCI registry ----

class Registry:
    """docker-registry, that lets delete. `auth`: None, "htpasswd" or "token"."""

    user, password = "robot$ci", "pass:word with+odd/chars"

    def __init__(self, ctx, auth=None, tls=None, token_seconds=60):
        self.tls, self.auth, self.tokens = tls, auth, None
        ctx.secrets.update([self.password, self.basic()])
        self.dir = ctx.fresh("registry")
        config = {"version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}},
                  "storage": {"filesystem": {"rootdirectory": self.dir},
                              "delete": {"enabled": True}}}
        if auth == "htpasswd":
            file = os.path.join(self.dir, "htpasswd")
            with open(file, "wb") as f:
                f.write(subprocess.check_output([find("htpasswd"), "-Bbn", "-C", "5", self.user,
                                                 self.password]))
            config["auth"] = {"htpasswd": {"realm": "tests", "path": file}}
        if auth == "token":
            import fakes
            self.tokens = fakes.Tokens(ctx, {self.user: self.password}, token_seconds)
            config["auth"] = {"token": {"realm": self.tokens.url + "/token", "service": "tests",
                                        "issuer": "issuer of the tests",
                                        "rootcertbundle": self.tokens.cert}}

        def line(port):
            config["http"] = {"addr": "127.0.0.1:%d" % port}
            if tls:
                config["http"]["tls"] = {"certificate": tls.cert, "key": tls.key}
            file = os.path.join(self.dir, "config.json")  # JSON is YAML
            with open(file, "w") as f:
                json.dump(config, f)
            return [find("docker-registry"), "serve", file]
        self.process, self.port = start(ctx, line)
        self.host = "127.0.0.1:%d" % self.port
        self.endpoint = "%s://%s" % ("https" if tls else "http", self.host)

    def url(self, path="", **parameters):
        parameters = {**({"ca": self.tls.ca} if self.tls else {}),
                      **{k.replace("_", "-"): v for k, v in parameters.items()}}
        return "oci://%s%s%s" % (self.host, "/" + path if path else "", query(parameters))

    def basic(self):
        return base64.b64encode(("%s:%s" % (self.user, self.password)).encode()).decode()

    def config(self, directory, host=None, name="config.json"):
        """A config.json with the login in a directory."""
        with open(os.path.join(directory, name), "w") as f:
            json.dump({"auths": {host or self.host: {"auth": self.basic()}}}, f)
        return os.path.join(directory, name)

    # What follows speaks the Distribution API itself, to look into a registry without the product.

    def call(self, method, path, data=None, headers={}, ok=(200, 201, 202)):
        """Returns (status, headers, body); a status that isn't `ok` raises."""
        url = path if "://" in path else self.endpoint + path
        request = urllib.request.Request(url, data=data, method=method, headers=headers)
        if self.auth:
            request.add_header("Authorization", self._login(path))
        context = ssl.create_default_context(cafile=self.tls.ca) if self.tls else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            *([urllib.request.HTTPSHandler(context=context)] if context else []))
        try:
            with opener.open(request, timeout=20) as r:
                got = r.status, r.headers, r.read()
        except urllib.error.HTTPError as e:
            got = e.code, e.headers, e.read()
        if got[0] not in ok:
            raise AssertionError("%s %s: %d %r" % (method, url, got[0], got[2][:300]))
        return got

    def _login(self, path):
        if self.auth == "token":
            where = re.search("/v2/(.+?)/(?:blobs|manifests|tags)/", path)
            return "Bearer " + self.tokens.sign("repository:%s:pull,push,delete" % where[1] if where
                                                else "registry:catalog:*")
        return "Basic " + self.basic()

    def repositories(self):
        return json.loads(self.call("GET", "/v2/_catalog?n=1000")[2])["repositories"]

    def tags(self, repository):
        status, _, body = self.call("GET", "/v2/%s/tags/list" % repository, ok=(200, 404))
        return sorted(json.loads(body)["tags"] or []) if status == 200 else []

    def manifest(self, repository, tag):
        """(digest, manifest); (None, None) when it isn't there."""
        status, headers, body = self.call("GET", "/v2/%s/manifests/%s" % (repository, tag),
                                          headers={"Accept": MANIFEST}, ok=(200, 404))
        if status == 404:
            return None, None
        return headers["Docker-Content-Digest"], json.loads(body)

    def blob(self, repository, digest):
        return self.call("GET", "/v2/%s/blobs/%s" % (repository, digest))[2]

    def _upload(self, repository, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        where = self.call("POST", "/v2/%s/blobs/uploads/" % repository, b"")[1]["Location"]
        where += ("&" if "?" in where else "?") + "digest=" + digest
        self.call("PUT", where, data, {"Content-Type": "application/octet-stream"})
        return digest

    def push(self, repository, tag, data, annotations):
        """Put one artifact as the product does."""
        layer, config = self._upload(repository, data), self._upload(repository, b"{}")
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST,
                    "config": {"mediaType": EMPTY, "digest": config, "size": 2},
                    "layers": [{"mediaType": LAYER, "digest": layer, "size": len(data)}],
                    "annotations": annotations}
        self.call("PUT", "/v2/%s/manifests/%s" % (repository, tag), json.dumps(manifest).encode(),
                  {"Content-Type": MANIFEST})

    def delete(self, repository, tag):
        digest, _ = self.manifest(repository, tag)
        if digest:
            self.call("DELETE", "/v2/%s/manifests/%s" % (repository, digest), ok=(202, 404))

    def layers(self, below=""):
        """{object name: (repository, tag, manifest)} of all repositories below a path."""
        found = {}
        for repository in self.repositories():
            if not (repository + "/").startswith(below + "/" if below else ""):
                continue
            for tag in self.tags(repository):
                manifest = self.manifest(repository, tag)[1]
                if manifest:
                    name = manifest.get("annotations", {}).get(NAME, "?" + tag)
                    found[name] = (repository, tag, manifest)
        return found


# ---- web server ----

class Nginx:
    """nginx over a directory. `more` goes into its location, e.g. "max_ranges 0;"."""

    def __init__(self, ctx, top, ranges=True, tls=None, more="", log=False):
        self.tls = tls
        where = ctx.fresh("nginx")
        self.access_log = os.path.join(where, "access.log")

        def line(port):
            listen = "127.0.0.1:%d%s" % (port, " ssl" if tls else "")
            if tls:
                more_tls = "ssl_certificate %s; ssl_certificate_key %s;" % (tls.cert, tls.key)
            temp = "".join("%s_temp_path %s;\n" % (k, os.path.join(where, k)) for k in (
                "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            with open(os.path.join(where, "conf"), "w") as f:
                f.write("daemon off; master_process off; user root; pid %s/pid;\n"
                        "error_log stderr error;\nevents { worker_connections 128; }\n"
                        "http {\naccess_log %s;\n%s"
                        "server { listen %s; %s\nlocation / { root %s; %s %s }\n}\n}\n" % (
                            where, self.access_log if log else "off", temp, listen,
                            more_tls if tls else "", top, "" if ranges else "max_ranges 0;", more))
            return [find("nginx"), "-p", where, "-c", os.path.join(where, "conf")]
        self.process, self.port = start(ctx, line)
        self.endpoint = "%s://127.0.0.1:%d" % ("https" if tls else "http", self.port)

    def url(self, path="", **parameters):
        parameters = {**({"ca": self.tls.ca} if self.tls else {}),
                      **{k.replace("_", "-"): v for k, v in parameters.items()}}
        return self.endpoint + ("/" + path if path else "") + query(parameters)


# ---- Google Cloud Storage ----

class Gcs:
    """fake-gcs-server with a bucket. It knows no XML PUT but a signed one: fakes.GcsFront in
    front of it turns the one into the other."""

    bucket = "caches"

    def __init__(self, ctx):
        self.root = ctx.fresh("gcs")

        def line(port):
            host = "127.0.0.1:%d" % port
            return [find("fake-gcs-server"), "-scheme", "http", "-host", "127.0.0.1", "-port",
                    str(port), "-backend", "filesystem", "-filesystem-root", self.root,
                    "-public-host", host, "-external-url", "http://" + host, "-log-level", "error"]
        self.process, self.port = start(ctx, line)
        self.endpoint = "http://127.0.0.1:%d" % self.port
        post(self.endpoint + "/storage/v1/b", {"name": self.bucket})


def post(url, document=None, method="POST"):
    """One JSON document there, and what comes back."""
    request = urllib.request.Request(url, method=method,
                                     headers={"Content-Type": "application/json"},
                                     data=json.dumps(document).encode() if document else None)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as r:
        body = r.read()
    return json.loads(body) if body.strip() else None


# ---- a bad network ----

class Toxiproxy:
    """A proxy of TCP in front of `upstream` ("host:port"), and what goes wrong in it."""

    def __init__(self, ctx, upstream):
        _, port = start(ctx, lambda p: [find("server"), "-host", "127.0.0.1", "-port", str(p)])
        self._api = "http://127.0.0.1:%d/proxies" % port
        made = post(self._api, {"name": "p", "listen": "127.0.0.1:0", "upstream": upstream,
                                "enabled": True})
        self.host = made["listen"]
        self.endpoint = "http://" + self.host

    def add(self, kind, stream="downstream", toxicity=1.0, **attributes):
        """latency(latency, jitter) bandwidth(rate KB/s) slow_close(delay) timeout(timeout)
        reset_peer(timeout) limit_data(bytes); times in ms."""
        post(self._api + "/p/toxics", {"name": kind, "type": kind, "stream": stream,
                                       "toxicity": toxicity, "attributes": attributes})

    def remove(self, kind):
        post(self._api + "/p/toxics/" + kind, method="DELETE")

    def enable(self, on=True):
        """Without it connections are refused, and those that are open are cut."""
        post(self._api + "/p", {"enabled": on})
