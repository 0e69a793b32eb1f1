# SPDX-License-Identifier: Apache-2.0
"""Fakes of services that can't be had here (STS, metadata services, ECR, a registry's token
server), and fronts: proxies before a real server that record requests and misbehave on demand."""

import base64
import copy
import datetime
import hashlib
import hmac
import http.client
import http.server
import json
import os
import secrets
import threading
import time
import urllib.parse

import servers

FOREVER = 10 ** 9


class Request:
    def __init__(self, handler):
        self.method, self.target = handler.command, handler.path
        self.path, _, self.query_string = self.target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(self.query_string, keep_blank_values=True))
        self.headers = {k.lower(): v for k, v in handler.headers.items()}
        self.body = handler.rfile.read(int(self.headers.get("content-length", 0)))
        self.start, self.end, self.status = time.monotonic(), None, None
        self.peer = handler.client_address

    def match(self, method, path, query):
        """Of this method, if it isn't None; its path holds `path`; its query has these names (with
        _ for -) with these values, or whatever where it is True."""
        return method in (None, self.method) and path in self.path and all(
            v is True and k in self.query or v == self.query.get(k)
            for k, v in ((k.replace("_", "-"), v) for k, v in query.items()))

    def __repr__(self):
        return "%s %s %s -> %s" % (self.method, self.target, self.headers.get("range", ""),
                                   self.status)


class Reply:
    """What is answered. `length` overrides Content-Length; of the body the first `only` bytes are
    sent, and then the connection is closed, or left hanging with `hang`."""

    def __init__(self, status, headers=(), body=b"", length=None, only=None, hang=False):
        self.status, self.headers = status, list(dict(headers).items())
        self.body = body.encode() if isinstance(body, str) else body
        self.length, self.only, self.hang = length, only, hang


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self):
        fake = self.server.fake
        request = Request(self)
        with fake.lock:
            fake.requests.append(request)
        reply = fake.handle(request)
        if reply is None:
            self.close_connection = True
            return
        request.status = reply.status
        self.send_response_only(reply.status)
        length = len(reply.body) if reply.length is None else reply.length
        names = {k.lower() for k, _ in reply.headers}
        for k, v in reply.headers:
            if k.lower() not in ("content-length", "connection", "transfer-encoding") or \
                    (self.command == "HEAD" and k.lower() == "content-length"):
                self.send_header(k, v)
        if self.command != "HEAD" or "content-length" not in names:
            self.send_header("Content-Length", str(length))
        if "date" not in names:
            self.send_header("Date", self.date_time_string())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body if reply.only is None else reply.body[:reply.only])
            self.wfile.flush()
        request.end = time.monotonic()
        if reply.hang:
            fake.ended.wait()
        if reply.hang or reply.only is not None or length != len(reply.body):
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_CONNECT = _serve

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # the client left

    def log_message(self, *args):
        pass


class Fake:
    """An HTTP server: handle(request) -> Reply, or None to close the connection."""

    def __init__(self, ctx, tls=None, after=0, port=0, address="127.0.0.1"):
        self.address = address
        self.requests, self.lock, self.ended = [], threading.Lock(), threading.Event()
        self._tls, self._server = tls, None
        self.port = port or (servers.free_port() if after else 0)
        self._timer = threading.Timer(after, self._listen)  # until then connections are refused
        self._timer.daemon = True
        ctx.undo(self.stop)
        if after:
            self._timer.start()
        else:
            self._listen()
        self.host = "%s:%d" % (address, self.port)
        self.url = "%s://%s" % ("https" if tls else "http", self.host)

    def _listen(self):
        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 64
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *args):
                pass
        self._server = Server((self.address, self.port), _Handler)
        self.port = self._server.server_port
        self._server.fake = self
        if self._tls:
            self._server.socket = self._tls.server_context().wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self._timer.cancel()
        self.ended.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def handle(self, request):
        raise NotImplementedError

    def seen(self, method=None, path="", **query):
        """Requests that match(): of a method, a path, names in the query."""
        with self.lock:
            return [r for r in self.requests if r.match(method, path, query)]

    def forget(self):
        with self.lock:
            self.requests.clear()


def depth(requests):
    """How many requests came one after another: each began after the one before had its answer."""
    deep = []
    for r in sorted(requests, key=lambda r: r.start):
        deep.append((1 + max([d for d, end in deep if end and end <= r.start], default=0), r.end))
    return max([d for d, _ in deep], default=0)


# ---- fronts ----

