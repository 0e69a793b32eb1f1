# SPDX-License-Identifier: Apache-2.0
"""S3 and Google Cloud Storage, by docs/stores.md: where objects lie, who signs, what goes wrong."""

import json
import os
import signal
import socket
import subprocess
import time

import fakes
import layer
import servers
from fakes import answer, s3_error
from support import (INVALID, MACHINE, NOT_FOUND, Failures, Skip, Tree, bare_env, blob, check_store,
                     check_whole, fails_open, inductor_file, need, need_root, other_file,
                     round_trip, small_tree, some_tree, wait_until)


class _Bucket:
    """versitygw, a prefix in its bucket, and the root's keys."""

    def __init__(self, t, prefix="team/x", front=False, **more):
        self.server = servers.S3(t, **more)
        self.front = fakes.Front(t, self.server.endpoint) if front else None
        self.dir = os.path.join(self.server.bucket_dir, prefix)
        self.url = self.server.url(prefix, **({"endpoint": self.front.url} if front else {}))
        self.env = bare_env(t, **self.server.keys())
        self.store = {"store": self.url, "env": self.env}


class _Guarded:
    """A bucket behind a front that knows temporary keys; without any of its own."""

    def __init__(self, t, seconds=3600, prefix="team/x", **more):
        self.server = servers.S3(t)
        self.issuer = fakes.Issuer(t, seconds)
        self.front = fakes.S3Front(t, self.server, self.issuer, **more)
        self.dir = os.path.join(self.server.bucket_dir, prefix)
        self.url = self.server.url(prefix, endpoint=self.front.url)

    def keys(self):
        access, secret, token, _ = self.issuer.new()
        return {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret,
                "AWS_SESSION_TOKEN": token}

    def signers(self):
        """Whose keys the requests were signed with that were answered well."""
        given = [fakes.parse_authorization(r) for r in self.front.requests if r.status < 300]
        return {g[0] if g else None for g in given}


# ---- objects ----

def a_bucket_holds_layers_below_the_prefix_as_plain_objects(t):
    b, tree = _Bucket(t), small_tree()
    assert t.init(**b.store).status == "cold"
    t.publish(tree, volume=t.volume, **b.store)
    paths = layer.objects(b.dir)
    assert len(paths) == 1 and "/team/x/m/v1/" in paths[0], paths
    check_store(b.dir, tree)
    t.clear()
    r = t.init(**b.store)
    assert r.status == "warm", r
    assert check_whole(t.volume, tree) == len(tree.groups)


def a_bucket_without_a_prefix_and_one_with_odd_characters(t):
    b = _Bucket(t)
    for prefix in ("", "a b+c=d/\u00e9&x/%20"):
        round_trip(t, b.server.url(prefix), Tree([inductor_file(prefix)]), env=b.env)
        assert layer.objects(os.path.join(b.server.bucket_dir, prefix, "m"))


def a_model_with_odd_characters_comes_back(t):
    b = _Bucket(t)
    for model in ("Llama-3.1+x=y", "a b:c@d", "\u00e9%2F", "..x", "~!*'()&$,;"):
        round_trip(t, b.url, env=b.env, model=model, version=model[::-1] + "v")
    check_store(b.dir)


def one_prefix_does_not_show_in_another_that_begins_alike(t):
    b = _Bucket(t)
    t.publish(some_tree(), store=b.server.url("team"), env=b.env)
    assert t.init(store=b.server.url("te"), env=b.env).status == "cold"
    assert t.init(store=b.server.url("team2"), env=b.env).status == "cold"
    assert t.init(store=b.server.url("team"), env=b.env).status == "warm"


def more_than_a_thousand_objects_are_listed(t):
    b, tree = _Bucket(t, front=True), some_tree()
    t.publish(tree, **b.store)
    folder = os.path.dirname(layer.objects(b.dir)[0])
    for i in range(1300):
        for name in ("A-%04d" % i, "Z-%04d" % i):
            with open(os.path.join(folder, name), "w"):
                pass
    b.front.forget()
    r = t.init(**b.store)
    assert r.status == "warm" and check_whole(t.volume, tree) == len(tree.groups), r
    assert len(b.front.seen("GET", continuation_token=True)) >= 2
    names = t.run("ls", "--json", "--store", b.url, env=b.env).stdout
    assert [k["layers"] for k in json.loads(names)["keys"]] == [1], names


def a_large_layer_is_put_in_parts(t):
    b = _Bucket(t, front=True)
    tree = Tree([{"own/large": blob("large", 40 << 20)}])
    round_trip(t, b.url + "&multipart=5M", tree, env=b.env)
    parts = [r for r in b.front.seen("PUT", uploadId=True) if r.status == 200]
    sizes = sorted(len(r.body) for r in parts)
    assert sum(sizes) == os.path.getsize(layer.objects(b.dir)[0]), sizes
    assert len(sizes) >= 3 and 5 << 20 <= sizes[1] <= sizes[-1] <= 16 << 20, sizes
    check_store(b.dir, tree)
    assert b.server.uploads() == []
    # And a smaller one, of the same multipart limit, in one request.
    b.front.forget()
    t.publish(some_tree(), store=b.url + "&multipart=5M", env=b.env)
    assert not [r for r in b.front.requests if "uploads" in r.query]


def a_sidecar_killed_in_a_multipart_put_leaves_no_object(t):
    b = _Bucket(t, front=True)
    tree = Tree([{"own/large": blob("large", 40 << 20)}])
    tree.write(t.volume)
    b.front.when(fakes.hang(b.front), "PUT", uploadId=True, skip=1)
    s = t.sidecar("--settle=0", store=b.url + "&multipart=5M", env=b.env)
    wait_until("parts under way", lambda: len(b.front.seen("PUT", uploadId=True)) >= 2)
    s.kill()
    assert layer.objects(b.dir) == []
    assert t.init(volume=t.fresh(), **b.store).status == "cold"
    b.front.clear()
    round_trip(t, b.url + "&multipart=5M", tree, env=b.env)


def a_sidecar_killed_in_a_put_leaves_no_object(t):
    b = _Bucket(t, front=True)
    some_tree().write(t.volume)
    b.front.when(fakes.hang(b.front), "PUT")
    s = t.sidecar("--settle=0", **b.store)
    wait_until("a put under way", lambda: b.front.seen("PUT"))
    s.kill()
    assert layer.objects(b.dir) == []


def a_completion_that_answers_200_with_an_error_is_no_put(t):
    b = _Bucket(t, front=True)
    tree = Tree([{"own/large": blob("large", 20 << 20)}])
    tree.write(t.volume)
    b.front.when(s3_error(200, "InternalError", "We encountered an internal error"), "POST",
                 uploadId=True)
    s = t.sidecar("--settle=0", "--interval=1s", store=b.url + "&multipart=5M", env=b.env)
    s.wait_for("publish-failed", timeout=60)
    assert s.count("INFO warmcache-sidecar: published") == 0 and layer.objects(b.dir) == [], s.log
    b.front.clear()
    s.wait_for("INFO warmcache-sidecar: published", timeout=60)
    assert s.stop() == 0
    check_store(b.dir, tree)


def a_completion_that_fails_once_is_repeated(t):
    b = _Bucket(t, front=True)
    tree = Tree([{"own/large": blob("large", 20 << 20)}])
    b.front.when(s3_error(200, "InternalError"), "POST", uploadId=True, times=1)
    round_trip(t, b.url + "&multipart=5M", tree, env=b.env)


