"""Outputs that are whole or absent: written beside their place, then renamed into it.

Everything is written inside a *workspace*, a folder ``.NAME.uncrop-PID-RANDOM.partial`` beside the
output, on the same file system. Only when it is complete and on the disk does one rename put it in
place, so that a crash, a kill, a full disk or a power cut leaves the old output, the new one, or
none. The run holds an flock on its workspace; a workspace that nobody holds belongs to a run that
died, and the next run for the same output removes it (and puts an old output back that the dead run
had moved aside and not yet replaced).

What may be overwritten: a regular file; an empty folder; and a folder that holds a *marker*, a JSON
object whose ``files`` maps each relative path to its SHA-256, and nothing but files with those
hashes. Anything else in an old output was put there or changed by somebody else. It is never
deleted: the run is refused and names it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from converter.errors import OutputError, UncropError, printable
from converter.media.files import sha256_of
from converter.media.interrupts import put_off_interrupts, sigterm_as_exit
from converter.media.manifest import read_json

_OLD = "old"
"""Where in a workspace an output goes that cannot be exchanged in one step."""

_NAME_BYTES = 150
"""How much of the output's name a workspace carries; file systems allow 255 bytes in all."""

_THREADS = 16
"""Files synchronised at once: fsync waits for the disk, and disks take many at a time."""

_ATTEMPTS = 8
"""How often a rename is tried again because another run changed the output meanwhile."""

_DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENODEV, errno.ESTALE}
)
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


