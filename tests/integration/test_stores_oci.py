# SPDX-License-Identifier: Apache-2.0
"""OCI registries, by docs/stores.md: login, names, tags; and what other tools make of them."""

import base64
import json
import os
import subprocess
import time

import fakes
import kinds
import servers
from support import (Tree, bare_env, check_whole, fails_open, inductor_file, round_trip,
                     some_tree, wait_until)


def _login_dir(t, registry, where="login", **kw):
    registry.config(t.dir(where), **kw)
    return t.path(where)


def _script(t, name, text):
    path = os.path.join(t.dir("path"), name)
    with open(path, "w") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)
    return t.path("path") + ":" + os.environ["PATH"]


def a_registry_without_login_holds_each_layer_as_an_artifact(t):
    r, tree = servers.Registry(t), some_tree()
    assert t.init(store=r.url("team/caches"), env=bare_env(t)).status == "cold"
    round_trip(t, r.url("team/caches"), tree, env=bare_env(t))
    layers = r.layers("team/caches")
    (name, (repository, tag, manifest)), = layers.items()
    assert repository == "team/caches/m" and name.startswith("m/v1/"), layers
    assert len(manifest["layers"]) == 1, manifest
    assert manifest["layers"][0]["mediaType"] == servers.LAYER, manifest
    assert manifest["config"]["mediaType"] == servers.EMPTY, manifest
    assert manifest["annotations"]["dev.warmcache.uploaded"].isdigit(), manifest
    title = manifest["annotations"].get("org.opencontainers.image.title") or \
        manifest["layers"][0]["annotations"]["org.opencontainers.image.title"]
    assert title == name.split("/")[-1], manifest


def a_registry_without_a_path(t):
    r = servers.Registry(t)
    round_trip(t, r.url(), env=bare_env(t))
    assert r.repositories() == ["m"]


def a_registry_by_tls_with_a_ca_of_our_own(t):
    ca = servers.Authority(t)
    r = servers.Registry(t, tls=ca)
    round_trip(t, r.url("x", plain_http="false"), env=bare_env(t))
    fails_open(t, "certificate", store="oci://%s/x?plain-http=false" % r.host, env=bare_env(t))


def a_login_of_config_json_wherever_it_is(t):
    r = servers.Registry(t, "htpasswd")
    url = r.url("team")
    fails_open(t, "401", r.host, store=url, env=bare_env(t))
    where = _login_dir(t, r)
    file = os.path.join(where, "config.json")
    round_trip(t, url, env=bare_env(t, DOCKER_CONFIG=where))
    secret = _login_dir(t, r, "secret", name=".dockerconfigjson")
    for more, env in (("?auth-file=" + file, {}), ("", {"REGISTRY_AUTH_FILE": file}),
                      ("", {"DOCKER_CONFIG": secret}),
                      ("?auth-file=%s/.dockerconfigjson" % secret, {})):
        got = t.init(store=url + more, env=bare_env(t, **env), volume=t.fresh())
        assert got.status == "warm", (more, env, got)
    _login_dir(t, r, "home/.docker")
    assert t.init(store=url, env=bare_env(t), volume=t.fresh()).status == "warm"
    fails_open(t, "401", store=url + "?login=none", env=bare_env(t))
    fails_open(t, "no-such-file", store=url + "?auth-file=/no-such-file", env=bare_env(t))


def a_login_that_is_wrong_is_told_without_it(t):
    r = servers.Registry(t, "htpasswd")
    r.password = "wrong-password-of-the-test"
    t.secrets.update([r.password, r.basic()])
    where = _login_dir(t, r)
    fails_open(t, "401", r.host, store=r.url("x"), env=bare_env(t, DOCKER_CONFIG=where))
    for text in ("", "{", "[]", '{"auths": 7}', '{"auths": {"%s": {"auth": "%%%%"}}}' % r.host,
                 '{"auths": {"%s": {"auth": ""}}}' % r.host):
        with open(os.path.join(where, "config.json"), "w") as f:
            f.write(text)
        fails_open(t, store=r.url("x"), env=bare_env(t, DOCKER_CONFIG=where))


