"""The hand-ins of a class, from a folder or one zip: who handed in, which code and which PDF, and what was off.

Names are understood by `unroll.labs.grade.names`, and files are read by `unroll.labs.grade.entries`. A hand-in that cannot be
read is one with notes; only a class of which nothing can be read is an error.

Who: the student number in the names of the files, else the one in the name of the folder or zip, else that name. A number in a
file's name is only the student's word for it: where the files of two owners (participants of a platform, folders) claim one
number, it goes to the owner whose own name bears it, and nobody's hand-in is replaced by another's.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from unroll.errors import InputError, quoted
from unroll.files import is_name, made_folder, refuse_special, write_atomically
from unroll.labs.grade.entries import (
    CLASS_DIRECTORY,
    ENDINGS,
    MOST_MEMBERS,
    Budget,
    Entry,
    ReadError,
    list_folder,
    list_zip,
    nested_zip,
    opened_zip,
    reason,
)
from unroll.labs.grade.names import (
    DATE,
    Named,
    exported,
    read_folder_name,
    read_name,
    safe_id,
    same,
)
from unroll.labs.source import MOST_BYTES
from unroll.labs.spec import Lab

WRITTEN = "handed-in.json"  # what we wrote into INTO, so that nothing else is ever removed
MOST_TRIED = 5  # files of one kind in one hand-in, where the better ones cannot be read
MOST_NAMED = 5  # files that one note lists
WHY = (
    "the name of its folder or zip says that it is the later one",
    "its folder or zip is newer",
    "nothing tells which is later, and its folder or zip is the last in the order of names",
    "its name is nearer to the lab's",
    "it was uploaded later",
    "its name says that it is the later one",
    "it is newer",
    "nothing tells which is later, and it is the last in the order of names",
)
"""Why one of two files was taken, by the first place in which their ranks differ."""


@dataclass(frozen=True)
class Submission:
    """One student's hand-in.

    Attributes:
        student: the id: a safe file name without a dot, unique in the class, also where case does not count.
        code, pdf: regular files in INTO/ID, under their own names where these are safe; None where there is none.
        notes: what was repaired, ignored, replaced or could not be read, in sentences.
        doubts: what a person has to decide; it may name other students.
    """

    student: str
    code: Path | None
    pdf: Path | None
    notes: tuple[str, ...]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """A file of a hand-in, its name as the student gave it, and which of several it is."""

    entry: Entry
    given: str
    named: Named
    upload: int = 0
    revision: int = 0


@dataclass
class _Source:
    """What one folder, one zip, or the loose files of one owner hold.

    Attributes:
        path: in the place, by which sources are ordered.
        owner: whom it belongs to by the name of the folder, zip or platform; two with the same owner are the same student's.
        label: the owner for people to read.
        student: the student number that the owner's name bears.
        revision, when: which of several of one owner it is.
    """

    path: str
    owner: str
    label: str
    student: str | None
    revision: int = 0
    when: datetime | None = None
    files: list[_File] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def read_submissions(place: Path, lab: Lab, into: Path) -> list[Submission]:
    """The hand-ins that lie in a folder or a zip, copied to INTO/ID/, by their ids.

    Args:
        place: a folder or a zip: of a folder or a zip for each student, of loose files, or as Moodle and Canvas export.
        into: a folder of ours; made where there is none. What was written there before and is no longer handed in is removed,
            unless it was changed since.

    Raises:
        InputError: the place cannot be read at all, or nothing is in it.
    """
    budget = Budget()
    with _listed(place, into) as entries:
        sources = _sources(entries, lab)
        for source in sources:
            _open_zips(source, lab, budget)
        students = _students(sources)
        if not students:
            raise InputError(
                f"submissions {place} holds no hand-in; expected a folder or a zip for each student, or files such as "
                f"{lab.file_name('313513054')}.py"
            )
        return _copied(students, lab, made_folder(into), budget)


@contextmanager
def _listed(place: Path, into: Path) -> Iterator[list[Entry]]:
    expected = "expected a folder or a zip of hand-ins"
    if place.is_dir():
        yield list_folder(place, _ours(place, into))
        return
    try:
        refuse_special(place)
        file = place.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"submissions {place} cannot be read: {reason(error)}; {expected}") from None
    try:
        with opened_zip(file, CLASS_DIRECTORY) as archive:
            yield list_zip(archive)
    except ReadError as error:
        raise InputError(f"submissions {place} {error}; {expected}") from None


def _ours(place: Path, into: Path) -> Callable[[Path], bool]:
    """Whether a path is what we write: the class may be graded into a folder within its own."""
    ours = into.resolve()
    if ours == place.resolve():
        raise InputError(f"submissions {place} cannot be graded into their own folder; name another with --out")
    names = {ours.name, *(parent.name for parent in ours.parents)}

    def skip(path: Path) -> bool:
        if path.name not in names or path.is_symlink():
            return False
        resolved = path.resolve()
        return resolved == ours or (resolved in ours.parents and (path / "class.json").is_file())

    return skip


def _sources(entries: Sequence[Entry], lab: Lab, depth: int = 0) -> list[_Source]:
    """What belongs together, by its place `depth` folders below the top."""
    children: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if len(entry.parts) > depth:
            children[entry.parts[depth]].append(entry)
    folders = {
        name: inner
        for name, inner in children.items()
        if any(len(entry.parts) > depth + 1 or entry.is_folder for entry in inner)
    }
    files = [_file(entry, lab) for name, inner in children.items() if name not in folders for entry in inner]
    files = [f for f in files if f.named.kind != "other" or f.entry.problem or exported(f.entry.name) is not None]
    if folders and not files and all(_holds_several(name, inner, lab, depth + 1) for name, inner in folders.items()):
        return [source for inner in folders.values() for source in _sources(inner, lab, depth + 1)]
    sources: dict[str, _Source] = {}
    for name, inner in folders.items():
        found = _source_of_folder(name, inner, lab, depth)
        if found.path in sources:
            sources[found.path].files += found.files
            sources[found.path].notes += found.notes
            sources[found.path].doubts += found.doubts
        else:
            sources[found.path] = found
    for file in files:
        source = _source_of_file(file)
        if source is not None:
            sources.setdefault(source.path, source).files.append(file)
    return [source for _, source in sorted(sources.items())]


def _holds_several(name: str, entries: Sequence[Entry], lab: Lab, depth: int) -> bool:
    """Whether a folder is no hand-in but holds those of several students, as "Lab 7/" and "late/" do."""
    if exported(name) is not None:
        return False
    number = read_folder_name(name, lab).student
    owners = set()
    for entry in entries:
        if len(entry.parts) <= depth:
            continue
        top = entry.parts[depth]
        if exported(top) is not None:
            return True  # whatever number the name has: Moodle puts the assignment's there
        if len(entry.parts) > depth + 1 or entry.is_folder:
            owners.add(same(read_folder_name(top, lab).student or ""))
        elif (named := read_name(top, lab)).kind in ("code", "zip"):
            owners.add(same(named.student or ""))
    return len(owners - {""}) > 1 and (number is None or DATE.fullmatch(number) is not None)


def _source_of_folder(name: str, entries: Sequence[Entry], lab: Lab, depth: int) -> _Source:
    path = "/".join(entries[0].parts[: depth + 1])
    if (export := exported(name)) is not None:
        source = _Source(export.owner, export.owner, export.label, export.student)
        if export.typed:
            source.notes.append(f"{quoted(name)} is a text typed on the platform's page; it is not read.")
            return source
    else:
        source = _owned(path, name, read_folder_name(name, lab))
    source.notes += [
        _sentence(entry) for entry in entries if entry.problem is not None and len(entry.parts) == depth + 1
    ]
    inner = [entry for entry in entries if not entry.is_folder and len(entry.parts) > depth + 1]
    if len(inner) > MOST_MEMBERS:
        source.notes.append(f"It holds more than {MOST_MEMBERS:,} files; none was read.")
        inner = []
    source.files = [_file(entry, lab) for entry in inner]
    source.when = max((file.entry.when for file in source.files if file.entry.when is not None), default=None)
    return source


def _source_of_file(file: _File) -> _Source | None:
    """Whose file lies loose; None where that is no hand-in, such as the class's list."""
    entry, named = file.entry, file.named
    if (export := exported(entry.name)) is not None:
        return _Source(export.owner, export.owner, export.label, export.student)
    if named.kind in ("zip", "archive"):
        source = _owned(entry.path, entry.name, named)
        source.when = entry.when
        return source
    if named.student is not None:
        owner = f"number {same(named.student)}"
        return _Source(owner, owner, named.student, named.student)
    if named.kind in ("code", "pdf") or entry.problem is not None:
        owned = _owned("", entry.name, named)
        return replace(owned, path=owned.owner, revision=0)
    return None


