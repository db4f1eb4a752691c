"""What lies in a folder or a zip, file by file, read only within limits and never unpacked to a path of its own choosing.

Names are taken apart here and nothing else is done with them. A link, a pipe, an encrypted member or a name that leads out
is listed with its `problem` and cannot be read. Bytes are counted while they are read: what a zip says of sizes is not
believed.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from unroll.errors import InputError
from unroll.labs.grade.names import ignored
from unroll.terminal import UNPRINTABLE

MOST_MEMBERS = 10_000  # of one hand-in
MOST_LISTED = 500_000  # of a class's folder
MOST_DEPTH = 30
MOST_OF_A_ZIP = 256 << 20  # bytes of a student's zip within the class's
MOST_READ = 8 << 30  # bytes of all that is read of a class
DIRECTORY = 4 << 20  # bytes of the directory of a student's zip: about 90,000 members at most
CLASS_DIRECTORY = 16 << 20
CHUNK = 1 << 20
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # those that can be read in pieces of a bounded size
FORMATS = {b"Rar!": "RAR", b"7z\xbc\xaf": "7z", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zX": "xz"}
ENDINGS = {".rar": "RAR", ".7z": "7z"}
DAMAGE = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError),
    *(ValueError, NotImplementedError, RuntimeError, IndexError, KeyError, MemoryError),
)
"""What `zipfile` raises on damaged or hostile archives; ValueError has UnicodeDecodeError among it."""


class ReadError(Exception):
    """A file or an archive cannot be read; the message says why, and fits behind its name."""


@dataclass
class Budget:
    """Bytes that may yet be read of a class."""

    left: int = MOST_READ

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ReadError(f"was not read: the class has more than {MOST_READ >> 30} GB")


@dataclass(frozen=True)
class Entry:
    """One file, or one folder.

    Attributes:
        parts: the path within the place, taken apart at / and \\; never "", "." or "..".
        when: the time of the last change, to two seconds in a zip, and in whose zone nobody knows; None where it is not said.
        problem: why it cannot be read; fits behind its name.
        notes: what was off with it and did no harm.
        open: gives its bytes as a file; None for a folder and where there is a problem.
    """

    parts: tuple[str, ...]
    when: datetime | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()
    open: Callable[[], AbstractContextManager[IO[bytes]]] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        return self.parts[-1]

    @property
    def path(self) -> str:
        return "/".join(self.parts)

    @property
    def is_folder(self) -> bool:
        return self.open is None and self.problem is None

    def read(self, most: int, budget: Budget) -> bytes:
        """Its bytes.

        Raises:
            ReadError: there is a `problem`, it is damaged, or it has more than `most` bytes.
        """
        return b"".join(self._chunks(most, budget))

    def spool(self, most: int, budget: Budget) -> IO[bytes]:
        """Its bytes in a temporary file without a name. Raises as `read`."""
        spool = tempfile.SpooledTemporaryFile(max_size=4 << 20)  # noqa: SIM115 - the caller closes it
        try:
            for chunk in self._chunks(most, budget):
                spool.write(chunk)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return cast("IO[bytes]", spool)

    def _chunks(self, most: int, budget: Budget) -> Iterator[bytes]:
        if self.problem is not None or self.open is None:
            raise ReadError(self.problem or "is a folder")
        count = 0
        try:
            with self.open() as file:
                while chunk := file.read(min(CHUNK, most - count + 1)):
                    count += len(chunk)
                    if count > most:
                        raise ReadError(f"has more than {most >> 20} MB")
                    budget.spend(len(chunk))
                    yield chunk
        except DAMAGE as error:
            raise ReadError(f"cannot be read: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Why, in one short line."""
    return str(getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0] or type(error).__name__)[:120]


def list_folder(folder: Path, skip: Callable[[Path], bool]) -> list[Entry]:
    """All that lies in a folder, in the order of paths; links are not followed.

    Raises:
        InputError: it cannot be listed, or it holds far more than a class.
    """
    found: list[Entry] = []
    counts: Counter[tuple[str, ...]] = Counter()
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        here = folder.joinpath(*parts)
        try:
            with os.scandir(here) as listed:
                children = sorted(islice(listed, MOST_MEMBERS + 1), key=lambda child: child.name)
        except OSError as error:
            if not parts:
                raise InputError(f"submissions {folder} cannot be read: {reason(error)}") from None
            found.append(Entry(parts, problem=f"cannot be read: {reason(error)}"))
            continue
        # Two levels, since all hand-ins may lie in one folder within the place.
        counts[parts[:2]] += len(children)
        if (not parts and len(children) > MOST_MEMBERS) or counts.total() > MOST_LISTED:
            raise InputError(
                f"submissions {folder} holds far more files than a class's; name the folder of the hand-ins"
            )
        if parts and (counts[parts[:2]] > MOST_MEMBERS or len(parts) > MOST_DEPTH):
            found.append(Entry(parts, problem=_too_many(parts)))
            continue
        if parts:
            found.append(Entry(parts))
        for child in children:
            path = (*parts, child.name)
            if ignored((child.name,)) or skip(Path(child.path)):
                continue
            if child.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                found.append(_on_disk(Path(child.path), path))
    return sorted(found, key=lambda entry: entry.parts)


def _too_many(parts: tuple[str, ...]) -> str:
    return "has too many folders within folders" if len(parts) > MOST_DEPTH else f"has more than {MOST_MEMBERS:,} files"


