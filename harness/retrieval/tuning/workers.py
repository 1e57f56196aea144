"""Who works on a trial, told so that others on its machine can see whether it still runs."""

from __future__ import annotations

import json
import os
import socket


def this_process() -> str:
    """This process, told apart from one that gets its number later."""
    import psutil

    return json.dumps([socket.gethostname(), os.getpid(), psutil.Process().create_time()])


def is_gone(worker: str) -> bool:
    """Whether a process is known to have ended; of other machines nothing is known here.

    Args:
        worker: as `this_process` told it.
    """
    import psutil

    host, pid, began = json.loads(worker)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - began) > 1 or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
