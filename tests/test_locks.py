"""Locks of folders: one process holds one, and its end is the lock's."""

import subprocess
import sys

import pytest

from cvae import locks

HOLD = """
import pathlib, sys, time
from cvae import locks
with locks.lock(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_one_process_writes_and_its_lock_ends_with_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        message = rf"run folder must be free, got .*, in use by process {holder.pid} since 20\d\d-"
        with pytest.raises(ValueError, match=message), locks.lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with locks.lock(tmp_path):
        (tmp_path / locks.HOLDER).unlink()
        with pytest.raises(ValueError, match="in use by another process"), locks.lock(tmp_path):
            pass
    with locks.lock(tmp_path):
        pass


def test_a_claim_says_whether_the_lock_is_free(tmp_path):
    with locks.claim(tmp_path) as first, locks.claim(tmp_path) as second:
        assert first
        assert not second
    with locks.claim(tmp_path) as again:
        assert again
