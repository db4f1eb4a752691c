"""Names of files and folders as students and learning platforms write them: who, which kind, which revision.

Of Moodle ("Download all submissions"): a folder ``Full Name_1234567_assignsubmission_file_`` a student, without the last
underscore in newer versions, or flat files ``Full Name_1234567_assignsubmission_file_name.py``; 1234567 is the participant's
number in this one assignment. A text typed on the page comes as ``..._assignsubmission_onlinetext_``. Only the last attempt
is exported. Of Canvas: flat files ``lastnamefirst_LATE_12345_67890_name-1.py``, with the user's number, the upload's, and -1
where a file of this name was handed in before; ``anon_XYZab`` for name and user where names are hidden; a typed text as
``lastnamefirst_12345_text.html``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from unroll.files import is_name, name_from
from unroll.labs.handin import STUDENT_ID
from unroll.labs.spec import Lab
from unroll.terminal import UNPRINTABLE

Kind = Literal["code", "pdf", "zip", "archive", "document", "other"]

KINDS: dict[str, Kind] = {
    ".py": "code",
    ".ipynb": "code",
    ".pdf": "pdf",
    ".zip": "zip",
    **dict.fromkeys((".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz"), "archive"),
    **dict.fromkeys((".doc", ".docx", ".odt", ".rtf", ".pages", ".txt", ".md", ".html", ".htm", ".tex"), "document"),
}
ADDED = {".txt", ".json", ".download"}  # by mail programs and browsers, behind .py and .ipynb
IGNORED = {
    *("__macosx", "__pycache__", ".ds_store", "thumbs.db", "desktop.ini", "data", "dataset", "datasets", "mnist"),
    *("venv", "env", "node_modules", "site-packages"),
}
"""Files and folders that hold nothing handed in; those that begin with a dot are none either."""

MOODLE = re.compile(
    r"(?P<who>.*?)(?:_(?P<number>\d+))?_assignsubmission_(?P<plugin>[a-z]+)(?:_(?P<name>.*))?", re.DOTALL
)
CANVAS = re.compile(
    r"(?:LATE_)?(?:(?P<who>[^\W_]\w*?)_(?:LATE_)?(?P<user>\d{3,})|(?P<hidden>anon_\w+?))_(?:(?P<file>\d{3,})_(?P<name>.+)"
    r"|(?P<typed>text|link)\.html)",
    re.DOTALL,
)
COPY = re.compile(r"(?:copy of|kopie von|copia de|副本)[\s_-]*|[\s_-]+(?:copy|kopie|副本)|[\s_]*副本", re.IGNORECASE)
COUNTED = re.compile(r"\s*\((\d{1,3})\)$|[\s_-]v(\d{1,2})$|-(\d{1,2})$", re.IGNORECASE)
NUMBER = re.compile(r"(?<![^\W_])[A-Za-z]{0,3}\d{5,12}[A-Za-z]?(?![^\W_])", re.ASCII)
DATE = re.compile(r"20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
PLACEHOLDERS = {"studentid", "studentnumber", "student", "id", "yourid", "yourstudentid", "name", "學號", "学号"}
MOST_OF_A_NAME = 300  # characters that are looked at; no system writes longer ones


@dataclass(frozen=True)
class Named:
    """What a name says.

    Attributes:
        student: the id; None where the name has none.
        kind: by the ending.
        suffix: in lower case, such as ".py"; without what a mail program added.
        revision: 1 for "name (1)" and "name-1", 0 where nothing is said.
        fit: 2 where it is the lab's name, but for small repairs; 1 where it has an id; else 0.
        repairs: what differs from the lab's name, in words.
    """

    student: str | None
    kind: Kind
    suffix: str
    revision: int
    fit: int
    repairs: tuple[str, ...]


@dataclass(frozen=True)
class Exported:
    """What the name of an exported file or folder says of its owner.

    Attributes:
        owner: one for each participant of a platform, such as "moodle 1234567".
        label: the owner for people to read.
        student: the student number in the owner's name; None where there is none.
        name: of the file as it was handed in; None for a folder.
        upload: Canvas' number of the upload, which grows; 0 where there is none.
        typed: whether it is a text typed on the page, or anything else than files.
    """

    owner: str
    label: str
    student: str | None
    name: str | None
    upload: int
    typed: bool


def exported(name: str) -> Exported | None:
    """What a platform's export says by a name; None where it is none of Moodle's or Canvas'."""
    if (found := MOODLE.fullmatch(name)) is not None:
        who, number = found["who"], found["number"]
        label = f"{who}_{number}" if number else who
        typed = found["plugin"] != "file"
        return Exported(f"moodle {number or who}", label, _number(_plain(who)), found["name"] or None, 0, typed)
    found = CANVAS.fullmatch(name)
    if found is None or (found["who"] or "").lower() != (found["who"] or ""):
        return None
    user = found["user"] or found["hidden"]
    label = f"{found['who']}_{user}" if found["who"] else user
    upload = int(found["file"][:18]) if found["file"] else 0
    return Exported(
        f"canvas {user}", label, _number(_plain(found["who"] or "")), found["name"], upload, bool(found["typed"])
    )


def read_name(name: str, lab: Lab) -> Named:
    """What the name of a handed-in file says, repaired where it is off.

    >>> from unroll.labs.spec import load_lab
    >>> named = read_name("Copy of 313513054 lab7 homework (1).PY", load_lab("homework"))
    >>> named.student, named.suffix, named.revision
    ('313513054', '.py', 1)
    """
    text = _plain(name)
    repairs = ["characters of another width"] if text != name else []
    stem, suffix, added = _split(text)
    if added:
        repairs.append("an ending too many")
    elif not text.endswith(suffix):
        repairs.append("capitals or spaces in its ending")
    return _read_stem(stem, suffix, repairs, lab)


