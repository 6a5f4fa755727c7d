"""Exit statuses of all binaries, and the reaction that a supervisor should have to each. The numbers stand only here."""

import enum
import errno


class Exit(enum.IntEnum):
    """Statuses of every binary. Those of sysexits.h where it has one."""

    FINISHED = 0
    FAILED = 1
    """A bug (its traceback stands above), or a step that took longer than the watchdog allows (its stacks do)."""
    USER_ERROR = 2
    """What no further attempt changes: wrong input, another configuration, a loss that is NaN."""
    NOT_SAVED = 74
    """EX_IOERR: a checkpoint or another file could not be written; the checkpoints before it stand."""
    STOPPED = 75
    """EX_TEMPFAIL: asked to stop by SIGTERM, and all is saved."""
    LOST_PEER = 76
    """EX_PROTOCOL: another process of the job died, or does not answer."""
    INTERRUPTED = 130
    """Control-C."""


FINAL = frozenset({Exit.FINISHED, Exit.USER_ERROR, Exit.INTERRUPTED})
"""Statuses after which a job is not restarted. It is restarted after any other, a death by a signal included: SIGKILL (137, out of
memory) and SIGABRT (134, by which JAX's runtime ends a process whose coordinator is gone)."""

FREE = frozenset({Exit.STOPPED})
"""Statuses after which it is restarted without counting as one of the restarts that a job is allowed."""


_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE})


def of_error(error: BaseException) -> Exit:
    """The status of a process that ends by an error that a user can cause, or his machine. An error may bring its own, as `status`."""
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return Exit.NOT_SAVED
    return Exit(getattr(error, "status", Exit.USER_ERROR))


def of_job(statuses: list[int]) -> int:
    """The status of a job of several processes: what one of them could not help tells more than that others lost it."""
    normal = [128 - status if status < 0 else status for status in statuses]
    order = (Exit.USER_ERROR, Exit.INTERRUPTED, Exit.NOT_SAVED, Exit.FAILED)
    for status in (*order, *sorted(set(normal) - {*order, *FREE, Exit.FINISHED, Exit.LOST_PEER}), Exit.LOST_PEER, Exit.STOPPED):
        if status in normal:
            return int(status)
    return int(Exit.FINISHED)