class Front(Fake):
    """Hands all requests to `upstream` (a URL), but for those that a rule takes."""

    def __init__(self, ctx, upstream, latency=0, **kw):
        self.upstream, self.latency, self._rules = urllib.parse.urlsplit(upstream), latency, []
        super().__init__(ctx, **kw)

    def when(self, act, method=None, path="", times=FOREVER, skip=0, **query):
        """For `times` requests that match(), after `skip`: reply with act(request, forward)."""
        with self.lock:
            self._rules.append({"act": act, "match": (method, path, query), "times": times,
                                "skip": skip})

    def clear(self):
        with self.lock:
            self._rules.clear()

    def _rule(self, r):
        with self.lock:
            for rule in self._rules:
                if not r.match(*rule["match"]):
                    continue
                if rule["skip"] > 0:
                    rule["skip"] -= 1
                elif rule["times"] > 0:
                    rule["times"] -= 1
                    return rule["act"]
        return None

    def handle(self, request):
        if self.latency:
            time.sleep(self.latency)
        act = self._rule(request)
        return act(request, lambda: self.forward(request)) if act else self.forward(request)

    def forward(self, request, target=None, headers=None):
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port,
                                                timeout=60)
        headers = dict(request.headers if headers is None else headers)
        headers.pop("expect", None)
        headers.pop("connection", None)
        try:
            target = target or request.target
            if "://" in target:  # asked as a proxy
                target = "/" + target.split("/", 3)[3]
            connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            for k, v in headers.items():
                connection.putheader(k, v)
            connection.endheaders(request.body or None)
            r = connection.getresponse()
            return Reply(r.status, r.getheaders(), r.read())
        finally:
            connection.close()


# What a rule does. Each returns act(request, forward).

def answer(status, headers=(), body=b""):
    return lambda r, forward: Reply(status, headers, body)


def s3_error(status, code, message="no", headers=(), extra=""):
    body = ('<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s</Message>'
            '%s<RequestId>1</RequestId></Error>' % (code, message, extra))
    return answer(status, {"Content-Type": "application/xml", **dict(headers)}, body)


def redirect(url, status=307, keep_path=True):
    return lambda r, forward: Reply(status, {"Location": url + (r.target if keep_path else "")})


def whole_instead_of_range(r, forward):
    r.headers.pop("range", None)
    return forward()


def wrong_range(r, forward):
    """206 of other bytes than were asked for, and it says so."""
    reply = forward()
    reply.headers = [(k, "bytes 1-%d/%d" % (len(reply.body), 10 ** 6))
                     if k.lower() == "content-range" else (k, v) for k, v in reply.headers]
    return reply


def other_bytes(r, forward):
    reply = forward()
    reply.body = bytes(b ^ 0x55 for b in reply.body)
    return reply


def longer_than_it_is(r, forward):
    reply = forward()
    reply.length = len(reply.body) + 1000
    return reply