def read_folder_name(name: str, lab: Lab) -> Named:
    """What the name of a student's folder says; a folder has no ending."""
    return _read_stem(_plain(name), "", [], lab)


def safe_id(text: str) -> str:
    """An id that can name a folder beside our files: none of them is without a dot.

    >>> safe_id("J. Smith_12"), safe_id("../x")
    ('J- Smith_12', 'x')
    """
    return name_from(_plain(text).replace(".", "-"))


def same(text: str) -> str:
    """What two ids have in common that are the same to a system that knows no case."""
    return _plain(text).casefold()


def ignored(parts: tuple[str, ...]) -> bool:
    """Whether a path leads to or through what is no hand-in: rubbish of systems, data, hidden files."""
    return any(part.casefold() in IGNORED or part.startswith(".") for part in parts)


def _plain(text: str) -> str:
    """In one form (NFKC), so that full-width digits are digits and composed letters are one character."""
    return unicodedata.normalize("NFKC", text[:MOST_OF_A_NAME])


def _split(text: str) -> tuple[str, str, bool]:
    """Stem, ending, and whether something was added to the ending: a.py.txt is a.py."""
    stem, added = text.strip(), False
    while True:
        head, dot, tail = stem.rpartition(".")
        suffix = f".{tail.strip().lower()}" if dot and head else ""
        inner = head.rpartition(".")
        before = f".{inner[2].strip().lower()}" if inner[1] and inner[0] else ""
        counted = COUNTED.search(before)  # a.py (1).txt
        before = before[: counted.start()] if counted else before
        if (suffix in ADDED and KINDS.get(before) == "code") or (suffix in KINDS and suffix == before):
            stem, added = head, True
            continue
        if suffix not in KINDS and (counted := COUNTED.search(suffix)) and suffix[: counted.start()] in KINDS:
            return f"{head}{counted[0]}", suffix[: counted.start()], True  # a.py(1)
        return (head if suffix else stem), suffix, added


def _read_stem(stem: str, suffix: str, repairs: list[str], lab: Lab) -> Named:
    exact, loose = _patterns(lab.name)
    kind = KINDS.get(suffix, "other")
    if (found := exact.fullmatch(stem)) and (student := _student(found["id"])):
        if student != found["id"]:
            repairs.append("a person's name beside the number")
        return Named(student, kind, suffix, 0, 2, tuple(repairs))
    revision = 0
    bare = COPY.sub("", stem)
    while (counted := COUNTED.search(bare)) and _bears_id(head := bare[: counted.start()], loose):
        revision += int(counted[1] or counted[2] or counted[3])
        bare = head
    bare = bare.strip()
    if bare != stem.strip():
        repairs.append("the mark of a copy")
    elif bare != stem:
        repairs.append("spaces around it")
    if (found := exact.fullmatch(bare)) and (student := _student(found["id"])):
        return Named(student, kind, suffix, revision, 2, tuple(repairs))
    if (found := loose.fullmatch(bare)) and (student := _student(found["id"])):
        repairs.append("more behind it" if found["rest"].strip(" _-.") else "other letters' case or other separators")
        return Named(student, kind, suffix, revision, 2, tuple(repairs))
    if (number := _number(bare)) is not None:
        return Named(number, kind, suffix, revision, 1, (*repairs, "not all of the lab's words"))
    return Named(None, kind, suffix, revision, 0, tuple(repairs))


@lru_cache(maxsize=8)
def _patterns(name: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The lab's name as it is asked for, and with any case, separators and rest."""
    before, _, behind = name.partition("{student_id}")
    behind = behind.replace("{student_id}", "")
    exact = re.escape(before) + rf"(?P<id>{STUDENT_ID.pattern})" + re.escape(behind)
    gap = r"[\W_]*"
    first, last = (gap.join(re.findall(r"[^\W\d_]+|\d+", text)) for text in (before, behind))
    rest = rf"{gap}{last}(?P<rest>(?![^\W_]).*)" if last else r"(?P<rest>)"
    return re.compile(exact), re.compile(rf"{first}{gap}(?P<id>.+?){rest}", re.IGNORECASE | re.DOTALL)


def _bears_id(stem: str, loose: re.Pattern[str]) -> bool:
    return loose.fullmatch(stem) is not None or _number(stem) is not None


def _student(text: str) -> str | None:
    """The id in the lab's place for it: the number where a name stands beside it; None for what the handout prints there."""
    text = text.strip(" _-.")
    if re.sub(r"[\W_]", "", text).casefold() in PLACEHOLDERS or UNPRINTABLE.search(text):
        return None
    tokens = re.split(r"[\s_]+", text)
    numbers = [token for token in tokens if NUMBER.fullmatch(token)]
    if len(numbers) == 1:
        return numbers[0]
    return text if is_name(text) and "." not in text else None


def _number(text: str) -> str | None:
    """The one number of a student in a text, with the letters on it; a date is none where there is another."""
    found = {number.casefold(): number for number in NUMBER.findall(text)}
    if len(found) > 1:
        found = {key: number for key, number in found.items() if not DATE.fullmatch(number)}
    return next(iter(found.values())) if len(found) == 1 else None