def a_multipart_put_that_is_given_up_is_aborted(t):
    b = _Bucket(t, front=True)
    Tree([{"own/large": blob("large", 40 << 20)}]).write(t.volume)
    b.front.when(s3_error(403, "AccessDenied"), "PUT", uploadId=True, skip=1)
    s = t.sidecar("--settle=0", store=b.url + "&multipart=5M", env=b.env)
    s.wait_for("publish-failed", timeout=40)
    wait_until("an abort", lambda: b.front.seen("DELETE", uploadId=True))
    assert s.stop() == 0
    assert b.server.uploads() == [] and layer.objects(b.dir) == []


def what_we_wrote_is_read_by_rclone_and_aws(t):
    b, tree = _Bucket(t), small_tree()
    t.publish(tree, **b.store)
    b.server.aws("s3", "cp", "--recursive", "s3://caches/team/x/", t.dir("aws"))
    check_store(t.path("aws"), tree)
    env = {"PATH": "/usr/bin:/bin", "HOME": t.tmp, "RCLONE_CONFIG_W_TYPE": "s3",
           "RCLONE_CONFIG_W_PROVIDER": "Other", "RCLONE_CONFIG_W_ENDPOINT": b.server.endpoint,
           "RCLONE_CONFIG_W_ACCESS_KEY_ID": b.server.access,
           "RCLONE_CONFIG_W_SECRET_ACCESS_KEY": b.server.secret}
    subprocess.run([servers.system("rclone"), "copy", "w:caches/team/x", t.dir("rclone")],
                   env=env, check=True, timeout=60, stderr=subprocess.DEVNULL)
    check_store(t.path("rclone"), tree)
    assert len(layer.objects(t.path("rclone"))) == 1


def what_aws_copied_into_the_bucket_is_restored(t):
    b, tree = _Bucket(t), Tree([inductor_file("a"), other_file("b")])
    t.publish(tree, store=t.store)
    b.server.aws("s3", "cp", "--recursive", t.store, "s3://caches/team/x/")
    r = t.init("--require", **b.store)
    assert r.status == "warm" and check_whole(t.volume, tree) == 2, r


def damaged_bytes_from_a_server_never_reach_the_volume(t):
    b, tree = _Bucket(t, front=True), some_tree()
    t.publish(tree, **b.store)
    for act, right in ((fakes.other_bytes, False), (fakes.wrong_range, False),
                       (fakes.whole_instead_of_range, True), (fakes.shorter_than_it_is, False),
                       (fakes.longer_than_it_is, None), (answer(206), False),
                       (answer(200), False), (answer(204), False)):
        b.front.clear()
        b.front.when(act, "GET", path=".tar.zst")
        volume = t.fresh()
        r = t.init("--deadline=20s", volume=volume, **b.store)
        assert r.code == 0 and r.took < 25, (act, r)
        n = check_whole(volume, tree, str(act))
        assert right is None or (r.status == "warm") == right == (n == len(tree.groups)), (act, r)


# ---- TLS, addressing and other parameters ----

def tls_with_a_ca_of_our_own(t):
    ca = servers.Authority(t)
    b = _Bucket(t, tls=ca)
    round_trip(t, b.url, env=b.env)
    plain = b.server.url("team/x", ca=None)
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        env = bare_env(t, **b.server.keys(), **{name: ca.ca})
        r = t.init(store=plain, volume=t.fresh(), env=env)
        assert r.status == "warm", (name, r)


def a_certificate_that_is_not_trusted_is_named(t):
    b = _Bucket(t, tls=servers.Authority(t))
    other = servers.Authority(t, "other")
    host = "127.0.0.1:%d" % b.server.port
    for url in (b.server.url("team/x", ca=None), b.server.url("team/x", ca=other.ca)):
        fails_open(t, "certificate", host, store=url, env=b.env)
    fails_open(t, t.path("no-such-file"), store=b.server.url("x", ca=t.path("no-such-file")),
                env=b.env)


def a_certificate_of_another_host_is_refused(t):
    ca = servers.Authority(t)
    b = _Bucket(t, tls=ca)
    front = fakes.Front(t, b.server.endpoint, tls=ca, address="127.0.0.2")
    other = "https://127.0.0.2:%d" % front.port
    fails_open(t, "certificate", store=b.server.url("team/x", endpoint=other), env=b.env)


def virtual_addressing_puts_the_bucket_into_the_host(t):
    g = _Guarded(t)
    url = g.server.url("team/x", endpoint="http://localhost:%d" % g.front.port,
                       addressing="virtual")
    round_trip(t, url, env=bare_env(t, **g.keys()))
    assert {r.headers["host"] for r in g.front.requests} == {"caches.localhost:%d" % g.front.port}
    assert layer.objects(g.dir)