def a_token_server_is_asked_with_the_login(t):
    r = servers.Registry(t, "token")
    env = bare_env(t, DOCKER_CONFIG=_login_dir(t, r))
    round_trip(t, r.url("team"), env=env)
    asked = r.tokens.seen("GET", "/token", service="tests")
    assert asked and all("team/m" in q.query["scope"] for q in asked), asked
    fails_open(t, ("401", "denied", "403"), store=r.url("team"), env=bare_env(t))
    r.tokens.users.clear()
    fails_open(t, ("401", "denied", "403"), store=r.url("team"), env=env)


def a_token_that_expires_is_fetched_again(t):
    r = servers.Registry(t, "token", token_seconds=3)
    s = t.sidecar("--settle=0", "--interval=1s", store=r.url("team"),
                  env=bare_env(t, DOCKER_CONFIG=_login_dir(t, r)))
    for i in range(3):
        Tree([inductor_file("r%d" % i)]).write(t.volume)
        s.wait_for("INFO warmcache-sidecar: published", i + 1)
        time.sleep(4)
    assert s.stop() == 0 and s.count("publish-failed") == 0, s.log


def a_credential_helper_is_asked(t):
    r = servers.Registry(t, "htpasswd")
    path = _script(t, "docker-credential-test", """
test "$1" = get || exit 1
read host
echo "$host" >> '%s'
test "$host" = '%s' -o "$host" = 'http://%s' -o "$host" = 'https://%s' || {
    echo 'credentials not found in native keychain'; exit 1; }
printf '{"ServerURL":"%%s","Username":"%%s","Secret":"%%s"}' "$host" '%s' '%s'
""" % (t.path("asked"), r.host, r.host, r.host, r.user, r.password))
    for config in ({"credHelpers": {r.host: "test"}}, {"credsStore": "test"}):
        with open(os.path.join(t.dir("login"), "config.json"), "w") as f:
            json.dump(config, f)
        round_trip(t, r.url("team"), env=bare_env(t, DOCKER_CONFIG=t.path("login"), PATH=path))
    assert os.path.getsize(t.path("asked"))


def a_credential_helper_that_fails_or_hangs_is_an_error(t):
    r = servers.Registry(t, "htpasswd")
    with open(os.path.join(t.dir("login"), "config.json"), "w") as f:
        json.dump({"credHelpers": {r.host: "test"}}, f)
    for text in ("echo no; exit 1", "echo '{'", "head -c 10000000 /dev/zero", "exec sleep 100"):
        path = _script(t, "docker-credential-test", text)
        got = t.init("--deadline=3s", store=r.url("x"),
                     env=bare_env(t, DOCKER_CONFIG=t.path("login"), PATH=path))
        assert got.code == 0 and got.status == "error" and got.took < 8, (text, got)
    path = bare_env(t)["PATH"]
    fails_open(t, "docker-credential-test", store=r.url("x"),
               env=bare_env(t, DOCKER_CONFIG=t.path("login"), PATH=path))