def _on_disk(path: Path, parts: tuple[str, ...]) -> Entry:
    try:
        status = path.lstat()
    except OSError as error:
        return Entry(parts, problem=f"cannot be read: {reason(error)}")
    problem = _special(status.st_mode)
    if problem is not None:
        return Entry(parts, problem=problem)
    try:
        when = datetime.fromtimestamp(int(status.st_mtime), UTC).replace(tzinfo=None)
    except (OverflowError, ValueError, OSError):
        when = None
    problem = "has control characters in its name" if UNPRINTABLE.search(path.name) else None
    return Entry(parts, when, problem, open=None if problem else lambda: _open_regular(path))


@contextmanager
def _open_regular(path: Path) -> Iterator[IO[bytes]]:
    """A regular file, even where it was changed for a link or a pipe meanwhile."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no file")
        yield file


def _special(mode: int) -> str | None:
    kind = stat.S_IFMT(mode)
    if kind in (0, stat.S_IFREG, stat.S_IFDIR):
        return None
    return "is a link, which is not followed" if kind == stat.S_IFLNK else "is a pipe, a socket or a device"


class _Bounded:
    """A file of which `zipfile` cannot read more at once than a zip's directory may have."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def seekable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(self._most + 1 if count < 0 else min(count, self._most + 1))
        if len(data) > self._most:
            raise zipfile.BadZipFile("its directory is too large")
        return data


@contextmanager
def opened_zip(file: IO[bytes], directory: int = DIRECTORY) -> Iterator[zipfile.ZipFile]:
    """A zip, whose directory was read; `file` is closed in the end.

    Raises:
        ReadError: it is damaged, or it is an archive of another format.
    """
    with file:
        try:
            start = file.read(6)
            file.seek(0)
            archive = zipfile.ZipFile(cast("Any", _Bounded(file, directory)))
        except DAMAGE as error:
            form = next((form for magic, form in FORMATS.items() if start.startswith(magic)), None)
            if form is not None:
                raise ReadError(f"is a {form} archive; expected a zip") from None
            raise ReadError(f"is damaged, or no zip: {reason(error)}") from None
        with archive:
            yield archive


def list_zip(
    archive: zipfile.ZipFile,
    within: tuple[str, ...] = (),
    again: Callable[[], AbstractContextManager[Any]] | None = None,
) -> list[Entry]:
    """All members of a zip but what is `ignored`, in the order of paths; of two with one path the latter in the zip.

    Args:
        within: the path of the zip itself, with which the members' paths begin.
        again: opens the zip anew, where `archive` will be closed before its members are read.
    """
    found: dict[tuple[str, ...], Entry] = {}
    for info in archive.infolist():
        parts, problem, notes = _taken_apart(info)
        if not parts or ignored(parts):
            continue
        path = (*within, *parts)
        mode = info.external_attr >> 16
        if problem is None:
            problem = _special(mode)
        if problem is None and (info.is_dir() or info.orig_filename.endswith(("/", "\\")) or stat.S_ISDIR(mode)):
            found.setdefault(path, Entry(path))
            continue
        if problem is None and info.flag_bits & 0x1:
            problem = "is encrypted"
        if problem is None and info.compress_type not in METHODS:
            problem = "is packed by a method that is not read; expected deflate"
        if path in found and not found[path].is_folder:
            notes += ("is in the zip twice, and the later one counts",)
        opener = None if problem else _member(archive, info, again)
        found[path] = Entry(path, _when(info), problem, notes, opener)
    return sorted(found.values(), key=lambda entry: entry.parts)


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, again: Callable[[], AbstractContextManager[Any]] | None
) -> Callable[[], AbstractContextManager[IO[bytes]]]:
    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        if again is None:
            with archive.open(info) as member:
                yield member
        else:
            with again() as anew, anew.open(info) as member:
                yield member

    return opened


def nested_zip(entry: Entry, budget: Budget) -> list[Entry]:
    """The members of a zip that was handed in, their paths within its own.

    Raises:
        ReadError: it is damaged, too large, or has too many members.
    """

    def again() -> AbstractContextManager[zipfile.ZipFile]:
        return opened_zip(entry.spool(MOST_OF_A_ZIP, budget))

    with again() as archive:
        members = list_zip(archive, entry.parts, again)
    if len(members) > MOST_MEMBERS:
        raise ReadError(f"has more than {MOST_MEMBERS:,} files")
    return members


def _taken_apart(info: zipfile.ZipInfo) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
    """The path of a member, what forbids to read it, and what was off with it."""
    name = info.orig_filename
    notes: tuple[str, ...] = ()
    if not info.flag_bits & 0x800 and not name.isascii():
        try:
            name = name.encode("cp437").decode()  # UTF-8 that was not marked as such, which macOS writes
        except (UnicodeEncodeError, UnicodeDecodeError):
            notes = ("has a name in an unknown encoding",)
    problem = None
    split = name.replace("\\", "/").split("/")
    if UNPRINTABLE.search(name):
        problem = "has control characters in its name"
    elif ".." in split or split[0] == "" or split[0].endswith(":"):
        problem = "has a name that leads out of the zip"
    return tuple(part for part in split if part not in ("", ".", "..")), problem, notes


def _when(info: zipfile.ZipInfo) -> datetime | None:
    try:
        when = datetime(*info.date_time)
    except (ValueError, TypeError):
        return None
    return when if when.year > 1980 else None  # what a zip says that knows no time