def the_signature_covers_an_uploads_bytes_when_asked(t):
    b = _Bucket(t, front=True)
    for payload, unsigned in (("signed", False), ("unsigned", True), (None, False)):
        b.front.forget()
        store = b.url + ("&payload=" + payload if payload else "")
        t.publish(some_tree(str(payload)), store=store, env=b.env)
        put, = b.front.seen("PUT")
        assert (put.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD") == unsigned, payload
        assert put.status == 200


def encryption_and_requester_pays_are_asked_for(t):
    g = _Guarded(t)

    def strip(r, forward):
        """After the signature was checked: versitygw can't encrypt."""
        refusal = g.front.refusal(r)
        if refusal:
            return refusal(r, forward)
        r.noted = {k: v for k, v in r.headers.items()
                   if "encryption" in k or k == "x-amz-request-payer"}
        for name in r.noted:
            del r.headers[name]
        return g.front.signed(r)
    g.front.when(strip)
    url = g.url + "&requester-pays=true&sse=aws:kms&kms-key=arn:aws:kms:eu-1:1:key/2"
    round_trip(t, url, env=bare_env(t, **g.keys()))
    assert all(r.noted["x-amz-request-payer"] == "requester" for r in g.front.requests)
    put, = g.front.seen("PUT")
    assert put.noted["x-amz-server-side-encryption"] == "aws:kms", put.noted
    assert put.noted["x-amz-server-side-encryption-aws-kms-key-id"].endswith("key/2"), put.noted
    assert not [r for r in g.front.seen("GET") if len(r.noted) > 1]


def no_more_connections_than_allowed(t):
    b = _Bucket(t, front=True)
    tree = Tree([other_file(str(i), 3 << 20) for i in range(10)])
    t.publish(tree, "--settle=0", **b.store)
    b.front.latency = 0.05
    for most in (1, 3):
        b.front.forget()
        r = t.init(store=b.url + "&connections=%d" % most, env=b.env, volume=t.fresh())
        assert r.status == "warm", r
        busy = [sum(q.start <= r.start < q.end for q in b.front.requests)
                for r in b.front.requests]
        assert max(busy) <= most, (most, busy)


def a_proxy_of_the_environment_is_used(t):
    b = _Bucket(t)
    proxy = fakes.Front(t, b.server.endpoint)
    round_trip(t, b.url, env=bare_env(t, **b.server.keys(), http_proxy=proxy.url))
    assert proxy.requests and all("://" in r.target for r in proxy.requests)
    proxy.forget()
    env = bare_env(t, **b.server.keys(), http_proxy=proxy.url, NO_PROXY="127.0.0.1")
    assert t.init(store=b.url, env=env, volume=t.fresh()).status == "warm"
    assert not proxy.requests


def the_hosts_of_amazon_and_google(t):
    """As a proxy is asked for them; nothing goes there."""
    proxy = fakes.Hooks(t, lambda r: fakes.Reply(503))
    token = {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
             "AWS_WEB_IDENTITY_TOKEN_FILE": _file(t, "token", "jwt")}
    keys = {"AWS_ACCESS_KEY_ID": "A" * 20, "AWS_SECRET_ACCESS_KEY": "s" * 40}
    for url, env, host in (
            ("s3://caches/x", {}, "caches.s3.us-east-1.amazonaws.com"),
            ("s3://caches?region=eu-north-1", {}, "caches.s3.eu-north-1.amazonaws.com"),
            ("s3://caches", {"AWS_REGION": "eu-north-1"}, "caches.s3.eu-north-1.amazonaws.com"),
            ("s3://a.b.c/x", {"AWS_REGION": "eu-north-1"}, "s3.eu-north-1.amazonaws.com"),
            ("s3://caches?addressing=path", {}, "s3.us-east-1.amazonaws.com"),
            ("s3://caches?region=cn-north-1", {}, "caches.s3.cn-north-1.amazonaws.com.cn"),
            ("s3://caches", {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
             "caches.s3.dualstack.us-east-1.amazonaws.com"),
            ("s3://caches", {"AWS_USE_FIPS_ENDPOINT": "true"},
             "caches.s3-fips.us-east-1.amazonaws.com"),
            ("s3://caches", {"AWS_USE_FIPS_ENDPOINT": "true",
                             "AWS_USE_DUALSTACK_ENDPOINT": "true"},
             "caches.s3-fips.dualstack.us-east-1.amazonaws.com"),
            ("gs://caches/x?anonymous=true", {}, "storage.googleapis.com"),
            ("s3://caches?region=eu-north-1", {**token, "AWS_ACCESS_KEY_ID": ""},
             "sts.eu-north-1.amazonaws.com"),
            ("oci://1.dkr.ecr.eu-north-1.amazonaws.com/c", {},
             "api.ecr.eu-north-1.amazonaws.com")):
        proxy.forget()
        r = t.init("--deadline=1s", store=url,
                   env=bare_env(t, **{**keys, **env}, https_proxy=proxy.url))
        assert r.code == 0 and r.status == "error", r
        asked = {q.target for q in proxy.requests if q.method == "CONNECT"}
        assert asked == {host + ":443"}, (url, env, asked)


def a_url_that_is_wrong_is_refused_with_what_is_wrong(t):
    for url, word in (("s3://AKIA:hush%2Fhush@caches/x", "password"), ("s3://", ""),
                      ("s3:///x", ""), ("s3://caches/x?endpiont=http://h", "endpiont"),
                      ("s3://caches?addressing=x", "addressing"),
                      ("s3://caches?multipart=1X", "multipart"),
                      ("s3://caches?connections=0", "connections"),
                      ("s3://caches?connections=17", "connections"),
                      ("s3://caches?endpoint=minio:9000", "endpoint"),
                      ("s3://caches?payload=maybe", "payload"), ("s3://caches?anonymous", ""),
                      ("s3://caches?region=%zz", ""),
                      ("s3://caches/a/../x?endpoint=http://127.0.0.1:9", ""),
                      ("gs://caches?profile=x", "profile"), ("gs://", ""),
                      ("oci://", ""), ("oci://h?login=me", "login"),
                      ("https://user:hush@h/x", ""), ("https://", ""),
                      ("https://h/x?bearer=hush", "bearer"), ("oci://u:hush@h/x", "")):
        r = t.init(store=url, env=bare_env(t))
        assert r.code == 0 and r.status == "error" and word in r.json["reason"].lower(), (url, r)
        assert "hush" not in r.err + json.dumps(r.json), r
        assert r.took < 5, r
        assert t.init("--require", store=url, env=bare_env(t)).code == INVALID, url


# ---- credentials ----

def _file(t, name, text):
    os.makedirs(os.path.dirname(t.path(name)), exist_ok=True)
    with open(t.path(name), "w") as f:
        f.write(text)
    return t.path(name)


def _profile(keys, name="default"):
    return "[%s]\naws_access_key_id = %s\naws_secret_access_key=%s\naws_session_token = %s\n\n" % (
        name, *keys[:3])


def session_tokens_of_the_environment_are_sent_and_signed(t):
    g = _Guarded(t)
    round_trip(t, g.url, env=bare_env(t, **g.keys()))


def shared_files_and_their_profiles(t):
    g = _Guarded(t)
    first, second = g.issuer.new(), g.issuer.new()
    text = "# a comment\n" + _profile(first) + "; and another\n" + _profile(second, "other")
    _file(t, "home/.aws/credentials", text)
    _file(t, "home/.aws/config", "[default]\nregion=eu-9\n[profile other]\noutput = json\n"
          "region = eu-7\n")
    for more, env, keys, region in (
            ("", {}, first, "eu-9"), ("&profile=other", {}, second, "eu-7"),
            ("", {"AWS_PROFILE": "other"}, second, "eu-7"),
            ("&profile=default", {"AWS_PROFILE": "other"}, first, "eu-9"),
            ("&region=eu-5", {}, first, "eu-5"),
            ("", {"AWS_REGION": "eu-3", "AWS_DEFAULT_REGION": "eu-4"}, first, "eu-3"),
            ("", {"AWS_DEFAULT_REGION": "eu-4"}, first, "eu-4")):
        g.front.forget()
        r = t.init("--require", store=g.url + more, env=bare_env(t, **env))
        assert r.status == "cold" and r.code == 3, (more, env, r)
        given = fakes.parse_authorization(g.front.requests[0])
        assert given[0] == keys[0], (more, env, given)
        assert given[1].split("/")[1] == region, (more, env, given)


def shared_files_elsewhere_with_an_endpoint_of_their_own(t):
    g = _Guarded(t)
    keys = g.issuer.new()
    env = bare_env(t, AWS_SHARED_CREDENTIALS_FILE=_file(t, "x/cred", _profile(keys, "p")),
               AWS_CONFIG_FILE=_file(t, "x/conf", "[profile p]\nendpoint_url = %s\n" %
                                     g.front.url), AWS_PROFILE="p")
    round_trip(t, "s3://caches/team/x", env=env)
    assert g.signers() == {keys[0]} and layer.objects(g.dir)


def an_endpoint_of_the_environment_and_the_one_for_s3_first(t):
    g = _Guarded(t)
    env = bare_env(t, **g.keys(), AWS_ENDPOINT_URL_S3=g.front.url,
               AWS_ENDPOINT_URL="http://127.0.0.1:9")
    round_trip(t, "s3://caches/team/x", env=env)
    env = bare_env(t, **g.keys(), AWS_ENDPOINT_URL=g.front.url)
    round_trip(t, "s3://caches/team/x", env=env)
    env = bare_env(t, **g.keys(), AWS_ENDPOINT_URL="http://127.0.0.1:9")
    round_trip(t, g.url, env=env)


def a_profile_that_is_not_there_is_named(t):
    g = _Guarded(t)
    _file(t, "home/.aws/credentials", _profile(g.issuer.new()))
    fails_open(t, "nowhere", store=g.url + "&profile=nowhere", env=bare_env(t))


def a_profile_that_is_named_goes_before_keys_of_the_environment(t):
    g = _Guarded(t)
    keys = g.issuer.new()
    _file(t, "home/.aws/credentials", _profile(keys, "p"))
    round_trip(t, g.url + "&profile=p", env=bare_env(t, **g.keys()))
    assert g.signers() == {keys[0]}


def web_identity_at_sts(t):
    g = _Guarded(t)
    sts = fakes.Sts(t, g.issuer, {"jwt-of-the-pod"})
    t.secrets.add("jwt-of-the-pod")
    env = {"AWS_WEB_IDENTITY_TOKEN_FILE": _file(t, "pod/token", "jwt-of-the-pod\n"),
           "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/caches",
           "AWS_ENDPOINT_URL_STS": sts.url}
    round_trip(t, g.url, env=bare_env(t, **env))
    assert sts.requests and all("authorization" not in r.headers for r in sts.requests)
    _file(t, "pod/token", "jwt-of-another")
    fails_open(t, ("InvalidIdentityToken", "sts", "AssumeRole"), store=g.url,
                env=bare_env(t, **env))
    # The same by a profile.
    _file(t, "pod/token", "jwt-of-the-pod")
    _file(t, "home/.aws/config", "[profile pod]\nrole_arn = %s\nweb_identity_token_file = %s\n" % (
        env["AWS_ROLE_ARN"], env["AWS_WEB_IDENTITY_TOKEN_FILE"]))
    r = t.init(store=g.url + "&profile=pod", volume=t.fresh(),
               env=bare_env(t, AWS_ENDPOINT_URL_STS=sts.url))
    assert r.status == "warm", r


def the_container_endpoint_with_its_token(t):
    g = _Guarded(t)
    file = _file(t, "pod/token", "token-of-the-pod")
    t.secrets.add("token-of-the-pod")
    endpoint = fakes.Container(t, g.issuer, file)
    where = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url + "/v1/credentials"}
    round_trip(t, g.url, env=bare_env(t, **where, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=file))
    env = bare_env(t, **where, AWS_CONTAINER_AUTHORIZATION_TOKEN="token-of-the-pod")
    assert t.init(store=g.url, volume=t.fresh(), env=env).status == "warm"
    env = bare_env(t, **where, AWS_CONTAINER_AUTHORIZATION_TOKEN="wrong")
    fails_open(t, "401", store=g.url, env=env)


def a_container_endpoint_that_is_busy_once_is_asked_again(t):
    g = _Guarded(t)
    endpoint = fakes.Container(t, g.issuer, _file(t, "pod/token", "token-of-the-pod"))
    front = fakes.Front(t, endpoint.url)
    env = bare_env(t, AWS_CONTAINER_CREDENTIALS_FULL_URI=front.url + "/v1",
                   AWS_CONTAINER_AUTHORIZATION_TOKEN="token-of-the-pod")
    for status in (429, 503):
        front.when(answer(status), times=1)
        r = t.init("--require", store=g.url, env=env)
        assert r.status == "cold" and r.code == NOT_FOUND, (status, r)


def the_container_endpoint_is_this_machine_or_tls(t):
    """As the SDKs have it: a token isn't sent to any host in clear text."""
    g = _Guarded(t)
    env = bare_env(t, AWS_CONTAINER_CREDENTIALS_FULL_URI="http://creds.example.com/v1",
               AWS_CONTAINER_AUTHORIZATION_TOKEN="token-of-the-pod")
    r = fails_open(t, store=g.url, env=env)
    assert r.took < 5, r


def the_metadata_service_of_the_instance(t):
    g = _Guarded(t)
    imds = fakes.Imds(t, g.issuer)
    for end in ("", "/"):
        env = t.env(HOME=t.dir("home"), AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url + end)
        round_trip(t, g.url, env=env)
    assert imds.requests[0].method == "PUT"
    imds.forget()
    env["AWS_EC2_METADATA_DISABLED"] = "true"
    fails_open(t, "AccessDenied", store=g.url, env=env)
    assert not imds.requests


def a_metadata_service_that_is_silent_is_given_up_after_a_second(t):
    b = _Bucket(t)
    b.server.open_to_all()
    t.publish(some_tree(), **b.store)
    quiet = fakes.Hooks(t)
    quiet.reply = lambda r: quiet.ended.wait()
    r = t.init(store=b.url, env=t.env(HOME=t.dir("home"),
                                      AWS_EC2_METADATA_SERVICE_ENDPOINT=quiet.url))
    assert r.status == "warm" and quiet.requests and r.took < 6, r


def the_first_source_of_credentials_wins(t):
    g = _Guarded(t)
    file = _file(t, "pod/token", "jwt")
    sts = fakes.Sts(t, g.issuer, {"jwt"})
    container = fakes.Container(t, g.issuer, file)
    imds = fakes.Imds(t, g.issuer)
    keys = g.issuer.new()
    sources = [
        ("env", dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
                         g.issuer.new()))),
        ("file", {"AWS_SHARED_CREDENTIALS_FILE": _file(t, "cred", _profile(keys))}),
        ("sts", {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_ENDPOINT_URL_STS": sts.url,
                 "AWS_WEB_IDENTITY_TOKEN_FILE": file}),
        ("container", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": container.url + "/c",
                       "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": file}),
        ("imds", {"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url})]
    t.publish(some_tree(), store=g.url, env=bare_env(t, **sources[0][1]))
    for i, (name, _) in enumerate(sources):
        for fake in (g.front, sts, container, imds):
            fake.forget()
        env = t.env(HOME=t.dir("home"))
        for _, more in sources[i:]:
            env.update(more)
        r = t.init(store=g.url, env=env, volume=t.fresh())
        assert r.status == "warm", (name, r)
        asked = [n for n, f in (("sts", sts), ("container", container), ("imds", imds))
                 if f.requests]
        assert asked == ([name] if i > 1 else []), (name, asked)
        if name in ("env", "file"):
            assert g.signers() == {(sources[0][1]["AWS_ACCESS_KEY_ID"], keys[0])[i]}, name


def credentials_that_expire_are_renewed_while_a_sidecar_runs(t):
    g = _Guarded(t, seconds=4)
    sts = fakes.Sts(t, g.issuer, {"jwt1", "jwt2"})
    file = _file(t, "pod/token", "jwt1")
    env = bare_env(t, AWS_ROLE_ARN="arn:aws:iam::1:role/r", AWS_WEB_IDENTITY_TOKEN_FILE=file,
               AWS_ENDPOINT_URL_STS=sts.url)
    s = t.sidecar("--settle=0", "--interval=1s", store=g.url, env=env)
    s.wait_for("state=started")
    for i in range(4):
        Tree([inductor_file("r%d" % i)]).write(t.volume)
        s.signal(signal.SIGUSR1)
        s.wait_for("INFO warmcache-sidecar: published", i + 1)
        time.sleep(2.5)
        if i == 1:  # the kubelet writes another one
            _file(t, "pod/token", "jwt2")
            sts.tokens.discard("jwt1")
    assert s.stop() == 0 and s.count("publish-failed") == 0, s.log
    assert len(sts.requests) >= 3 and len(layer.objects(g.dir)) == 4


def _metadata(t, g):
    """The instance's metadata service behind a front, and the environment that leads there."""
    front = fakes.Front(t, fakes.Imds(t, g.issuer).url)
    return front, t.env(HOME=t.dir("home"), AWS_EC2_METADATA_SERVICE_ENDPOINT=front.url)


def a_renewal_that_fails_keeps_the_keys_that_are_still_good(t):
    g = _Guarded(t, seconds=6)
    metadata, env = _metadata(t, g)
    s = t.sidecar("--settle=0", "--interval=1s", store=g.url, env=env)
    s.wait_for("state=started")
    start = time.monotonic()
    for i, at in enumerate((0, 3.2, 6.3)):  # renewed at half of their time
        time.sleep(max(0, start + at - time.monotonic()))
        metadata.forget()
        metadata.clear()
        if i == 1:
            metadata.when(answer(503))
        Tree([inductor_file("r%d" % i)]).write(t.volume)
        s.signal(signal.SIGUSR1)
        s.wait_for("INFO warmcache-sidecar: published", i + 1)
        assert i == 0 or metadata.requests, "not renewed at all"
    assert s.stop() == 0 and s.count("publish-failed") == 0, s.log


def a_sidecar_that_started_without_the_metadata_service_finds_it_later(t):
    g = _Guarded(t)
    metadata, env = _metadata(t, g)
    metadata.when(answer(503))
    Tree([inductor_file("a")]).write(t.volume)
    s = t.sidecar("--settle=0", "--interval=1s", store=g.url, env=env)
    s.wait_for("publish-failed")
    assert "no credentials" in s.log, s.log
    metadata.clear()

    def published():
        s.signal(signal.SIGUSR1)
        time.sleep(0.3)
        return s.count("INFO warmcache-sidecar: published")
    wait_until("a publish", published, 15)
    assert s.stop() == 0, s.log


def keys_of_a_file_that_change_are_read_again(t):
    g = _Guarded(t)
    keys = g.issuer.new()
    _file(t, "home/.aws/credentials", _profile(keys))
    s = t.sidecar("--settle=0", "--interval=1s", store=g.url, env=bare_env(t))
    s.wait_for("state=started")
    Tree([inductor_file("a")]).write(t.volume)
    s.wait_for("INFO warmcache-sidecar: published")
    _file(t, "home/.aws/new", _profile(g.issuer.new()))
    os.rename(t.path("home/.aws/new"), t.path("home/.aws/credentials"))
    del g.issuer.keys[keys[0]]
    Tree([inductor_file("b")]).write(t.volume)
    s.signal(signal.SIGUSR1)
    s.wait_for("INFO warmcache-sidecar: published", 2)
    assert s.stop() == 0


def a_token_that_expired_early_is_renewed_once(t):
    """The server's word counts, whatever the expiry said."""
    g = _Guarded(t)
    imds = fakes.Imds(t, g.issuer)
    env = t.env(HOME=t.dir("home"), AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url)
    t.publish(some_tree(), store=g.url, env=env)
    imds.forget()
    g.front.when(s3_error(400, "ExpiredToken", "The provided token has expired."), times=1)
    assert t.init(store=g.url, env=env).status == "warm"
    assert len(imds.seen("GET", imds.role)) == 2


def an_open_bucket_is_read_without_a_signature(t):
    b, tree = _Bucket(t, front=True), some_tree()
    t.publish(tree, **b.store)
    b.server.open_to_all()
    b.front.forget()
    wrong = {"AWS_ACCESS_KEY_ID": "AKIANOBODY", "AWS_SECRET_ACCESS_KEY": "of no use"}
    r = t.init(store=b.url + "&anonymous=true", env=bare_env(t, **wrong))
    assert r.status == "warm", r
    r = t.init(store=b.url, env=bare_env(t), volume=t.fresh())  # none is found
    assert r.status == "warm", r
    assert not [q for q in b.front.requests if "authorization" in q.headers]
    s = t.sidecar("--settle=0", store=b.url, env=bare_env(t), volume=t.path("model1"))
    Tree([inductor_file("new")]).write(t.path("model1"))
    s.wait_for("publish-failed")
    assert s.stop() == 0


# ---- errors ----

def errors_say_what_where_and_what_to_do(t):
    b = _Bucket(t, front=True)
    t.publish(some_tree(), **b.store)
    keys = b.server.keys()
    host = b.front.host
    other = {**keys, "AWS_SECRET_ACCESS_KEY": "wrong-secret-of-the-test"}
    t.secrets.add("wrong-secret-of-the-test")
    cases = [
        ("wrong secret", b.url, other, ["SignatureDoesNotMatch", "s3://caches/team/x", "403"]),
        ("unknown key", b.url, {**keys, "AWS_ACCESS_KEY_ID": "AKIANOBODY"},
         ["...BODY", "ListObjectsV2"]),
        ("missing bucket", b.url.replace("//caches", "//nobody-has-it"), keys,
         ["NoSuchBucket", "nobody-has-it"]),
        ("DNS", b.server.url("x", endpoint="http://no.such.host.invalid"), keys,
         ["no.such.host.invalid", ("resolve", "name")]),
        ("refused", b.server.url("x", endpoint="http://127.0.0.1:9"), keys,
         ["127.0.0.1:9", ("connect", "refused")]),
        ("no TLS there", b.server.url("x", endpoint="https://" + host), keys, [host]),
    ]
    failures = Failures()
    for what, url, env, words in cases:
        with failures:
            r = fails_open(t, *words, store=url, env=bare_env(t, **env))
            assert r.took < 32, (what, r)
    failures.tell()


def denials_name_the_call_the_key_and_the_right_that_lacks(t):
    b = _Bucket(t, front=True)
    t.publish(some_tree(), **b.store)
    b.front.when(s3_error(403, "AccessDenied", "Access Denied"), "GET", list_type=True)
    r = fails_open(t, "403", "AccessDenied", "ListObjectsV2", "s3:ListBucket", store=b.url,
                    env=b.env)
    assert b.server.access[-4:] in r.json["reason"] and b.server.access not in r.json["reason"], r
    b.front.clear()
    b.front.when(s3_error(403, "AccessDenied", "Access Denied"), "GET", ".tar.zst")
    fails_open(t, "403", "AccessDenied", "s3:GetObject", store=b.url, env=b.env)
    b.front.clear()
    b.front.when(s3_error(403, "AccessDenied", "Access Denied"), "PUT")
    s = t.sidecar("--settle=0", **b.store)
    Tree([inductor_file("new")]).write(t.volume)
    s.wait_for("publish-failed")
    assert "s3:PutObject" in s.log and "AccessDenied" in s.log, s.log
    assert s.stop() == 0


def a_list_whose_next_page_is_the_same_again_is_an_error_at_once(t):
    body = ("<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>same"
            "</NextContinuationToken></ListBucketResult>")
    circle = fakes.Hooks(t, lambda r: fakes.Reply(200, {}, body))
    r = fails_open(t, "page", store="s3://caches?anonymous=true&endpoint=" + circle.url,
                   env=bare_env(t))
    assert r.status == "error" and r.took < 5 and len(circle.requests) <= 8, r


def a_fallback_whose_list_fails_after_it_was_picked_costs_nothing(t):
    """v2 is picked, damaged as it is, and then v1 is looked at."""
    b, own = _Bucket(t, front=True), Tree([inductor_file("own")])
    t.publish(own, version="v3", **b.store)
    for version in ("v1", "v2"):
        t.publish(Tree([inductor_file(version)]), version=version, **b.store)
        time.sleep(0.01)
    path, = [p for p in layer.objects(b.dir) if "/v2/" in p]
    with open(path, "r+b") as f:
        f.seek(-100, os.SEEK_END)
        f.write(b"x" * 100)
    b.front.when(s3_error(403, "AccessDenied"), "GET", prefix="team/x/m/v1/%s/" % MACHINE)
    r = t.init("--require", version="v3", **b.store)
    assert b.front.seen(prefix="team/x/m/v1/%s/" % MACHINE), b.front.requests
    assert r.code == 0 and r.status == "warm", r
    assert check_whole(t.volume, own) == 1


def an_error_that_is_no_xml_is_told_all_the_same(t):
    b = _Bucket(t, front=True)
    for body in ("", "<html><b>nope", "\0\1\2\x1b[31m" * 50, "<Error><Code>" + "x" * 100000):
        b.front.clear()
        b.front.when(answer(403, {"Content-Type": "text/html"}, body))
        r = fails_open(t, "403", store=b.url, env=b.env)
        assert not any(ord(c) < 32 for c in r.json["reason"]), r


def a_list_that_is_no_list_is_an_error_and_no_cold_start(t):
    b = _Bucket(t, front=True)
    bodies = ["", "hello", "<html></html>", "<ListBucketResult><Contents><Key>x</Key>",
              "<ListBucketResult>" + "<a>" * 100000,
              "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"]
    for body in bodies:
        b.front.clear()
        b.front.when(answer(200, {"Content-Type": "application/xml"}, body), "GET")
        r = fails_open(t, store=b.url, env=b.env)
        assert r.status == "error" and r.took < 20, (body[:60], r)


def names_in_a_list_that_leave_the_prefix_are_passed_over(t):
    b, tree = _Bucket(t, front=True), some_tree()
    t.publish(tree, **b.store)

    def more(r, forward):
        reply = forward()
        evil = "".join("<Contents><Key>team/x/%s</Key><Size>5</Size><LastModified>"
                       "2026-01-01T00:00:00Z</LastModified></Contents>" % n
                       for n in ("../../etc/x", "/abs", "m/v1/../../x", "", "a//b", "m/%01",
                                 "%2e%2e/x"))
        evil += "<Contents><Key>elsewhere/m/v1/x</Key><Size>5</Size></Contents>"
        reply.body = reply.body.replace(b"<Contents>", evil.encode() + b"<Contents>", 1)
        return reply
    b.front.when(more, "GET", list_type=True)
    r = t.init(**b.store)
    assert r.status == "warm" and check_whole(t.volume, tree) == len(tree.groups), r


# ---- retries ----

def what_fails_for_a_while_is_tried_again(t):
    b, tree = _Bucket(t, front=True), some_tree()
    t.publish(tree, **b.store)
    for act in (answer(503, {"Retry-After": "1"}), s3_error(503, "SlowDown", "Reduce your rate"),
                answer(429, {"Retry-After": "1"}), answer(500), answer(502)):
        for path in ("/caches", ".tar.zst"):
            b.front.clear()
            b.front.when(act, "GET", path, times=2)
            volume = t.fresh()
            r = t.init(volume=volume, **b.store)
            assert r.status == "warm" and r.took < 15, (act, path, r)
            assert check_whole(volume, tree) == len(tree.groups)


def a_request_that_came_too_slowly_is_sent_again(t):
    """400, and transient all the same: Amazon says so when an upload pauses."""
    b = _Bucket(t, front=True)
    slow = s3_error(400, "RequestTimeout", "Your socket connection to the server was not read "
                    "from or written to within the timeout period.")
    b.front.when(slow, "PUT", times=1)
    log = t.publish(some_tree(), **b.store)
    assert "publish-failed" not in log, log
    for path in (".tar.zst", "/caches"):
        b.front.clear()
        b.front.when(slow, "GET", path, times=1)
        r = t.init(volume=t.fresh(), **b.store)
        assert r.status == "warm", (path, r)


def a_connection_that_is_closed_without_an_answer_is_tried_again(t):
    """As a balancer does whose server is just being replaced; also the first request of all."""
    b = _Bucket(t, front=True)
    t.publish(some_tree(), **b.store)
    for path in (".tar.zst", "/caches"):
        b.front.clear()
        b.front.when(fakes.close, "GET", path, times=2)
        r = t.init(volume=t.fresh(), **b.store)
        assert r.status == "warm", (path, r)


def puts_that_fail_for_a_while_are_tried_again(t):
    b, tree = _Bucket(t, front=True), some_tree()
    for i, act in enumerate((answer(503, {"Retry-After": "1"}), answer(500),
                             s3_error(503, "SlowDown"), fakes.close)):
        b.front.clear()
        b.front.when(act, "PUT", times=2)
        log = t.publish(some_tree("p%d" % i), **b.store)
        assert "publish-failed" not in log, log
    check_store(b.dir)
    assert len(layer.objects(b.dir)) == 4 and tree


def a_put_whose_answer_was_lost_is_one_object(t):
    b, tree = _Bucket(t, front=True), some_tree()

    def lose(r, forward):
        forward()
        return None
    b.front.when(lose, "PUT", times=1)
    log = t.publish(tree, **b.store)
    assert "publish-failed" not in log, log
    assert len(layer.objects(b.dir)) == 1
    check_store(b.dir, tree)


def a_retry_after_that_is_far_away_does_not_outlast_the_deadline(t):
    b = _Bucket(t, front=True)
    b.front.when(answer(503, {"Retry-After": "3600"}))
    r = t.init("--deadline=3s", **b.store)
    assert r.code == 0 and r.status == "error" and r.took < 6, r


def denials_are_not_tried_again(t):
    b = _Bucket(t, front=True)
    b.front.when(s3_error(403, "AccessDenied"))
    r = t.init(**b.store)
    assert r.status == "error" and len(b.front.requests) == 1, (r, b.front.requests)


def a_body_that_is_cut_goes_on_where_it_ended(t):
    b = _Bucket(t, front=True)
    tree = Tree([{"own/large": blob("large", 6 << 20)}])
    t.publish(tree, **b.store)
    b.front.when(fakes.cut(0.5), "GET", ".tar.zst", times=2)
    b.front.forget()
    r = t.init(**b.store)
    assert r.status == "warm" and check_whole(t.volume, tree) == 1, r
    starts = [int(q.headers["range"].split("=")[1].split("-")[0])
              for q in b.front.seen("GET", ".tar.zst")]
    size = os.path.getsize(layer.objects(b.dir)[0])
    asked = sum(int(q.headers["range"].split("-")[1]) - s + 1
                for q, s in zip(b.front.seen("GET", ".tar.zst"), starts))
    assert asked < 2 * size, (starts, "it began anew")


def a_body_that_stalls_is_noticed(t):
    b = _Bucket(t, front=True)
    tree = Tree([{"own/large": blob("large", 6 << 20)}])
    t.publish(tree, **b.store)
    b.front.when(fakes.stall(0.5), "GET", ".tar.zst", times=1)
    r = t.init("--deadline=60s", **b.store)
    assert r.status == "warm" and r.took < 45, r


def connections_that_are_reset_are_survived(t):
    b, tree = _Bucket(t), some_tree()
    t.publish(tree, **b.store)
    toxic = servers.Toxiproxy(t, "127.0.0.1:%d" % b.server.port)
    url = b.server.url("team/x", endpoint=toxic.endpoint)
    assert t.init(store=url, env=b.env, volume=t.fresh()).status == "warm"
    for kind, attributes in (("reset_peer", {"timeout": 0}), ("limit_data", {"bytes": 500})):
        toxic.add(kind, toxicity=0.4, **attributes)
        for _ in range(3):
            volume = t.fresh()
            r = t.init("--deadline=20s", store=url, env=b.env, volume=volume)
            assert r.code == 0 and r.took < 22, r
            n = check_whole(volume, tree, kind)
            assert (r.status == "warm") == (n == len(tree.groups)), r
        toxic.remove(kind)
    toxic.add("latency", latency=100, jitter=50)
    assert t.init(store=url, env=b.env, volume=t.fresh()).status == "warm"
    toxic.enable(False)
    fails_open(t, toxic.host, store=url, env=b.env)


def a_sidecar_whose_store_went_away_publishes_when_it_is_back(t):
    b = _Bucket(t)
    toxic = servers.Toxiproxy(t, "127.0.0.1:%d" % b.server.port)
    toxic.enable(False)
    tree = some_tree()
    tree.write(t.volume)
    s = t.sidecar("--settle=0", "--interval=1s", env=b.env,
                  store=b.server.url("team/x", endpoint=toxic.endpoint))
    s.wait_for("publish-failed", timeout=40)
    toxic.enable()
    s.wait_for("INFO warmcache-sidecar: published", timeout=40)
    assert s.stop() == 0
    check_store(b.dir, tree)


# ---- region, clock, redirects ----

def another_region_is_put_right_by_what_the_server_says(t):
    g = _Guarded(t, region="eu-1")
    env = bare_env(t, **g.keys(), AWS_REGION="us-east-1")
    round_trip(t, g.url, env=env)
    g.front.forget()
    assert t.init(store=g.url, env=env, volume=t.fresh()).status == "warm"
    assert [r.status for r in g.front.requests].count(400) == 1, g.front.requests


def a_redirect_to_another_region_is_followed_by_its_name(t):
    g = _Guarded(t, region="eu-1")
    g.front.when(lambda r, forward: s3_error(
        301, "PermanentRedirect", "The bucket must be addressed using the specified endpoint",
        {"x-amz-bucket-region": "eu-1"})(r, forward)
        if fakes.parse_authorization(r)[1].split("/")[1] != "eu-1" else forward())
    env = bare_env(t, **g.keys(), AWS_REGION="us-east-1")
    round_trip(t, g.url, env=env)


def a_wrong_clock_is_corrected_by_the_servers(t):
    for hours in (5, -5):
        g = _Guarded(t, clock=hours * 3600, prefix="c%d" % hours)
        round_trip(t, g.url, env=bare_env(t, **g.keys()))


def credentials_do_not_cross_to_another_host(t):
    g = _Guarded(t)
    keys = g.keys()
    t.publish(some_tree(), store=g.url, env=bare_env(t, **keys))
    elsewhere = fakes.Hooks(t)
    for path in ("/caches", ".tar.zst"):
        for status in (301, 302, 303, 307, 308):
            g.front.clear()
            g.front.when(fakes.redirect(elsewhere.url, status), path=path)
            r = t.init(store=g.url, env=bare_env(t, **keys), volume=t.fresh())
            assert r.code == 0 and r.status != "warm", (status, r)
    for r in elsewhere.requests:
        assert "authorization" not in r.headers and "x-amz-security-token" not in r.headers, r
        assert "Signature" not in r.target and not r.body, r


def endless_redirects_end(t):
    b = _Bucket(t, front=True)
    t.publish(some_tree(), **b.store)
    b.front.forget()
    b.front.when(fakes.redirect(b.front.url), "GET")
    r = fails_open(t, store=b.url, env=b.env)
    assert r.took < 20 and len(b.front.requests) < 200, r


# ---- time ----

def the_deadline_holds_whatever_hangs(t):
    b = _Bucket(t, front=True)
    t.publish(some_tree(), **b.store)
    listener = socket.socket()
    t.undo(listener.close)
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)  # accepts, and says nothing: also not by TLS
    silent = "127.0.0.1:%d" % listener.getsockname()[1]
    cases = [("list", b.url, ("GET", "/caches")), ("get", b.url, ("GET", ".tar.zst")),
             ("body", b.url, None),
             ("TLS", b.server.url("x", endpoint="https://" + silent), None),
             ("answer", b.server.url("x", endpoint="http://" + silent), None)]
    for what, url, rule in cases:
        b.front.clear()
        if rule:
            b.front.when(fakes.hang(b.front), *rule)
        if what == "body":
            b.front.when(fakes.stall(), "GET", ".tar.zst")
        for deadline in ("2s", "500ms"):
            r = t.init("--deadline=" + deadline, store=url, env=b.env, volume=t.fresh())
            limit = 2.5 if deadline == "2s" else 1
            assert r.code == 0 and r.status in ("error", "partial") and r.json["reason"], (what, r)
            assert r.took < limit + 1, (what, r.took, r)  # one for a busy machine


def a_metadata_service_that_hangs_does_not_outlast_the_deadline(t):
    g = _Guarded(t)
    quiet = fakes.Hooks(t)
    quiet.reply = lambda r: quiet.ended.wait()
    for env in ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": quiet.url + "/x"},
                {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_ENDPOINT_URL_STS": quiet.url,
                 "AWS_WEB_IDENTITY_TOKEN_FILE": _file(t, "token", "jwt")}):
        r = t.init("--deadline=2s", store=g.url, env=bare_env(t, **env))
        assert r.code == 0 and r.status == "error" and r.took < 4, r