def _owned(path: str, name: str, named: Named) -> _Source:
    """By a name that a teacher or a student gave."""
    if named.student is not None:
        return _Source(path, f"number {same(named.student)}", named.student, named.student, named.revision)
    label = name[: -len(named.suffix)] if named.suffix and name.lower().endswith(named.suffix) else name
    return _Source(path, f"name {same(safe_id(label))}", label, None, named.revision)


def _file(entry: Entry, lab: Lab) -> _File:
    export = exported(entry.name)
    given = entry.name if export is None or export.name is None else export.name
    named = read_name(given, lab)
    return _File(entry, given, named, 0 if export is None else export.upload, named.revision)


def _open_zips(source: _Source, lab: Lab, budget: Budget) -> None:
    """Put what is in the zips of a hand-in in their place, and note what else cannot be read."""
    files: list[_File] = []
    unread: list[str] = []
    for file in source.files:
        entry, kind = file.entry, file.named.kind
        export = exported(entry.name)
        if export is not None and export.typed:
            source.notes.append(f"{quoted(entry.name)} is a text typed on the platform's page; it is not read.")
        elif entry.problem is not None:
            source.notes.append(_sentence(entry))
        elif kind == "zip":
            try:
                members = [member for member in nested_zip(entry, budget) if not member.is_folder]
            except ReadError as error:
                source.notes.append(f"The zip {quoted(entry.path)} {error}.")
                continue
            for member in members:
                inner = _file(member, lab)
                if member.problem is not None:
                    source.notes.append(_sentence(member))
                elif inner.named.kind == "zip":
                    source.notes.append(f"The zip {quoted(member.path)} lies within a zip and was not opened.")
                elif inner.named.kind in ("code", "pdf"):
                    files.append(replace(inner, upload=file.upload, revision=file.revision + inner.revision))
                else:
                    unread.append(member.path)
        elif kind == "archive":
            form = ENDINGS.get(file.named.suffix, file.named.suffix)
            source.notes.append(f"{quoted(entry.path)} is a {form} archive, which is not read; ask for a zip.")
        elif kind in ("code", "pdf"):
            files.append(file)
        else:
            unread.append(entry.path)
    if unread:
        source.notes.append(f"Not read, as neither code nor PDF: {_listing(unread)}.")
    if len(source.notes) > 4 * MOST_NAMED:  # a zip of ten thousand links
        source.notes[4 * MOST_NAMED :] = [
            f"There is more of this kind: {len(source.notes) - 4 * MOST_NAMED} notes are left out."
        ]
    source.files = files


