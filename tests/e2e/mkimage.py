#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An image without a daemon: mkimage.py OUT.tar NAME:TAG CONFIG ENTRY...

Writes an OCI layout of one layer, the same bytes for the same input, as `ctr images import` reads
it. CONFIG is the image's config, in JSON. An ENTRY is PATH=FILE, PATH->TARGET (a symbolic link) or
PATH/ (a directory; tmp/ is everyone's)."""

import hashlib
import io
import json
import os
import platform
import sys
import tarfile


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def add(tar, name, data=b"", mode=0o644, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.linkname, info.size = mode, kind, link, len(data)
    tar.addfile(info, io.BytesIO(data))


def layer_of(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in entries:
            if entry.endswith("/"):
                add(tar, entry, mode=0o1777 if entry == "tmp/" else 0o755, kind=tarfile.DIRTYPE)
            elif "->" in entry:
                name, target = entry.split("->")
                add(tar, name, mode=0o777, kind=tarfile.SYMTYPE, link=target)
            else:
                name, file = entry.split("=", 1)
                with open(file, "rb") as f:
                    add(tar, name, f.read(), 0o755 if os.access(file, os.X_OK) else 0o644)
    return out.getvalue()


def main(out, name, config, *entries):
    machine = {"architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
               "os": "linux"}
    kind = "application/vnd.oci.image."
    layer = layer_of(entries)
    config = json.dumps({**machine, "config": json.loads(config),
                         "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
                         "history": [{"created_by": "mkimage.py"}]}, sort_keys=True).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
        "config": {"mediaType": kind + "config.v1+json", "digest": digest(config),
                   "size": len(config)},
        "layers": [{"mediaType": kind + "layer.v1.tar", "digest": digest(layer),
                    "size": len(layer)}]}, sort_keys=True).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [{
        "mediaType": kind + "manifest.v1+json", "digest": digest(manifest), "size": len(manifest),
        "platform": machine,
        "annotations": {"io.containerd.image.name": name,
                        "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}}]}).encode()
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add(tar, "index.json", index)
        for blob in (layer, config, manifest):
            add(tar, "blobs/sha256/" + digest(blob)[7:], blob)


if __name__ == "__main__":
    main(*sys.argv[1:])
