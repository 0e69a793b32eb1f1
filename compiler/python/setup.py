# SPDX-License-Identifier: Apache-2.0
"""The wheel's tag: any Python 3, one machine. ctypes loads the library, so no ABI is in it."""

import os

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel


class Binary(Distribution):
    def has_ext_modules(self):
        return True


class Wheel(bdist_wheel):
    def get_tag(self):
        return "py3", "none", "manylinux_2_28_" + os.uname().machine


setup(distclass=Binary, cmdclass={"bdist_wheel": Wheel})
