"""Loaded by every Python process that has this folder on its PYTHONPATH; see tests/support/killing.py."""

from tests.support.killing import Killer, install

_killer = Killer.of_environment()
if _killer is not None:
    install(_killer)