def a_sidecar_ends_soon_after_sigterm_when_its_store_hangs(t):
    b = _Bucket(t, front=True)
    some_tree().write(t.volume)
    for rule in (("GET", "/caches"), ("PUT", "")):
        b.front.clear()
        b.front.when(fakes.hang(b.front), *rule)
        b.front.forget()
        s = t.sidecar("--settle=0", **b.store)
        wait_until("a request", lambda: b.front.seen(*rule))
        start = time.monotonic()
        assert s.stop(20) == 0
        assert time.monotonic() - start < 14, s.log


def a_second_sigterm_ends_a_sidecar_whose_store_hangs_at_once(t):
    b = _Bucket(t, front=True)
    some_tree().write(t.volume)
    b.front.when(fakes.hang(b.front), "PUT")
    s = t.sidecar("--settle=0", **b.store)
    wait_until("a put", lambda: b.front.seen("PUT"))
    s.signal(signal.SIGTERM)
    s.wait_for("ending")
    time.sleep(0.3)
    start = time.monotonic()
    s.signal(signal.SIGTERM)
    s.wait(5)
    assert time.monotonic() - start < 2 and layer.objects(b.dir) == []


def a_pull_from_a_store_that_stalls_ends_soon_after_sigint(t):
    b = _Bucket(t, front=True)
    t.publish(Tree([{"own/large": blob("large", 1 << 20)}]), **b.store)
    for path, skip in (("/caches", 0), (".tar.zst", 0), (".tar.zst", 1)):  # list, index, frame
        b.front.clear()
        b.front.forget()
        b.front.when(fakes.stall(0.3), "GET", path, skip=skip)
        p = subprocess.Popen([os.path.join(t.bin, "warmcache"), "pull", "--store", b.url,
                              "--model", "m", "--version", "v1", t.volume], env=b.env,
                             stderr=subprocess.PIPE, text=True)
        t.undo(servers.stop, p)
        wait_until("requests", lambda: len(b.front.seen("GET", path)) > skip)
        time.sleep(0.3)
        start = time.monotonic()
        p.send_signal(signal.SIGINT)
        try:
            _, log = p.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            raise AssertionError("it goes on after SIGINT")
        assert time.monotonic() - start < 2 and p.returncode not in (0, -signal.SIGINT), log