def ecr_is_logged_in_by_the_credentials_of_s3(t):
    r, issuer = servers.Registry(t, "htpasswd"), fakes.Issuer(t)
    ecr = fakes.Ecr(t, issuer, r.user, r.password)
    access, secret, token, _ = issuer.new()
    keys = {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_SESSION_TOKEN": token, "AWS_REGION": "eu-1"}
    env = bare_env(t, **keys, AWS_ENDPOINT_URL_ECR=ecr.url)
    round_trip(t, r.url("team", login="ecr"), env=env)
    assert len(ecr.requests) == 2, "one for each program"
    assert fakes.parse_authorization(ecr.requests[0])[1].split("/")[1] == "eu-1"
    env["AWS_SECRET_ACCESS_KEY"] = "wrong-secret-of-the-test"
    fails_open(t, "ecr", store=r.url("team", login="ecr"), env=env)


def ecr_is_known_by_its_host_and_tells_its_region(t):
    """Asked through a proxy, which is the registry."""
    r, issuer = servers.Registry(t, "htpasswd"), fakes.Issuer(t)
    ecr = fakes.Ecr(t, issuer, r.user, r.password)
    front = fakes.Front(t, r.endpoint)
    access, secret, token, _ = issuer.new()
    env = bare_env(t, AWS_ACCESS_KEY_ID=access, AWS_SECRET_ACCESS_KEY=secret,
                   AWS_SESSION_TOKEN=token, AWS_ENDPOINT_URL_ECR=ecr.url, http_proxy=front.url,
                   NO_PROXY="127.0.0.1")
    host = "123456789012.dkr.ecr.eu-north-1.amazonaws.com"

    def here(q, forward):
        """Its own name in Locations would lead past the proxy."""
        reply = forward()
        reply.headers = [(k, v.replace(r.host, host)) for k, v in reply.headers]
        return reply
    front.when(here)
    round_trip(t, "oci://%s/team?plain-http=true" % host, env=env)
    assert fakes.parse_authorization(ecr.requests[0])[1].split("/")[1] == "eu-north-1"
    assert r.layers("team")


def artifact_registry_is_logged_in_by_the_metadata_server(t):
    r = servers.Registry(t)
    metadata = fakes.Gce(t)
    front = fakes.Front(t, r.endpoint)

    def guard(q, forward):
        login = q.headers.get("authorization", "")
        if login.startswith("Basic "):  # oauth2accesstoken:TOKEN, as docker login sends it
            user, _, token = base64.b64decode(login[6:]).decode().partition(":")
            login = "Bearer " + token if user == "oauth2accesstoken" else ""
        if not metadata.knows(login):
            return fakes.Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}, "{}")
        return forward()
    front.when(guard)
    url = "oci://%s/project/caches" % front.host
    env = bare_env(t, GCE_METADATA_HOST=metadata.host)
    round_trip(t, url + "?login=google", env=env)
    fails_open(t, "401", store=url, env=env)


def long_and_odd_names_come_back(t):
    r = servers.Registry(t)
    names = [("m", "v" * 128), ("Llama-3", "v1"), ("LLAMA-3", "V1"), ("llama-3", "v1"),
             ("a b:c@d", "x y:z"), ("\u00e9%2F", "\u00e9" * 42), ("_.-x-._", "-"), ("x__4c", "_"),
             ("m" * 128, "1" * 128), ("..x", "+v"), ("-", "v"), ("a--b", "v"), ("a-2db", "v")]
    for model, version in names:
        tree = Tree([inductor_file(model + version)])
        round_trip(t, r.url("c"), tree, env=bare_env(t), model=model, version=version)
    repositories = r.repositories()
    assert len(set(repositories)) == len(names), repositories
    for name, (repository, tag, _) in r.layers("c").items():
        parts = name.split("/")
        assert repository == "c/" + kinds.encode_model(parts[0]), (name, repository)
        assert tag == kinds.tag_of(*parts[1:]), (name, tag)
    keys = json.loads(t.run("ls", "--json", "--store", r.url("c"), env=bare_env(t)).stdout)["keys"]
    assert {k["model"] for k in keys} == {model for model, _ in names}, keys


def many_versions_platforms_and_layers_keep_apart(t):
    r = servers.Registry(t)
    trees = {}
    for version in ("v1", "v2", "V1"):
        for platform in ("h100", "a100"):
            tree = trees[version, platform] = Tree([inductor_file(version + platform)])
            t.publish(tree, "--platform=" + platform, version=version, store=r.url("c"),
                      env=bare_env(t))
    for (version, platform), tree in trees.items():
        volume = t.fresh()
        got = t.init("--platform=" + platform, "--fallback=none", version=version,
                     store=r.url("c"), volume=volume, env=bare_env(t))
        assert got.status == "warm" and check_whole(volume, tree) == 1, got
    assert len(r.layers("c")) == 6