def shorter_than_it_is(r, forward):
    reply = forward()
    reply.body = reply.body[:len(reply.body) // 2]
    return reply


def cut(part=0.5):
    """The connection ends in the middle of the body."""
    def act(r, forward):
        reply = forward()
        reply.only = int(len(reply.body) * part)
        return reply
    return act


def stall(part=0.5):
    """Nothing more comes after the middle of the body."""
    def act(r, forward):
        reply = cut(part)(r, forward)
        reply.hang = True
        return reply
    return act


def hang(fake):
    """The request gets no answer at all."""
    return lambda r, forward: fake.ended.wait() and None


def close(r, forward):
    return None


# ---- signatures, verified and made a second time ----

def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(secret, request, date, scope, signed, headers):
    """SigV4 by its specification; path and query are taken as they were sent."""
    pairs = sorted(tuple((p + "=").split("=", 1)) for p in request.query_string.split("&") if p)
    canonical = "\n".join([
        request.method, request.path, "&".join("%s=%s" % (k, v.rstrip("=")) for k, v in pairs),
        "".join("%s:%s\n" % (k, " ".join(headers.get(k, "").split())) for k in signed),
        ";".join(signed),
        headers.get("x-amz-content-sha256") or hashlib.sha256(request.body).hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope,
                      hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    return _hmac(key, text).hex()


def parse_authorization(request):
    """(access, scope, signed headers, signature), or None."""
    text = request.headers.get("authorization", "")
    if not text.startswith("AWS4-HMAC-SHA256 "):
        return None
    fields = dict(f.strip().split("=", 1) for f in text.split(" ", 1)[1].split(","))
    access, scope = fields["Credential"].split("/", 1)
    return access, scope, fields["SignedHeaders"].split(";"), fields["Signature"]


def _iso(when, form="%Y-%m-%dT%H:%M:%SZ"):
    return datetime.datetime.fromtimestamp(when, datetime.timezone.utc).strftime(form)


class Issuer:
    """Hands out keys that are good for a while, and knows which are."""

    def __init__(self, ctx, seconds=3600):
        self.seconds, self.keys = seconds, {}  # access: (secret, token, expires)
        self._secrets = ctx.secrets

    def add(self, access, secret, token=None, seconds=FOREVER):
        self.keys[access] = secret, token, time.time() + seconds
        self._secrets.update(s for s in (secret, token) if s)

    def new(self, kind="ASIA"):
        access = kind + secrets.token_hex(8).upper()
        self.add(access, "secret/" + secrets.token_hex(16),
                 "token+/" + secrets.token_hex(30) + "==", self.seconds)
        return (access,) + self.keys[access]

    def check(self, request, service):
        """None, or the error that S3 would give: (status, code, message)."""
        given = parse_authorization(request)
        if given is None:
            return 403, "AccessDenied", "Access Denied"
        access, scope, signed, signed_as = given
        if access not in self.keys:
            return 403, "InvalidAccessKeyId", "The key Id you provided does not exist"
        secret, token, expires = self.keys[access]
        if request.headers.get("x-amz-security-token") != token:
            return 400, "InvalidToken", "The provided token is malformed or otherwise invalid."
        if time.time() > expires:
            return 400, "ExpiredToken", "The provided token has expired."
        must = ["host", "x-amz-date"] + (["x-amz-security-token"] if token else [])
        if not set(must) <= set(signed) or scope.split("/")[2:] != [service, "aws4_request"]:
            return 403, "AuthorizationHeaderMalformed", "signed: %s, scope: %s" % (signed, scope)
        if signature(secret, request, request.headers["x-amz-date"], scope, signed,
                     request.headers) != signed_as:
            return 403, "SignatureDoesNotMatch", "The signature does not match"
        return None


class S3Front(Front):
    """Checks signatures itself, against what an issuer gave out, then signs for the server behind
    with its root's keys. Has a region and a clock of its own."""

    def __init__(self, ctx, s3, issuer, region=None, clock=0, public=False, **kw):
        self.s3, self.issuer, self.region, self.clock = s3, issuer, region, clock
        self.public = public
        super().__init__(ctx, s3.endpoint, **kw)

    def date(self):
        return _iso(time.time() + self.clock, "%a, %d %b %Y %H:%M:%S GMT")

    def refusal(self, request):
        given = parse_authorization(request)
        if given is None and self.public:
            return None
        if given and self.region and given[1].split("/")[1] != self.region:
            text = "The authorization header is malformed; the region '%s' is wrong; expecting " \
                "'%s'" % (given[1].split("/")[1], self.region)
            return s3_error(400, "AuthorizationHeaderMalformed", text, {
                "x-amz-bucket-region": self.region}, "<Region>%s</Region>" % self.region)
        if given and "x-amz-date" in request.headers:
            when = datetime.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
            when = when.replace(tzinfo=datetime.timezone.utc).timestamp()
            if abs(when - time.time() - self.clock) > 900:
                return s3_error(403, "RequestTimeTooSkewed", "The difference between the request "
                                "time and the current time is too large.")
        wrong = self.issuer.check(request, "s3")
        return s3_error(*wrong) if wrong else None

    def forward(self, request, target=None, headers=None):
        refusal = self.refusal(request)
        reply = refusal(request, None) if refusal else self.signed(request)
        reply.headers = [h for h in reply.headers if h[0].lower() != "date"]
        reply.headers.append(("Date", self.date()))
        return reply

    def signed(self, request):
        headers = {k: v for k, v in request.headers.items()
                   if k not in ("authorization", "x-amz-security-token", "x-amz-date")}
        bucket, dot, _ = headers["host"].partition(".localhost")
        if dot:  # the bucket's name stands in the host
            request = copy.copy(request)
            request.path = "/%s%s" % (bucket, request.path)
            request.target = "/%s%s" % (bucket, request.target)
        date = _iso(time.time(), "%Y%m%dT%H%M%SZ")
        scope = "%s/%s/s3/aws4_request" % (date[:8], self.s3.region)
        headers["x-amz-date"] = date
        headers.setdefault("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        signed = sorted(k for k in headers if k == "host" or k.startswith("x-amz-"))
        headers["authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, " \
            "Signature=%s" % (self.s3.access, scope, ";".join(signed),
                              signature(self.s3.secret, request, date, scope, signed, headers))
        return super().forward(request, headers=headers)


# ---- where credentials come from ----

class Sts(Fake):
    """AssumeRoleWithWebIdentity for whoever brings a token of `tokens`."""

    def __init__(self, ctx, issuer, tokens, **kw):
        self.issuer, self.tokens = issuer, tokens
        super().__init__(ctx, **kw)

    def handle(self, request):
        form = {**request.query, **dict(urllib.parse.parse_qsl(request.body.decode()))}
        space = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
        if form.get("Action") != "AssumeRoleWithWebIdentity" or \
                form.get("Version") != "2011-06-15" or \
                not form.get("RoleSessionName") or not form.get("RoleArn", "").startswith("arn:"):
            return Reply(400, {}, "<ErrorResponse %s><Error><Code>ValidationError</Code><Message>"
                         "%s</Message></Error></ErrorResponse>" % (space, sorted(form)))
        if form.get("WebIdentityToken") not in self.tokens:
            return Reply(400, {}, "<ErrorResponse %s><Error><Type>Sender</Type><Code>"
                         "InvalidIdentityToken</Code><Message>No OpenIDConnect provider found"
                         "</Message></Error></ErrorResponse>" % space)
        access, secret, token, expires = self.issuer.new()
        return Reply(200, {"Content-Type": "text/xml"}, (
            "<AssumeRoleWithWebIdentityResponse %s><AssumeRoleWithWebIdentityResult>"
            "<SubjectFromWebIdentityToken>x</SubjectFromWebIdentityToken><Credentials>"
            "<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s"
            "</SessionToken><Expiration>%s</Expiration></Credentials>"
            "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>") % (
                space, access, secret, token, _iso(expires)))


def _credentials(issuer, **more):
    access, secret, token, expires = issuer.new()
    return Reply(200, {"Content-Type": "application/json"}, json.dumps({
        "AccessKeyId": access, "SecretAccessKey": secret, "Token": token,
        "Expiration": _iso(expires), **more}))


class Container(Fake):
    """The endpoint of EKS Pod Identity and ECS; the token is compared with a file's."""

    def __init__(self, ctx, issuer, token_file, **kw):
        self.issuer, self.token_file = issuer, token_file
        super().__init__(ctx, **kw)

    def handle(self, request):
        with open(self.token_file) as f:
            if request.headers.get("authorization") != f.read().strip():
                return Reply(401, {}, '{"code":"AccessDenied"}')
        return _credentials(self.issuer)


class Imds(Fake):
    """The instance's metadata service, version 2 alone."""

    role = "role-of-the-node"

    def __init__(self, ctx, issuer, **kw):
        self.issuer, self.token = issuer, secrets.token_hex(16)
        super().__init__(ctx, **kw)

    def handle(self, request):
        below = "/latest/meta-data/iam/security-credentials/"
        if request.path == "/latest/api/token":
            if request.method != "PUT" or \
                    "x-aws-ec2-metadata-token-ttl-seconds" not in request.headers:
                return Reply(400)
            return Reply(200, {"x-aws-ec2-metadata-token-ttl-seconds": "21600"}, self.token)
        if request.headers.get("x-aws-ec2-metadata-token") != self.token:
            return Reply(401)
        if request.path == below:
            return Reply(200, {"Content-Type": "text/plain"}, self.role)
        if request.path == below + self.role:
            return _credentials(self.issuer, Code="Success", Type="AWS-HMAC")
        return Reply(404)


class Gce(Fake):
    """The metadata server of Google's nodes. `after` s it refuses connections."""

    def __init__(self, ctx, seconds=3600, **kw):
        self.seconds, self.tokens, self._secrets = seconds, {}, ctx.secrets
        super().__init__(ctx, **kw)

    def handle(self, request):
        if request.headers.get("metadata-flavor") != "Google":
            return Reply(403, {}, "Missing Metadata-Flavor:Google header.")
        if not request.path.startswith(
                "/computeMetadata/v1/instance/service-accounts/default/token"):
            return Reply(404, {"Metadata-Flavor": "Google"})
        token = "ya29." + secrets.token_urlsafe(40)
        self.tokens[token] = time.time() + self.seconds
        self._secrets.add(token)
        return Reply(200, {"Metadata-Flavor": "Google", "Content-Type": "application/json"},
                     json.dumps({"access_token": token, "expires_in": self.seconds,
                                 "token_type": "Bearer"}))

    def knows(self, authorization):
        kind, _, token = (authorization or "").partition(" ")
        return kind == "Bearer" and self.tokens.get(token, 0) > time.time()


class GcsFront(Front):
    """Google's XML API before fake-gcs-server: checks the metadata server's tokens, and has puts
    done as if they were signed by URL."""

    def __init__(self, ctx, gcs, metadata, **kw):
        self.metadata = metadata
        super().__init__(ctx, gcs.endpoint, **kw)

    def forward(self, request, target=None, headers=None):
        if self.metadata and not self.metadata.knows(request.headers.get("authorization")):
            return s3_error(401, "AuthenticationRequired")(request, None)
        if request.method == "PUT":
            target = request.target + ("&" if request.query_string else "?") + "X-Goog-Algorithm=x"
        # It tells the XML API by the host.
        return super().forward(request, target, {**request.headers, "host": self.upstream.netloc})


class Ecr(Fake):
    """GetAuthorizationToken: a login at a registry, for who signs with an issuer's keys."""

    def __init__(self, ctx, issuer, user, password, seconds=43200, **kw):
        self.issuer, self.user, self.password, self.seconds = issuer, user, password, seconds
        super().__init__(ctx, **kw)

    def handle(self, request):
        if request.method != "POST" or request.headers.get("x-amz-target") != \
                "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken":
            return Reply(400, {}, '{"__type":"UnknownOperationException"}')
        wrong = self.issuer.check(request, "ecr")
        if wrong:
            return Reply(wrong[0], {}, json.dumps({"__type": wrong[1], "message": wrong[2]}))
        token = base64.b64encode(("%s:%s" % (self.user, self.password)).encode()).decode()
        return Reply(200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps({
            "authorizationData": [{"authorizationToken": token,
                                   "expiresAt": time.time() + self.seconds,
                                   "proxyEndpoint": "https://registry.example"}]}))


class Tokens(Fake):
    """A registry's token server, as the Distribution specification has it. Signs by openssl."""

    def __init__(self, ctx, users, seconds=60, **kw):
        self.users, self.seconds, self._secrets = users, seconds, ctx.secrets
        top = ctx.fresh("tokens")
        self.cert, self._key = os.path.join(top, "crt"), os.path.join(top, "key")
        servers._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self._key,
                         "-out", self.cert, "-days", "2", "-subj", "/CN=tokens")
        with open(self.cert) as f:
            self._chain = ["".join(f.read().split("-----")[2].split())]
        super().__init__(ctx, **kw)

    def sign(self, *scopes):
        """A token that allows scopes like "repository:a/b:pull,push"."""
        def part(data):
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":", 1)[0], *scope.split(":", 1)[1].rsplit(":", 1)
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": self._chain}
        claims = {"iss": "issuer of the tests", "sub": "x", "aud": "tests", "iat": now - 5,
                  "nbf": now - 5, "exp": now + self.seconds, "jti": secrets.token_hex(8),
                  "access": access}
        text = ".".join(part(json.dumps(d).encode()) for d in (head, claims))
        made = servers._openssl("dgst", "-sha256", "-sign", self._key, data=text.encode())
        self._secrets.add(part(made))
        return text + "." + part(made)

    def handle(self, request):
        if request.path != "/token":
            return Reply(404)
        login = request.headers.get("authorization", "")
        scopes = [v for k, v in urllib.parse.parse_qsl(request.query_string) if k == "scope"]
        if not login.startswith("Basic "):
            scopes = []  # anonymous: a token that allows nothing
        else:
            user, _, password = base64.b64decode(login[6:]).decode().partition(":")
            if self.users.get(user) != password:
                return Reply(401, {}, '{"errors":[{"code":"UNAUTHORIZED"}]}')
        token = self.sign(*(s for one in scopes for s in one.split()))
        return Reply(200, {"Content-Type": "application/json"}, json.dumps({
            "token": token, "expires_in": self.seconds, "issued_at": _iso(time.time())}))


class Hooks(Fake):
    """A server of which only what arrives is of interest."""

    def __init__(self, ctx, reply=None, **kw):
        self.reply = reply or (lambda r: Reply(404))
        super().__init__(ctx, **kw)

    def handle(self, request):
        return self.reply(request)