class _SilentDns:
    """A mount namespace whose nameserver gets questions and never answers: `prefix` enters it."""

    def __init__(self, t):
        need_root()
        need("unshare")
        address = "127.%d.%d.53" % (t.random.randrange(1, 255), os.getpid() % 255)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        t.undo(self._socket.close)
        try:
            self._socket.bind((address, 53))
        except OSError as e:
            raise Skip("no nameserver can be bound: %s" % e)
        conf = _file(t, "resolv.conf", "search a.svc.cluster.local svc.cluster.local\n"
                     "nameserver %s\noptions ndots:5\n" % address)
        self.prefix = ["unshare", "-m", "sh", "-c", "mount --make-rprivate / && mount --bind '%s' "
                       "/etc/resolv.conf && exec \"$@\"" % conf, "sh"]
        if subprocess.call(self.prefix + ["true"], stderr=subprocess.DEVNULL) != 0:
            raise Skip("no mount namespace can be had")
        self.store = {"store": "s3://caches/x?endpoint=http://minio.store.svc:9000",
                      "env": bare_env(t, AWS_ACCESS_KEY_ID="A" * 20,
                                      AWS_SECRET_ACCESS_KEY="s" * 40), "prefix": self.prefix}

    def was_asked(self):
        self._socket.setblocking(False)
        try:
            return b"minio" in self._socket.recv(2000)
        except BlockingIOError:
            return False


