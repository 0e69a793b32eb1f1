# SPDX-License-Identifier: Apache-2.0
"""Web servers that serve a copy of a store, by docs/stores.md: heads, ranges, what goes wrong."""

import os
import time

import fakes
import layer
import servers
from support import (UNSUPPORTED, Tree, bare_env, blob, check_whole, fails_open, inductor_file,
                     small_tree, some_tree, snapshot)


class _Web:
    """A directory store, nginx over it, and a front."""

    def __init__(self, t, tree=None, head=True, **more):
        self.t = t
        os.chmod(t.tmp, 0o755)
        self.tree = tree or some_tree()
        t.publish(self.tree, volume=t.volume)
        t.clear()
        if head:
            self.head()
        self.server = servers.Nginx(t, t.tmp, **more)
        self.front = fakes.Front(t, self.server.endpoint)
        self.url = self.front.url + "/store"
        self.store = {"store": self.url, "env": bare_env(t)}

    def head(self):
        return self.t.run("head", "--store", self.t.store)

    def warm(self, **kw):
        volume = self.t.fresh("out")
        r = self.t.init(**{**self.store, "volume": volume, **kw})
        assert r.code == 0 and r.status == "warm", r
        assert check_whole(volume, self.tree) == len(self.tree.groups), r
        return r


def a_store_is_read_by_its_head(t):
    w = _Web(t)
    assert os.path.isfile(os.path.join(t.store, "head"))
    assert os.path.isfile(os.path.join(t.store, "m", "head"))
    w.warm()
    assert len(w.front.requests) <= 4, w.front.requests
    for command in ("ls", "show", "verify"):
        key = [] if command == "ls" else ["--model", "m", "--version", "v1"]
        assert "v1" in t.run(command, "--store", w.url, *key, env=bare_env(t)).stdout


def a_store_by_tls(t):
    ca = servers.Authority(t)
    w = _Web(t, tls=ca)
    w.warm(store=w.server.url("store"))
    plain = w.server.endpoint + "/store"
    w.warm(store=plain, env=bare_env(t, SSL_CERT_FILE=ca.ca))
    fails_open(t, "certificate", store=plain, env=bare_env(t))


def a_head_names_what_counts_and_what_it_does_not_name_is_not_seen(t):
    w = _Web(t)
    later = Tree([inductor_file("later")])
    t.publish(later)
    r = w.warm()
    assert r.json["files"] == len(w.tree.files), r
    w.head()
    volume = t.fresh()
    assert t.init(volume=volume, **w.store).status == "warm"
    assert check_whole(volume, w.tree + later) == len(w.tree.groups) + 1


def a_head_that_names_what_is_gone_is_an_error_that_says_so(t):
    w = _Web(t)
    for path in layer.objects(t.store):
        os.unlink(path)
    r = fails_open(t, **w.store)
    assert r.status == "error" and "404" in r.err, r


def a_store_without_a_head_is_cold_and_says_why(t):
    w = _Web(t, head=False)
    r = fails_open(t, "head", **w.store)
    assert "404" in r.json["reason"] or "no head" in r.json["reason"] or \
        "warmcache head" in r.json["reason"], r
    w.head()
    w.warm()


def a_model_that_is_not_in_the_store_is_cold(t):
    w = _Web(t)
    r = t.init(model="other", **w.store)
    assert r.code == 0 and r.status == "cold", r


def another_version_is_the_fallback(t):
    w = _Web(t)
    r = t.init(version="v2", **w.store)
    assert r.status == "fallback" and r.json["fallback"] == "v1", r


def a_head_that_is_damaged_is_an_error(t):
    w = _Web(t)
    for name in ("head", "m/head"):
        path = os.path.join(t.store, name)
        with open(path, "rb") as f:
            whole = f.read()
        for data in (b"", b"hello", whole[:-7], whole + b"more", b"<html>404</html>",
                     os.urandom(5000), b"\0" * 100, whole[:20] + b"../../" + whole[26:]):
            with open(path, "wb") as f:
                f.write(data)
            volume = t.fresh()
            r = t.init(volume=volume, **w.store)
            n = check_whole(volume, w.tree, repr(data[:20]))
            assert r.code == 0 and (r.status == "warm") == (n == len(w.tree.groups)), (data, r)
            if n == 0:
                assert r.json["reason"], r
        with open(path, "wb") as f:
            f.write(whole)
    w.warm()


def a_server_without_ranges_works(t):
    tree = Tree([{"own/large": blob("large", 12 << 20)}, inductor_file("a")])
    _Web(t, tree, ranges=False).warm()