@contextmanager
def replace_file(path: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """Yield a path to write; what is there at the end becomes the file ``path``.

    Missing parent folders are made. If the block raises, nothing is left.

    Raises
    ------
    OutputError
        If ``path`` exists and ``overwrite`` is false (also if it appears meanwhile), is a folder,
        or cannot be written.

    """
    with _place(path) as target, _workspace(target) as work:
        with _one_at_a_time(target):
            _require_file_place(target, overwrite)
        new = work / target.name
        yield new
        if not new.is_file():
            raise OutputError(path, "a written file", "none")
        _fsync(new)
        if overwrite:
            os.replace(new, target)
        else:
            try:
                _rename_new(new, target)
            except FileExistsError:
                raise _exists(target) from None
        _fsync(target.parent)


@contextmanager
def replace_folder(path: Path | str, overwrite: bool, marker: str) -> Iterator[Path]:
    """Yield a folder to fill; what it holds at the end becomes the folder ``path``.

    Missing parent folders are made. If the block raises, nothing is left. An empty folder at
    ``path`` may always be replaced.

    Parameters
    ----------
    path
        The output folder.
    overwrite
        Replace an earlier output, in one step.
    marker
        Name of the file by which an output is known, see the module. The block must write it.

    Raises
    ------
    OutputError
        If ``path`` exists and ``overwrite`` is false, holds files that are not of an earlier
        output, is a file, or cannot be written.

    """
    with _place(path) as target, _workspace(target) as work:
        with _one_at_a_time(target):
            _require_folder_place(target, overwrite, marker)
        new = work / target.name
        new.mkdir()
        yield new
        if not (new / marker).is_file():
            raise OutputError(path, f"a written {marker}", "none")
        _sync_tree(new)
        with _one_at_a_time(target):
            _put_folder(new, target, work, overwrite, marker)
        _fsync(target.parent)


# --- what may be replaced ---------------------------------------------------------------------


@contextmanager
def _place(path: Path | str) -> Iterator[Path]:
    """Follow links, so that what is replaced is what they point at; errors name what was given."""
    try:
        target = Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise _cannot_write(Path(path), error) from None
    try:
        yield target
    except OutputError as error:
        if error.where != printable(target):
            raise
        raise OutputError(path, error.expected, error.found, error.remedy) from None


def _exists(target: Path) -> OutputError:
    found = "a folder" if target.is_dir() else "a file"
    return OutputError(
        target,
        "nothing there yet",
        f"{found} of that name",
        "Choose another name, or add --overwrite.",
    )


def _mode(path: Path) -> int | None:
    """Type bits of ``path``, which is not a link any more; None if nothing is there."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


def _require_file_place(target: Path, overwrite: bool) -> None:
    mode = _mode(target)
    if mode is None:
        return
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a device, socket or pipe"
        raise OutputError(target, "a file, or nothing yet", found, "Choose another name.")
    if not overwrite:
        raise _exists(target)


def require_free(path: Path | str, overwrite: bool = False, marker: str | None = None) -> None:
    """Refuse early what writing would refuse after hours of work; raises OutputError.

    As `replace_file` would, or with a ``marker`` and where a folder is, as `replace_folder` would.
    """
    with _place(path) as target:
        if marker is not None and target.is_dir():
            _require_folder_place(target, overwrite, marker)
        else:
            _require_file_place(target, overwrite)
    above = next(parent for parent in target.parents if os.path.exists(parent))
    is_folder = os.path.isdir(above)
    if not is_folder or not os.access(above, os.W_OK | os.X_OK):
        found = f"{_as_given(above, path)}, which is {'not' if is_folder else 'a file'}"
        raise OutputError(path, "a place that can be written", found)


def _as_given(above: Path, path: Path | str) -> Path:
    """``above`` as ``path`` names it, where it does; "." would say little."""
    named = (p for p in Path(path).parents if p != Path() and os.path.realpath(p) == str(above))
    return next(named, above)


def _require_folder_place(target: Path, overwrite: bool, marker: str) -> None:
    mode = _mode(target)
    if mode is None:
        return
    if not stat.S_ISDIR(mode):
        raise OutputError(target, "a folder, or nothing yet", "a file", "Choose another name.")
    with _os_errors(target):
        if _is_empty(target):
            return
    if not overwrite:
        raise _exists(target)
    _require_ours(target, target, marker)


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _require_ours(folder: Path, target: Path, marker: str) -> None:
    """Refuse to replace a folder that holds anything but an unchanged earlier output."""
    foreign = foreign_files(folder, marker)
    if not foreign:
        return
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    raise OutputError(
        target,
        "an earlier output of uncrop and nothing else",
        f"files that uncrop did not write, or that were changed since: {foreign[0]}{more}",
        "Move them away or choose another folder: --overwrite never deletes them.",
    )


def foreign_files(folder: Path, marker: str) -> list[str]:
    """Relative paths of what the folder's marker does not list, or lists with other contents.

    Everything is foreign where the marker is absent or cannot be read.

    Raises
    ------
    OutputError
        If the folder cannot be read.

    """
    with _os_errors(folder):
        listed = _listed_files(folder / marker)
        found, foreign = [], []
        for place, folders, names in os.walk(folder, onerror=_raise):
            links = [name for name in folders if os.path.islink(os.path.join(place, name))]
            for name in names + links:
                file = Path(place, name)
                relative = PurePosixPath(file.relative_to(folder)).as_posix()
                if relative == marker and listed:
                    continue
                if relative not in listed or not stat.S_ISREG(os.lstat(file).st_mode):
                    foreign.append(relative)
                else:
                    found.append((relative, file))
        with ThreadPoolExecutor(_THREADS) as pool:
            hashes = list(pool.map(lambda item: _hash(item[1]), found))
        changed = [
            relative
            for (relative, _), digest in zip(found, hashes, strict=True)
            if digest != listed[relative]
        ]
        return sorted(foreign + changed)


def _raise(error: OSError) -> None:
    raise error


def _hash(file: Path) -> str:
    try:
        return sha256_of(file)
    except UncropError:  # unreadable: certainly not to be deleted
        return ""


def _listed_files(marker: Path) -> dict[str, str]:
    try:
        files = read_json(marker).get("files")
    except UncropError:
        return {}
    return files if isinstance(files, dict) else {}


# --- the workspace ----------------------------------------------------------------------------


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """Make a locked folder beside ``target`` for the length of the block."""
    owner = os.getpid()
    made: tuple[Path, int] | None = None
    parents = [p for p in target.parents if not p.exists()]
    with sigterm_as_exit():
        try:
            with _os_errors(target), put_off_interrupts():
                target.parent.mkdir(parents=True, exist_ok=True)
                _remove_dead(target)
                made = _new_workspace(target)
            with _os_errors(target, made[0]):
                yield made[0]
        finally:
            if made is not None and os.getpid() == owner:  # not in a forked worker
                with put_off_interrupts():
                    _discard(made[0], target)
                    os.close(made[1])
            for parent in parents:  # made for nothing; those that hold the output stay
                with suppress(OSError):
                    parent.rmdir()


def _workspace_name(target: Path) -> str:
    """Begin the name of every workspace of ``target``, and of no other output."""
    name = os.fsencode(target.name)
    if len(name) > _NAME_BYTES:
        name = name[:_NAME_BYTES] + hashlib.sha256(name).hexdigest()[:16].encode()
    return f".{os.fsdecode(name)}.uncrop-"


def _new_workspace(target: Path) -> tuple[Path, int]:
    for _ in range(_ATTEMPTS):
        name = f"{_workspace_name(target)}{os.getpid()}-{secrets.token_hex(4)}.partial"
        work = target.parent / name
        work.mkdir(mode=0o700)
        lock = _lock(work, required=False)
        if lock is not None:
            return work, lock
    raise OutputError(target, "a place to write", "another program that removes it")


def _lock(folder: Path, *, required: bool) -> int | None:
    """Hold a workspace; None if somebody else holds it, it is gone, or it cannot be locked.

    A file system without locks is good enough (not ``required``) to make one, not to remove one.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have removed it between its making and its locking.
        if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            return descriptor
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno != errno.ENOENT and not required:
            return descriptor
    os.close(descriptor)
    return None


@contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    """Keep other runs from changing the outputs in a folder between a look and a rename."""
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks has to do without
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_dead(target: Path) -> None:
    """Remove the workspaces of runs for the same output that died."""
    pattern = re.compile(re.escape(_workspace_name(target)) + r"[0-9]+-[0-9a-f]{8}\.partial")
    with os.scandir(target.parent) as entries:
        dead = [Path(entry) for entry in entries if pattern.fullmatch(entry.name)]
    for work in dead:
        lock = _lock(work, required=True)
        if lock is not None:
            _discard(work, target)
            os.close(lock)


def _discard(work: Path, target: Path) -> None:
    """Remove a workspace; first put an output back that was moved into it and not replaced."""
    old = work / _OLD / target.name
    if os.path.lexists(old) and not os.path.lexists(target):
        try:
            _rename_new(old, target)
        except OSError:
            return  # what cannot be put back is at least kept
    shutil.rmtree(work, ignore_errors=True)


# --- into place -------------------------------------------------------------------------------


def _put_folder(new: Path, target: Path, work: Path, overwrite: bool, marker: str) -> None:
    _require_folder_place(target, overwrite, marker)
    try:
        if _mode(target) is None:
            _rename_new(new, target)
        elif _is_empty(target):
            os.rename(new, target)
        else:
            _exchange(new, target, work, marker)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise _exists(target) from None  # it was made, or filled, since we looked
        raise


def _exchange(new: Path, target: Path, work: Path, marker: str) -> None:
    """Put ``new`` at ``target`` and the old output into the workspace, then look at it once more.

    What was added to the old output between the check and the exchange brings it back.
    """
    try:
        _renameat2(new, target, _RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    else:
        try:
            _require_ours(new, target, marker)
        except OutputError:
            _renameat2(new, target, _RENAME_EXCHANGE)
            raise
        return
    # Two renames leave a moment without any output; `_discard` mends what stops in between.
    old = work / _OLD / target.name
    old.parent.mkdir()
    os.rename(target, old)
    _require_ours(old, target, marker)
    os.rename(new, target)


def _rename_new(source: Path, target: Path) -> None:
    """Rename to a name that is not taken; FileExistsError if it is."""
    try:
        _renameat2(source, target, _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    else:
        return
    if source.is_dir():
        os.rename(source, target)  # replaces nothing but an empty folder
    else:
        os.link(source, target)
        source.unlink()


def _renameat2(source: Path, target: Path, flags: int) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = os.fsencode(source), os.fsencode(target)
    if function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(target))


def _sync_tree(folder: Path) -> None:
    """Bring every file and folder to the disk.

    One fsync per file, many at a time: as fast as syncfs within a factor of two, and unlike it
    neither waits for what others write nor loses an error.
    """
    paths = []
    for place, _, names in os.walk(folder, onerror=_raise):
        paths += [place, *(os.path.join(place, name) for name in names)]
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(_fsync, paths))


def _fsync(path: Path | str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot synchronise a folder.
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


# --- errors -----------------------------------------------------------------------------------


@contextmanager
def _os_errors(target: Path, work: Path | None = None) -> Iterator[None]:
    """Turn what the operating system refuses into `OutputError`.

    With ``work``, the block is the caller's: then only errors of the disk, and of files inside the
    workspace, are about the output.
    """
    try:
        yield
    except UncropError:
        raise
    except OSError as error:
        if work is None or _is_about(error, work):
            raise _cannot_write(target, error) from error
        raise


def _is_about(error: OSError, work: Path) -> bool:
    names = [n for n in (error.filename, error.filename2) if isinstance(n, str | bytes | Path)]
    inside = any(str(work) in os.fsdecode(name) for name in names)
    # h5py gives the reason in words only.
    full = any(os.strerror(number) in str(error) for number in _DISK_ERRORS)
    return inside or full or error.errno in _DISK_ERRORS


def _cannot_write(target: Path, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(target, "a place that can be written", reason)
