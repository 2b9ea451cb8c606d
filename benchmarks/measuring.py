"""What benchmarks of time and memory share: two functions timed in turns, and the memory of a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def in_turn(
    slow: Callable[[], object],
    quick: Callable[[], object],
    runs: int,
    often: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, float]:
    """Median seconds of two functions timed alternately, so that other load hits both, after one warm-up of each.

    The quick one is called `often` times over, since some systems count CPU time, which the clock is by default, in
    steps of 4 ms.
    """
    times = np.empty((runs + 1, 2))
    for row in times:
        for side, (function, calls) in enumerate(((slow, 1), (quick, often))):
            start = clock()
            for _ in range(calls):
                function()
            row[side] = (clock() - start) / calls
    return tuple(np.median(times[1:], axis=0))


def in_a_process(module: str, call: str) -> list[str]:
    """The words that a call of a benchmark's own function prints last, in a process of its own."""
    command = [sys.executable, "-c", f"import {module}; {module}.{call}"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def resident(name: str = "VmHWM") -> int:
    """This process's resident bytes by a name of /proc (Linux), at the peak where omitted.

    getrusage would count the parent's memory at the fork too.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) * 1024