def a_nameserver_that_never_answers_holds_no_init_up(t):
    dns = _SilentDns(t)
    r = t.init(**dns.store)
    assert dns.was_asked()
    assert r.code == 0 and r.status == "error" and r.took < 15, r
    assert "minio.store.svc" in r.json["reason"] and "resolve" in r.json["reason"].lower(), r
    r = t.init("--deadline=3s", **dns.store)
    assert r.code == 0 and r.status == "error" and r.took < 4.5, r
    assert "hang" not in r.json["reason"], "by the watchdog: %s" % r


def a_nameserver_that_never_answers_holds_no_sidecar_up(t):
    dns = _SilentDns(t)
    some_tree().write(t.volume)
    s = t.sidecar("--settle=0", **dns.store)
    wait_until("a question", dns.was_asked)
    start = time.monotonic()
    assert s.stop(20) == 0 and time.monotonic() - start < 13, s.log


def few_round_trips(t):
    b, tree = _Bucket(t, front=True), some_tree()
    b.front.latency = 0.1
    assert t.init(volume=t.fresh(), **b.store).status == "cold"
    assert fakes.depth(b.front.requests) <= 3, b.front.requests
    t.publish(tree, "--complete-after=0", volume=t.volume, **b.store)
    b.front.forget()
    r = t.init(volume=t.fresh(), **b.store)
    assert r.status == "warm" and fakes.depth(b.front.requests) <= 3, b.front.requests
    t.clear()
    t.init(**b.store)
    b.front.forget()
    r = t.init(**b.store)  # nothing lacks
    assert r.status == "warm" and r.json["fetched_bytes"] == 0, r
    assert len(b.front.requests) <= 2, b.front.requests
    Tree([inductor_file("delta")]).write(t.volume)
    b.front.forget()
    t.publish(None, volume=t.volume, **b.store)
    assert len(b.front.requests) <= 4, b.front.requests


