"""Children and orphans of this process, as the supervisor deals with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from ppserver.supervision import family

WAITING = [sys.executable, "-c", "input()"]


def test_a_child_until_it_was_waited_for() -> None:
    assert not family.is_child(os.getppid())
    assert not family.is_child(2**31 - 1)
    assert not family.is_child(0)  # Who sent that may have made it up.
    with subprocess.Popen(WAITING, stdin=subprocess.PIPE) as child:
        assert family.is_child(child.pid)
        assert child.pid in family.children()
        assert family.exit_code_of_child(child.pid) is None
        family.send(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert family.is_child(child.pid)
        assert family.exit_code_of_child(child.pid) == -signal.SIGKILL
        assert not family.is_child(child.pid)
        assert family.exit_code_of_child(child.pid) == 255  # Who knows.
        family.send(child.pid, signal.SIGKILL)


def test_orphans_are_adopted_and_taken_leave_of_others_kept() -> None:
    """In a process of its own: this one has children that are none of the test's business."""
    script = """
import os, subprocess, sys
from ppserver.supervision import family

assert family.adopt(True) is False
assert family.adopt(True) is True
kept = subprocess.Popen(["true"])
os.waitid(os.P_PID, kept.pid, os.WEXITED | os.WNOWAIT)
reader, writer = os.pipe()
waiting = f"sh -c 'read x' <&{reader} >&2 & echo $!"
orphan = int(subprocess.check_output(["sh", "-c", waiting], pass_fds=[reader]))
assert family.is_child(orphan)
family.reap_orphans({kept.pid})
assert family.is_child(orphan)
os.close(writer)
os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
family.reap_orphans({kept.pid})
assert not family.is_child(orphan)
assert family.children() == {kept.pid}
assert kept.wait() == 0
assert family.adopt(False) is True
family.reap_orphans(())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_name_of_a_host() -> None:
    script = """
from pathlib import Path
from ppserver.supervision import family

comm = Path("/proc/self/comm")
before = comm.read_text()
family.call_host(False)
assert comm.read_text() == before
family.call_host(True)
assert comm.read_text() == "ppserver-host\\n"
family.call_host(False)
assert comm.read_text() == before
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