def tags_come_in_pages(t):
    r = servers.Registry(t)
    front = fakes.Front(t, r.endpoint)

    def small(q, forward):
        """A server that gives three at a time, whatever is asked for."""
        last = q.query.get("last", "")
        tags = [x for x in r.tags("c/m") if x > last]
        headers = {"Content-Type": "application/json"}
        if len(tags) > 3:
            headers["Link"] = '</v2/c/m/tags/list?last=%s&n=3>; rel="next"' % tags[2]
        return fakes.Reply(200, headers, json.dumps({"name": "c/m", "tags": tags[:3]}))
    front.when(small, "GET", "/v2/c/m/tags/list")
    every = []
    for i in range(8):
        tree = Tree([inductor_file("p%d" % i)])
        every += tree.groups
        t.publish(tree, store=r.url("c"), env=bare_env(t))
    got = t.init(store="oci://%s/c" % front.host, env=bare_env(t))
    assert got.status == "warm" and check_whole(t.volume, Tree(every)) == 8, got
    assert len(front.seen("GET", "/tags/list")) >= 3


def tags_that_come_in_full_pages_without_a_link_are_all_seen(t):
    r, tree = servers.Registry(t), some_tree()
    front = fakes.Front(t, r.endpoint)
    t.publish(tree, store=r.url("c"), env=bare_env(t))

    def full(q, forward):
        """A page is as long as was asked for, and what lacks comes with last=."""
        tags = ["0-%05d" % i for i in range(2 * int(q.query["n"]))] + r.tags("c/m")
        start = tags.index(q.query["last"]) + 1 if "last" in q.query else 0
        page = tags[start:start + int(q.query["n"])]
        return fakes.Reply(200, {}, json.dumps({"name": "c/m", "tags": page}))
    front.when(full, "GET", "/v2/c/m/tags/list")
    got = t.init("--fallback=none", store="oci://%s/c" % front.host, env=bare_env(t))
    assert got.status == "warm" and check_whole(t.volume, tree) == len(tree.groups), got
    assert len(front.seen("GET", "/tags/list")) == 3


def a_list_or_manifest_that_is_cut_short_is_an_error_and_no_cold_start(t):
    r = servers.Registry(t)
    front = fakes.Front(t, r.endpoint)
    t.publish(some_tree(), store=r.url("c"), env=bare_env(t))
    page = json.dumps({"name": "c/m", "tags": []})
    next_page = "/v2/c/m/tags/list?n=1000&last=a>; rel=\"next\""
    login = fakes.answer(200, {"Content-Type": "text/html"}, "<html>Log in, please</html>")
    for path, act in (
            ("/tags/list", fakes.answer(200, {"Link": "<https://%s" % front.host + next_page},
                                        page)),
            ("/tags/list", fakes.answer(200, {"Link": "<http://127.0.0.1:9" + next_page}, page)),
            ("/tags/list", login), ("/manifests/", login)):
        front.clear()
        front.when(act, "GET", path)
        got = fails_open(t, store="oci://%s/c" % front.host, env=bare_env(t))
        assert got.status == "error", (path, got)


def tags_of_others_in_the_repository_are_passed_over(t):
    r, tree = servers.Registry(t), some_tree()
    t.publish(tree, store=r.url("c"), env=bare_env(t))
    r.push("c/m", "latest", b"something", {})
    r.push("c/m", "evil", b"something", {servers.NAME: "m/v1/../../../etc/x"})
    r.push("c/m", "other", b"something", {servers.NAME: "no/layer"})
    got = t.init("--require", store=r.url("c"), env=bare_env(t))
    assert got.status == "warm" and check_whole(t.volume, tree) == len(tree.groups), got