def connections_are_kept(t):
    b = _Bucket(t, front=True)
    tree = Tree([other_file(str(i), 2 << 20) for i in range(12)])
    t.publish(tree, **b.store)
    b.front.forget()
    assert t.init(store=b.url + "&connections=2", env=b.env).status == "warm"
    assert len({r.peer for r in b.front.requests}) <= 2 < len(b.front.requests)


def no_secret_is_told_at_any_error(t):
    """check_secrets() looks at all that was written, here with every kind of error at once."""
    g = _Guarded(t)
    for act in (answer(403), answer(400), answer(500), s3_error(403, "SignatureDoesNotMatch",
                extra="<AWSAccessKeyId>A</AWSAccessKeyId><StringToSign>AWS4-HMAC-SHA256 x"
                "</StringToSign><SignatureProvided>abc</SignatureProvided>"),
                fakes.redirect("http://127.0.0.1:9"), fakes.close):
        g.front.clear()
        g.front.when(act)
        for form in ("text", "json"):
            t.init("--deadline=3s", "--log-format=" + form, store=g.url,
                   env=bare_env(t, **g.keys()))
    for command in ("ls", "verify", "show"):
        try:
            t.run(command, "--store", g.url, "--model", "m", "--version", "v1",
                  env=bare_env(t, **g.keys()))
        except AssertionError:
            pass
    assert t.written
    # What a server gives back of a request is no better: a message that quotes the login.
    keys = g.keys()
    g.front.clear()
    g.front.when(lambda r, forward: s3_error(403, "Odd", "you sent " + r.headers.get(
        "x-amz-security-token", ""))(r, forward))
    t.init("--deadline=3s", store=g.url, env=bare_env(t, **keys))


