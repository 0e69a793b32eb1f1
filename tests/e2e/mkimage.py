#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An image without a daemon: mkimage.py OUT.tar NAME:TAG CONFIG ENTRY...

Writes an OCI layout of one layer, the same bytes for the same input, as `ctr images import` reads
it. CONFIG is the image's config, in JSON. An ENTRY is PATH=FILE, PATH->TARGET (a symbolic link) or
PATH/ (a directory; tmp/ is everyone's)."""

import json
import os
import platform
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "scripts"))
import oci  # noqa: E402


def tree_of(entries):
    tree = oci.Tree()
    for entry in entries:
        if entry.endswith("/"):
            tree.dir(entry[:-1], 0o1777 if entry == "tmp/" else 0o755)
        elif "->" in entry:
            tree.link(*entry.split("->"))
        else:
            name, file = entry.split("=", 1)
            with open(file, "rb") as f:
                tree.file(name, f.read(), 0o755 if os.access(file, os.X_OK) else 0o644)
    return tree


def main(out, name, config, *entries):
    machine = {"architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
               "os": "linux"}
    layout = oci.Layout()
    layout.name(layout.image(tree_of(entries), machine, json.loads(config)), name)
    layout.write_tar(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