def skopeo_copies_a_layer_to_another_registry(t):
    first, second, tree = servers.Registry(t), servers.Registry(t, "htpasswd"), some_tree()
    t.publish(tree, store=first.url("a"), env=bare_env(t))
    (_, (repository, tag, manifest)), = first.layers().items()
    skopeo = servers.system("skopeo")
    raw = subprocess.run([skopeo, "inspect", "--raw", "--tls-verify=false", "docker://%s/%s:%s" % (
        first.host, repository, tag)], check=True, stdout=subprocess.PIPE, timeout=60).stdout
    assert json.loads(raw) == manifest
    subprocess.run([skopeo, "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
                    "--dest-creds", "%s:%s" % (second.user, second.password),
                    "docker://%s/%s:%s" % (first.host, repository, tag),
                    "docker://%s/b/m:%s" % (second.host, tag)], check=True, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    env = bare_env(t, DOCKER_CONFIG=_login_dir(t, second))
    got = t.init("--require", store=second.url("b"), env=env)
    assert got.status == "warm" and check_whole(t.volume, tree) == len(tree.groups), got


def what_was_deleted_by_other_means_is_gone(t):
    r, tree = servers.Registry(t), some_tree()
    t.publish(tree, store=r.url("c"), env=bare_env(t))
    (_, (repository, tag, _)), = r.layers().items()
    r.delete(repository, tag)
    got = t.init(store=r.url("c"), env=bare_env(t))
    assert got.code == 0 and got.status == "cold", got
    round_trip(t, r.url("c"), tree, env=bare_env(t))


def a_blob_that_is_gone_is_an_error_and_leaves_the_volume_usable(t):
    r = servers.Registry(t)
    t.publish(some_tree(), store=r.url("c"), env=bare_env(t))
    (_, (repository, _, manifest)), = r.layers().items()
    r.call("DELETE", "/v2/%s/blobs/%s" % (repository, manifest["layers"][0]["digest"]))
    got = t.init(store=r.url("c"), env=bare_env(t))
    assert got.code == 0 and got.status in ("error", "cold") and got.json["reason"], got


def _blobs(r):
    """What another host answers on which a registry's blobs lie."""
    def serve(q):
        data = r.blob("c/m", q.path.rsplit("/", 1)[1])
        start, end = q.headers["range"].split("=")[1].split("-")
        part = data[int(start):int(end) + 1]
        return fakes.Reply(206, {"Content-Range": "bytes %s-%d/%d" % (
            start, int(start) + len(part) - 1, len(data))}, part)
    return serve


def blobs_that_lie_on_another_host_are_fetched_without_the_login(t):
    r, tree = servers.Registry(t, "htpasswd"), some_tree()
    env = bare_env(t, DOCKER_CONFIG=_login_dir(t, r))
    t.publish(tree, store=r.url("c"), env=env)
    front = fakes.Front(t, r.endpoint)
    _login_dir(t, r, host=front.host)
    elsewhere = fakes.Hooks(t, _blobs(r))
    front.when(fakes.redirect(elsewhere.url), "GET", "/blobs/sha256")
    got = t.init(store="oci://%s/c" % front.host, env=env)
    assert got.status == "warm" and check_whole(t.volume, tree) == len(tree.groups), got
    assert elsewhere.requests
    assert not [q for q in elsewhere.requests if "authorization" in q.headers]


def another_host_that_asks_for_the_login_does_not_get_it(t):
    asks = {}
    elsewhere = fakes.Hooks(t, lambda q: fakes.Reply(200, {}, '{"token": "of-no-use"}')
                            if "/token" in q.path else fakes.Reply(401, asks))
    for auth in ("htpasswd", "token"):
        r = servers.Registry(t, auth)
        front = fakes.Front(t, r.endpoint)
        store = {"store": "oci://%s/c" % front.host,
                 "env": bare_env(t, DOCKER_CONFIG=_login_dir(t, r, host=front.host))}
        t.publish(some_tree(), **store)
        front.when(fakes.redirect(elsewhere.url), "GET", "/blobs/sha256")
        for challenge in ('Basic realm="%s/token"', 'Bearer realm="%s/token",service="s"'):
            asks["WWW-Authenticate"] = challenge % elsewhere.url
            elsewhere.forget()
            fails_open(t, "401", "blob", **store)
            assert elsewhere.requests and not elsewhere.seen(path="/token"), elsewhere.requests
            assert not [q for q in elsewhere.requests if "authorization" in q.headers], challenge


def a_signed_url_that_has_expired_is_asked_for_anew(t):
    r, tree = servers.Registry(t), some_tree()
    t.publish(tree, store=r.url("c"), env=bare_env(t))
    front = fakes.Front(t, r.endpoint)
    serve, refused = _blobs(r), []

    def once(q):
        if not refused:
            refused.append(q)
            return fakes.Reply(403, {}, "<Error><Code>AccessDenied</Code>"
                               "<Message>Request has expired</Message></Error>")
        return serve(q)
    elsewhere = fakes.Hooks(t, once)
    front.when(fakes.redirect(elsewhere.url), "GET", "/blobs/sha256")
    got = t.init(store="oci://%s/c" % front.host, env=bare_env(t))
    assert got.status == "warm" and check_whole(t.volume, tree) == len(tree.groups), got
    path, first = refused[0].path, refused[0].headers["range"]
    again = [q for q in front.seen("GET", path) if q.headers.get("range") == first]
    assert len(again) == 2, front.requests


def an_uploads_location_without_tls_is_refused_and_gets_nothing(t):
    r = servers.Registry(t)
    front = fakes.Front(t, r.endpoint, tls=servers.Authority(t))
    clear = fakes.Front(t, r.endpoint)

    def strip(q, forward):
        reply = forward()
        reply.headers = [(k, "%s/%s" % (clear.url, v.split("/", 3)[3])
                          if k.lower() == "location" else v) for k, v in reply.headers]
        return reply
    front.when(strip, "POST", "/uploads")
    some_tree().write(t.volume)
    s = t.sidecar("--settle=0", env=bare_env(t), store="oci://%s/c?plain-http=false&ca=%s" % (
        front.host, t.path("ca", "ca.pem")))
    s.wait_for("publish-failed")
    assert s.stop() == 0 and "Location without TLS" in s.log, s.log
    assert not clear.requests and r.layers() == {}, clear.requests


def a_registry_that_fails_for_a_while_is_tried_again(t):
    r, tree = servers.Registry(t), some_tree()
    front = fakes.Front(t, r.endpoint)
    url = "oci://%s/c" % front.host
    for i, act in enumerate((fakes.answer(503, {"Retry-After": "1"}), fakes.answer(429),
                             fakes.answer(500))):
        for method, path in (("GET", "/tags/list"), ("GET", "/manifests/"), ("GET", "/blobs/"),
                             ("POST", "/uploads"), ("PUT", "/uploads"), ("PUT", "/manifests/")):
            front.clear()
            front.when(act, method, path, times=1)
            more = Tree([inductor_file("%d%s%s" % (i, method, path))])
            log = t.publish(more, store=url, env=bare_env(t))
            assert "publish-failed" not in log, (act, path, log)
        front.clear()
    got = t.init(store=url, env=bare_env(t))
    assert got.status == "warm" and tree, got
    assert len(r.layers("c")) == 18


def a_put_that_is_killed_leaves_no_layer(t):
    r = servers.Registry(t)
    front = fakes.Front(t, r.endpoint)
    some_tree().write(t.volume)
    for method, path in (("POST", "/uploads"), ("PUT", "/uploads"), ("PUT", "/manifests/")):
        front.clear()
        front.when(fakes.hang(front), method, path)
        s = t.sidecar("--settle=0", store="oci://%s/c" % front.host, env=bare_env(t))
        wait_until("a put", lambda: front.seen(method, path))
        s.kill()
        assert r.layers() == {}, (method, path)
    front.clear()
    round_trip(t, "oci://%s/c" % front.host, env=bare_env(t))


def a_registry_that_hangs_holds_no_deadline_up(t):
    r = servers.Registry(t)
    front = fakes.Front(t, r.endpoint)
    t.publish(some_tree(), store=r.url("c"), env=bare_env(t))
    for path in ("/tags/list", "/manifests/", "/blobs/"):
        front.clear()
        front.when(fakes.hang(front), "GET", path)
        got = t.init("--deadline=2s", store="oci://%s/c" % front.host, env=bare_env(t),
                     volume=t.fresh())
        assert got.code == 0 and got.status == "error" and got.took < 3.5, (path, got)


def errors_of_a_registry_say_what_and_where(t):
    r = servers.Registry(t)
    front = fakes.Front(t, r.endpoint)
    body = '{"errors":[{"code":"DENIED","message":"requested access is denied"}]}'
    front.when(fakes.answer(403, {"Content-Type": "application/json"}, body))
    fails_open(t, "403", "DENIED", front.host, store="oci://%s/c" % front.host, env=bare_env(t))
    fails_open(t, "127.0.0.1:9", store="oci://127.0.0.1:9/c", env=bare_env(t))
    front.clear()
    front.when(fakes.answer(404, {}, "404 page not found"))
    fails_open(t, store="oci://%s/c" % front.host, env=bare_env(t))
