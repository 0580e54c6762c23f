"""The process that runs, which a fork replaces."""

import os

from tus.filesystem import processes


def test_a_forked_child_is_another_process():
    parent = processes.current
    child = os.fork()
    if not child:
        os._exit(processes.current is parent)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert processes.current is parent
