"""What makes a sandbox end with the process that started it, however that process ends."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Resolved here, before any fork: looking a library up is not safe between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def dying_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn` by which the kernel signals the child once its parent is gone.

    It covers what no `finally` can, kill -9 of the parent. The kernel means the parent *thread*:
    start such a child from a thread that outlives it. Only Linux has this; elsewhere it does
    nothing, and a server that was orphaned goes with the next sweep (`sandbox.scratch`).
    """
    parent = os.getpid()

    def ask_the_kernel() -> None:
        if _LIBC is None:
            return
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died between the fork and the call above
            os._exit(1)

    return ask_the_kernel


@contextmanager
def unwinding_on_termination() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that `with` blocks clean up as on Ctrl-C.

    A handler that somebody else has set is left alone, and so is everything outside the main
    thread, where Python can set none.
    """

    owner = os.getpid()

    def leave(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a fork of ours: what there is to clean up is not the child's
            os._exit(128 + number)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