def a_server_that_lies_about_ranges_never_tears_a_volume(t):
    w = _Web(t, small_tree())
    for act in (fakes.wrong_range, fakes.other_bytes, fakes.whole_instead_of_range,
                fakes.longer_than_it_is, fakes.shorter_than_it_is, fakes.answer(206),
                fakes.answer(200), fakes.answer(204), fakes.answer(416), fakes.cut(0.3)):
        w.front.clear()
        w.front.when(act, "GET", ".tar.zst")
        t.clear()
        r = t.init("--deadline=15s", **w.store)
        n = check_whole(t.volume, w.tree, str(act))
        assert r.code == 0 and r.took < 18, (act, r)
        assert (r.status == "warm") == (n == len(w.tree.groups)), (act, r)
        assert (act != fakes.whole_instead_of_range) or r.status == "warm", r
    assert not [p for p in snapshot(t.volume, ours=True) if "stage" in p]


def a_bearer_token_is_read_at_every_request(t):
    w = _Web(t)
    token = t.path("token")
    t.secrets.update(["first-token-of-the-test", "second-token-of-the-test"])

    def guard(good):
        w.front.clear()
        w.front.when(lambda r, forward: forward() if r.headers.get("authorization") ==
                     "Bearer " + good else fakes.Reply(401, {}, "no"))
    guard("first-token-of-the-test")
    store = w.url + "?bearer-file=" + token
    fails_open(t, token, store=store, env=bare_env(t))
    with open(token, "w") as f:
        f.write("first-token-of-the-test\n")
    w.warm(store=store)
    guard("second-token-of-the-test")
    fails_open(t, "401", store=store, env=bare_env(t))
    with open(token, "w") as f:
        f.write("second-token-of-the-test")
    w.warm(store=store)
    fails_open(t, "401", **w.store)


def a_bearer_token_does_not_cross_to_another_host(t):
    w = _Web(t)
    with open(t.path("token"), "w") as f:
        f.write("token-of-the-test")
    t.secrets.add("token-of-the-test")
    elsewhere = fakes.Front(t, w.server.endpoint)
    for status in (301, 302, 307, 308):
        w.front.clear()
        w.front.when(fakes.redirect(elsewhere.url, status), "GET")
        w.warm(store=w.url + "?bearer-file=" + t.path("token"))
    assert elsewhere.requests
    assert not [r for r in elsewhere.requests if "authorization" in r.headers]


def a_redirect_from_tls_to_clear_text_is_not_followed(t):
    ca = servers.Authority(t)
    w = _Web(t)
    front = fakes.Front(t, w.server.endpoint, tls=ca)
    front.when(fakes.redirect(w.server.endpoint), "GET")
    fails_open(t, store="%s/store?ca=%s" % (front.url, ca.ca), env=bare_env(t))
    front.clear()
    w.warm(store="%s/store?ca=%s" % (front.url, ca.ca))


def endless_redirects_end(t):
    w = _Web(t)
    w.front.when(fakes.redirect(w.front.url), "GET")
    r = fails_open(t, store=w.url, env=bare_env(t))
    assert r.took < 20 and len(w.front.requests) < 200, r


def it_is_read_only_and_says_so(t):
    w = _Web(t)
    Tree([inductor_file("new")]).write(t.volume)
    p = t.run("push", t.volume, "--store", w.url, "--model", "m", "--version", "v1",
              code=UNSUPPORTED, env=bare_env(t))
    assert "only read" in p.stderr, p.stderr
    s = t.sidecar("--settle=0", **w.store)
    s.wait_for("only read")
    start = time.monotonic()
    assert s.stop() == 0 and time.monotonic() - start < 4, "it is no failure that passes"
    assert not [r for r in w.front.requests if r.method not in ("GET", "HEAD")]


def a_head_is_written_for_other_stores_too(t):
    """Of a bucket, to be read from a web server before it."""
    s3 = servers.S3(t)
    env = bare_env(t, **s3.keys())
    tree = some_tree()
    t.publish(tree, store=s3.url("team"), env=env)
    t.run("head", "--store", s3.url("team"), env=env)
    web = servers.Nginx(t, s3.bucket_dir)
    os.chmod(t.tmp, 0o755)
    r = t.init(store=web.url("team"), env=bare_env(t))
    assert r.status == "warm" and check_whole(t.volume, tree) == len(tree.groups), r
    # And it doesn't disturb who lists.
    r = t.init(store=s3.url("team"), env=env, volume=t.fresh())
    assert r.status == "warm", r


def a_server_that_fails_for_a_while_is_tried_again(t):
    w = _Web(t)
    for act in (fakes.answer(503, {"Retry-After": "1"}), fakes.answer(429), fakes.answer(500)):
        for path in ("/head", ".tar.zst"):
            w.front.clear()
            w.front.when(act, "GET", path, times=2)
            w.warm()