def _students(sources: Sequence[_Source]) -> dict[str, list[_Source]]:
    """The sources of each student, by ids that are unique."""
    claimed: dict[str, list[tuple[str, _Source]]] = defaultdict(list)
    for source in sources:
        student = _claim(source)
        claimed[same(student)].append((student, source))
    students: dict[str, list[_Source]] = {}

    def add(student: str, owned: list[_Source]) -> None:
        taken, wanted, number = {same(known) for known in students}, student, 2
        while same(student) in taken:
            student, number = f"{wanted}-{number}", number + 1
        if student != wanted:
            owned[0].notes.append(
                f"Another hand-in goes by {quoted(wanted)} already, so this one goes by {quoted(student)}."
            )
        students[student] = owned

    apart: list[tuple[str, list[_Source]]] = []
    for _, group in sorted(claimed.items()):
        owners: dict[str, list[_Source]] = defaultdict(list)
        for student, source in group:
            bears = source.student is not None and same(source.student) == same(student)
            owners["" if bears else source.owner].append(source)
        student = group[-1][0]
        if len(owners) == 1:
            add(safe_id(student), [source for _, source in group])
            continue
        labels = {owner: _listing(sorted({source.label for source in owned})) for owner, owned in owners.items()}
        for owner, owned in sorted(owners.items()):
            others = " and ".join(label for other, label in sorted(labels.items()) if other != owner)
            if owner == "":
                owned[0].doubts.append(
                    f"Files of {others} name the number {quoted(student)} too; nothing was replaced by them."
                )
                add(safe_id(student), owned)
            else:
                own = safe_id(owned[0].student or owned[0].label)
                owned[0].doubts.append(
                    f"Its files name the number {quoted(student)}, and so do those of {others}; a person has to decide. It goes "
                    f"by {quoted(own)}."
                )
                apart.append((own, owned))
    for own, owned in apart:  # last, so that nobody's number is taken by who only claims it
        add(own, owned)
    return dict(sorted(students.items()))


