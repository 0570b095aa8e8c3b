"""Processes in place of those of scripts/fuzz.py, that fail at the input 1."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection


def dies(pipe: Connection, seed: int, numbers: range, memory: int) -> None:
    """As a process does that the system kills for its memory."""
    for number in numbers:
        pipe.send(number)
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        pipe.send((number, "", "picture", 0.0, 0.0))
    pipe.send(None)


def hangs(pipe: Connection, seed: int, numbers: range, memory: int) -> None:
    """Without an end."""
    for number in numbers:
        pipe.send(number)
        if number == 1:
            time.sleep(600)
        pipe.send((number, "", "picture", 0.0, 0.0))
    pipe.send(None)
