"""One writer for a run folder: an exclusive lock that dies with its owner.

The lock is the system's, held through `filelock` on the file `lock`. The system drops it with the process, also after
SIGKILL or a power loss, so a lock file that outlived its owner blocks nobody. Who holds it stands in a note beside it,
`lock.owner`: Windows lets nobody read a locked file. A note that is there while the lock is free is stale; the next
owner reports it. A forked child (a data worker) neither keeps nor releases its parent's lock: `filelock` closes the
child's copy.

Not assumed: that the clock is right, or that process ids are unique across machines. Both serve messages only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import socket
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from mt2st.errors import Mt2stError

_POLL_SECONDS = 0.1
_NOTE_SUFFIX = ".owner"
_LARGEST_NOTE_BYTES = 4096
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # what file systems without locks answer


class LockedError(Mt2stError):
    """Another process holds the lock."""


class RunLock:
    """`with RunLock(path): …`: exclusive among all processes and threads that use the same path.

    Args:
        path: the lock file; its folder is created.
        wait_seconds: 0 = fail at once when somebody else holds it; otherwise wait up to so long (`math.inf` = for
            ever).
        on_wait: called once with a line that says who is waited for.

    Raises (on entry):
        LockedError: somebody else holds the lock; the message names pid and host.
        Mt2stError: the file system has no locks.
    """

    def __init__(self, path: Path, *, wait_seconds: float = 0.0, on_wait: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.wait_seconds = wait_seconds
        self.on_wait = on_wait
        self.outlived: str = ""  # who held it last, if they never gave it back (killed); "" after an orderly end
        self._lock = _file_lock(path)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock now; False in a forked child."""
        return self._lock.is_locked

    def __enter__(self) -> RunLock:
        if self.held:
            raise Mt2stError(f"{self.path} is already locked by this very object; use one RunLock for one owner")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not _acquire(self._lock, self.path, 0.0):
            if self.wait_seconds > 0 and self.on_wait is not None:
                self.on_wait(f"waiting for {self.path.parent}, in use by {_owner(self.path)}")
            if self.wait_seconds <= 0 or not _acquire(self._lock, self.path, self.wait_seconds):
                raise LockedError(
                    f"{self.path.parent} is in use by {_owner(self.path)}; wait for it to end, or use another results "
                    "folder"
                )
        note = _note(self.path)
        try:
            self.outlived = _owner(self.path) if note.exists() else ""
            note.write_text(json.dumps(_own_name()), encoding="utf-8")
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.held:
            return  # a forked child leaves its parent's block
        # A note that cannot be removed (a read-only disk) must not hide the error that is ending the block.
        with contextlib.suppress(OSError):
            _note(self.path).unlink(missing_ok=True)
        self._lock.release()


def lock_owner(path: Path) -> str:
    """Who holds the lock file at `path` now, as text ("process 12 on host …"); "" when nobody does."""
    if not path.exists():
        return ""
    lock = _file_lock(path)
    try:
        if not _acquire(lock, path, 0.0):
            return _owner(path)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return ""  # a folder that this account cannot write in: nothing can be said
    lock.release()
    return ""


def _file_lock(path: Path) -> FileLock:
    # Never the fallback of `filelock`, a file whose presence is the lock: it would outlive a killed owner.
    return FileLock(path, thread_local=False, poll_interval=_POLL_SECONDS, fallback_to_soft=False)


def _acquire(lock: FileLock, path: Path, wait_seconds: float) -> bool:
    """Whether the lock was had within `wait_seconds`."""
    try:
        if wait_seconds <= 0:
            lock.acquire(blocking=False)
        else:
            lock.acquire(timeout=-1 if math.isinf(wait_seconds) else wait_seconds)
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        cure = "put the results on a file system with locks (--results)"
        raise Mt2stError(f"{path} cannot be locked ({error.strerror}); {cure}") from error
    return True


def _note(path: Path) -> Path:
    return path.with_name(path.name + _NOTE_SUFFIX)


def _own_name() -> dict[str, int | str]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _owner(path: Path) -> str:
    """What the note says; "another process" where it is missing, half written or foreign."""
    try:
        with _note(path).open("rb") as stream:
            value = json.loads(stream.read(_LARGEST_NOTE_BYTES))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or "pid" not in value:
        return "another process"
    return f"process {value['pid']} on host {value.get('host', '?')} since {value.get('since_utc', '?')}"