def _claim(source: _Source) -> str:
    """The id that a source goes by, if nobody else claims it with more right."""
    taken = [ranked[0].named.student for kind in ("code", "pdf") if (ranked := _ranked([source], kind))]
    ids = {same(student): student for student in taken if student is not None}
    own = source.student
    if len(ids) > 1:
        source.notes.append(f"The names of the code and the PDF disagree: {' and '.join(map(quoted, ids.values()))}.")
    student = next(iter(ids.values()), None)
    if own is not None and same(own) in ids:
        student = ids[same(own)]
    elif own is not None and student is not None:
        source.notes.append(
            f"The files name the number {quoted(student)}, and {quoted(source.label)} says {quoted(own)}."
        )
    if student is None and own is None:
        source.notes.append(f"No student number is in the names; it goes by {quoted(safe_id(source.label))}.")
    return student or own or safe_id(source.label)


def _ranked(sources: Sequence[_Source], kind: str) -> list[_File]:
    return [file for _, file in _with_ranks(sources, kind)]


def _with_ranks(sources: Sequence[_Source], kind: str) -> list[tuple[tuple[object, ...], _File]]:
    """The files of a kind, the one to be taken first; see `WHY` for what decides."""
    found = [(source, file) for source in sources for file in source.files if file.named.kind == kind]
    source_times = all(source.when is not None for source, _ in found)
    times = all(file.entry.when is not None for _, file in found)
    ranks = [
        (
            (
                source.revision,
                (source.when or datetime.min) if source_times else datetime.min,
                source.path,
                file.named.fit + _is_owners(source, file),
                file.upload,
                file.revision,
                (file.entry.when or datetime.min) if times else datetime.min,
                file.entry.path,
            ),
            file,
        )
        for source, file in found
    ]
    return sorted(ranks, key=lambda pair: pair[0], reverse=True)


def _is_owners(source: _Source, file: _File) -> int:
    return int(source.student is not None and same(file.named.student or "") == same(source.student))


def _copied(students: dict[str, list[_Source]], lab: Lab, into: Path, budget: Budget) -> list[Submission]:
    before = _written(into)
    now: dict[str, str] = {}
    submissions = []
    for student, sources in students.items():
        notes = [note for source in sources for note in source.notes]
        paths: dict[str, Path | None] = {}
        for kind, what in (("code", "code"), ("pdf", "PDF")):
            taken = _taken(sources, kind, budget, notes)
            if taken is None:
                paths[kind] = None
                notes.append(f"There is no {what} that can be read.")
                continue
            file, content = taken
            paths[kind] = into / student / _safe_name(file, student, lab)
            key = f"{student}/{paths[kind].name}"  # type: ignore[union-attr]
            now[key] = hashlib.sha256(content).hexdigest()
            if before.get(key) != now[key] or not (into / WRITTEN).is_file():
                _save_list(into, {**before, **now})  # before the file: what a killed process leaves is known as ours
            _write(paths[kind], content)  # type: ignore[arg-type]
        doubts = tuple(doubt for source in sources for doubt in source.doubts)
        submissions.append(Submission(student, paths["code"], paths["pdf"], tuple(dict.fromkeys(notes)), doubts))
    _remove(into, before, now)
    _save_list(into, now)
    return submissions


