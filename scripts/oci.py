# SPDX-License-Identifier: Apache-2.0
"""OCI layouts without a daemon, the same bytes for the same input: scripts/image, and the images of
tests/e2e/mkimage.py."""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile

KIND = "application/vnd.oci.image."
INDEX, MANIFEST = KIND + "index.v1+json", KIND + "manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def to_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def add(tar, name, data=b"", mode=0o644, kind=tarfile.REGTYPE, link="", mtime=0):
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.linkname, info.size = mode, kind, link, len(data)
    info.mtime = mtime
    tar.addfile(info, io.BytesIO(data))


class Tree:
    """What a layer holds: of root, sorted, with the directories above each file."""

    def __init__(self):
        self._entries = {}  # path: (kind, mode, data, link)

    def _put(self, path, *entry):
        parent = os.path.dirname(path)
        if parent and parent not in self._entries:
            self.dir(parent)
        self._entries[path] = entry

    def dir(self, path, mode=0o755):
        self._put(path, tarfile.DIRTYPE, mode, b"", "")

    def file(self, path, data, mode=0o644):
        self._put(path, tarfile.REGTYPE, mode, data, "")

    def link(self, path, target):
        self._put(path, tarfile.SYMTYPE, 0o777, b"", target)

    def files(self):
        """(path, data) of each file."""
        return [(path, e[2]) for path, e in sorted(self._entries.items())
                if e[0] == tarfile.REGTYPE]

    def tar(self, mtime=0):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path, (kind, mode, data, link) in sorted(self._entries.items()):
                add(tar, path, data, mode, kind, link, mtime)
        return out.getvalue()


class Layout:
    """Blobs, and the index that names what is to be loaded."""

    def __init__(self):
        self._blobs = {}
        self._top = []

    def blob(self, data, media_type, **more):
        """Its descriptor; `more` are further fields of it."""
        self._blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}

    def data(self, descriptor):
        return self._blobs[descriptor["digest"]]

    def image(self, tree, machine, config, mtime=0, compress=False, annotations=None, **more):
        """The descriptor of an image of one layer. `machine` has architecture and os, `more`
        further fields of its config."""
        tar = tree.tar(mtime)
        layer = self.blob(gzip.compress(tar, 9, mtime=0), KIND + "layer.v1.tar+gzip") \
            if compress else self.blob(tar, KIND + "layer.v1.tar")
        described = self.blob(to_json({
            **machine, **more, "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(tar)]}}), KIND + "config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described,
                    "layers": [layer]}
        if annotations:
            manifest["annotations"] = annotations
        return self.blob(to_json(manifest), MANIFEST, platform=machine)

    def artifact(self, data, media_type, subject, annotations=None):
        """The descriptor of a manifest that holds `data` about `subject`: a referrer."""
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": media_type,
            "config": self.blob(b"{}", EMPTY), "layers": [self.blob(data, media_type)],
            "subject": {k: subject[k] for k in ("mediaType", "digest", "size")}}
        if annotations:
            manifest["annotations"] = annotations
        return self.blob(to_json(manifest), MANIFEST)

    def index(self, manifests, annotations=None):
        value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        if annotations:
            value["annotations"] = annotations
        return self.blob(to_json(value), INDEX)

    def name(self, descriptor, name):
        """What loads the layout finds `descriptor` as `name`, HOST/NAME:TAG."""
        self._top.append({**descriptor, "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}})

    def _files(self):
        yield "oci-layout", to_json({"imageLayoutVersion": "1.0.0"})
        yield "index.json", to_json({"schemaVersion": 2, "mediaType": INDEX,
                                     "manifests": self._top})
        for name, data in sorted(self._blobs.items()):
            yield "blobs/sha256/" + name[7:], data

    def write_tar(self, path, mtime=0):
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in self._files():
                add(tar, name, data, mtime=mtime)

    def write_dir(self, path):
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(os.path.join(path, "blobs", "sha256"))
        for name, data in self._files():
            with open(os.path.join(path, name), "wb") as f:
                f.write(data)