# ---- Google Cloud Storage ----

class _Google:
    def __init__(self, t, **metadata):
        self.server = servers.Gcs(t)
        self.metadata = fakes.Gce(t, **metadata)
        self.front = fakes.GcsFront(t, self.server, self.metadata)
        self.url = "gs://caches/team/x?endpoint=" + self.front.url
        self.env = bare_env(t, GCE_METADATA_HOST=self.metadata.host)
        self.dir = os.path.join(self.server.root, "caches/team/x")


def google_storage_with_the_metadata_servers_token(t):
    g, tree = _Google(t), small_tree()
    assert t.init(store=g.url, env=g.env).status == "cold"
    round_trip(t, g.url, Tree(tree.groups[3:]), env=g.env)
    assert layer.objects(g.dir)
    assert all(r.headers["authorization"].startswith("Bearer ya29.") for r in g.front.requests)
    r = t.init(volume=t.fresh(), store=g.url, env=g.env)
    assert r.status == "warm", r


def a_token_of_google_is_fetched_once_and_renewed_before_it_expires(t):
    g = _Google(t, seconds=4)
    s = t.sidecar("--settle=0", "--interval=1s", store=g.url, env=g.env)
    s.wait_for("state=started")
    for i in range(3):
        Tree([inductor_file("r%d" % i)]).write(t.volume)
        s.signal(signal.SIGUSR1)
        s.wait_for("INFO warmcache-sidecar: published", i + 1)
        time.sleep(3)
    assert s.stop() == 0 and s.count("publish-failed") == 0, s.log
    assert len(g.metadata.requests) >= 2
    g = _Google(t)
    round_trip(t, g.url, env=g.env)
    assert len(g.metadata.requests) == 2  # one for each program


def a_metadata_server_that_refuses_for_three_seconds_is_asked_again(t):
    g = _Google(t)
    t.publish(some_tree(), store=g.url, env=g.env)
    late = fakes.Gce(t, after=3)
    g.front.metadata = late
    r = t.init(store=g.url, env=bare_env(t, GCE_METADATA_HOST=late.host))
    assert r.status == "warm" and 2.5 < r.took < 9, r


def without_a_metadata_server_google_says_so(t):
    g = _Google(t)
    host = "127.0.0.1:%d" % servers.free_port()
    r = fails_open(t, "metadata", host, store=g.url, env=bare_env(t, GCE_METADATA_HOST=host))
    assert r.took < 12, r


def an_open_bucket_of_google_is_read_without_a_token(t):
    g, tree = _Google(t), some_tree()
    t.publish(tree, store=g.url, env=g.env)
    g.front.metadata = None
    g.front.forget()
    g.metadata.forget()
    r = t.init(store=g.url + "&anonymous=true", env=g.env)
    assert r.status == "warm" and not g.metadata.requests, r
    assert not [q for q in g.front.requests if "authorization" in q.headers]