def _taken(sources: Sequence[_Source], kind: str, budget: Budget, notes: list[str]) -> tuple[_File, bytes] | None:
    """The file of a kind that counts, and its bytes; why it was this one goes to the notes."""
    ranked = _with_ranks(sources, kind)
    what = "code" if kind == "code" else "PDF"
    for place, (rank, file) in enumerate(ranked[:MOST_TRIED]):
        try:
            content = file.entry.read(MOST_BYTES, budget)
        except ReadError as error:
            hint = (
                "; ask for the notebook without its outputs"
                if file.named.suffix == ".ipynb" and "MB" in str(error)
                else ""
            )
            notes.append(f"The file {quoted(file.entry.path)} {error}{hint}.")
            continue
        rest = ranked[place + 1 :]
        if rest:
            why = next(words for words, mine, other in zip(WHY, rank, rest[0][0], strict=True) if mine != other)
            left = _listing([other.entry.path for _, other in rest])
            notes.append(
                f"Of {len(rest) + 1} files of {what}, {quoted(file.entry.path)} was taken, as {why}; not {left}."
            )
        notes += [f"The file {quoted(file.entry.path)} {note}." for note in file.entry.notes]
        if file.named.repairs:
            notes.append(f"The name {quoted(file.given)} is not as asked for: {', '.join(file.named.repairs)}.")
        if not content:
            notes.append(f"The file {quoted(file.entry.path)} is empty.")
        elif kind == "pdf" and b"%PDF-" not in content[:1024]:
            notes.append(f"The file {quoted(file.entry.path)} is called a PDF and is none.")
        return file, content
    return None


def _safe_name(file: _File, student: str, lab: Lab) -> str:
    """The name of the copy: as given, or as asked for, where the given one is not safe."""
    given, suffix = file.given, file.named.suffix
    if is_name(given) and given.lower().endswith(suffix):
        return given
    asked = f"{lab.file_name(student)}{suffix}"
    return asked if is_name(asked) else f"hand-in{suffix}"


def _write(path: Path, content: bytes) -> None:
    """Write, unless the same is there: the time of a file says when it changed."""
    if path.parent.is_symlink():
        raise InputError(f"{path.parent} is a link; expected a folder, or nothing")
    made_folder(path.parent)
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size == len(content) and path.read_bytes() == content:
            if stat.S_IMODE(status.st_mode) != 0o644:
                path.chmod(0o644)
            return
    if path.is_dir() and not path.is_symlink():
        raise InputError(f"{path} is a folder, where a hand-in is to be copied; name another place")
    write_atomically(path, content)


def _written(into: Path) -> dict[str, str]:
    """SHA-256 of what we wrote, by ID/name; nothing where the list cannot be read, so that nothing is removed."""
    try:
        listed = json.loads((into / WRITTEN).read_text(encoding="utf-8"))["files"]
        return {key: digest for key, digest in listed.items() if isinstance(digest, str) and _is_key(key)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _is_key(key: str) -> bool:
    return len(parts := key.split("/")) == 2 and all(map(is_name, parts))


def _save_list(into: Path, files: dict[str, str]) -> None:
    text = json.dumps({"version": 1, "files": dict(sorted(files.items()))}, ensure_ascii=False, indent=1) + "\n"
    with suppress(OSError):
        if (into / WRITTEN).read_bytes() == text.encode():
            return
    write_atomically(into / WRITTEN, text)


def _remove(into: Path, before: dict[str, str], now: dict[str, str]) -> None:
    """Remove what we wrote and is no longer handed in; what was changed since is somebody's work and stays."""
    kept = {same(key) for key in now}  # where case does not count, a file under another case is the new one
    for key, digest in before.items():
        path = into / key
        if same(key) in kept or path.parent.is_symlink() or path.is_symlink() or not path.is_file():
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            path.unlink()
            with suppress(OSError):  # it holds more
                path.parent.rmdir()


def _sentence(entry: Entry) -> str:
    return f"{quoted(entry.path)} {entry.problem}."


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(map(quoted, names[:MOST_NAMED]))
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"
