"""The hand-ins of a class as students name them and platforms export them, and what hostile ones may not do."""

import io
import os
import socket
import stat
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from unroll.errors import InputError
from unroll.labs.grade import entries, submissions
from unroll.labs.grade.names import exported, read_name, safe_id
from unroll.labs.grade.submissions import Submission, read_submissions
from unroll.labs.spec import load_lab

LAB = load_lab("homework")
PDF = b"%PDF-1.7\n"
A, B = "313513054", "313513055"


def name(student: str, suffix: str = ".py") -> str:
    return f"{student}_Lab7_Homework{suffix}"


def put(root: Path, content: dict[str, bytes]) -> Path:
    for path, data in content.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        os.utime(root / path, (1_760_000_000, 1_760_000_000))
    return root


def zipped(content: dict[str, bytes], when: tuple[int, ...] = (2025, 11, 26, 10, 0, 0)) -> bytes:
    return packed([(member(path, when), data) for path, data in content.items()])


def member(path: str, when: tuple[int, ...] = (2025, 11, 26, 10, 0, 0), mode: int = 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x", when)  # type: ignore[arg-type]
    info.filename = info.orig_filename = path  # else cut at a zero character
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def packed(members: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for info, data in members:
            archive.writestr(info, data)
    return file.getvalue()


def read(place: Path, into: Path | None = None) -> dict[str, Submission]:
    found = read_submissions(place, LAB, into or place.parent / "into")
    assert [s.student for s in found] == sorted(s.student for s in found)
    return {submission.student: submission for submission in found}


def text(submission: Submission) -> str:
    return " ".join(submission.notes + submission.doubts)


def code(submission: Submission) -> bytes | None:
    return None if submission.code is None else submission.code.read_bytes()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "class").mkdir()
    return tmp_path / "class"


def test_submissions_of_one_folder_one_zip_and_loose_files(place: Path) -> None:
    put(
        place,
        {
            f"{A}/{name(A)}": b"a",
            f"{A}/{name(A, '.pdf')}": PDF,
            f"{B}.zip": zipped({f"work/{name(B, '.ipynb')}": b"{}", name(B, ".pdf"): PDF}),
            name("s1"): b"c",
            name("s1", ".pdf"): PDF,
            "list.csv": b"no hand-in",
        },
    )
    found = read(place)
    assert list(found) == [A, B, "s1"]
    assert [code(s) for s in found.values()] == [b"a", b"{}", b"c"]
    for student, submission in found.items():
        assert submission.notes == ()
        for path in (submission.code, submission.pdf):
            assert path is not None
            assert path.parent == place.parent / "into" / student
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
            assert path.is_file()
            assert not path.is_symlink()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (f"{A} Lab7 Homework (1).py", "copy"),
        (f"{A}_lab7_homework.PY", "capitals"),
        (f"Copy of {A}_Lab7_Homework.py", "copy"),
        (f"{A}_Lab7_Homework - Copy (2).py", "copy"),
        (f"{A}_Lab7_Homework.py.txt", "ending"),
        (f"{A}_Lab7_Homework.py(1)", "ending"),
        (f"{A}_Lab7_Homework_final.py", "more behind"),
        (f"{A}_Lab7.py", "not all"),
        (f"{A}.py", "not all"),
        (f"Lab7_Homework_{A}.py", "not all"),
        (f"wang_{A}_Lab7_Homework.py", "person's name"),
        ("３１３５１３０５４＿Lab7_Homework.py", "width"),
        (f"{A}_20251126.py", "not all"),
    ],
)
def test_submissions_repair_a_name_and_say_so(place: Path, given: str, said: str) -> None:
    put(place, {given: b"a"})
    found = read(place)
    assert list(found) == [A]
    assert code(found[A]) == b"a"
    assert said in text(found[A])
    assert "not as asked for" in text(found[A])
    path = found[A].code
    assert path is not None
    assert path.name.lower().endswith(".py")


def test_submissions_find_no_number_in_placeholders_and_words() -> None:
    for given in ("StudentID_Lab7_Homework.py", "homework.py", "lab7.py", "20251126_20251127.py", "lstm2.py"):
        assert read_name(given, LAB).student is None, given
    assert read_name("s1_Lab7_Homework.py", LAB).student == "s1"


def test_submissions_go_by_the_folder_where_files_name_nobody(place: Path) -> None:
    put(place, {f"Wang {A} (1)/lab.py": b"a", "Ann Lee/lab.py": b"b", "x.py": b"c"})
    found = read(place)
    assert list(found) == [A, "Ann Lee", "x"]
    assert "No student number" in text(found["Ann Lee"])
    assert "No student number" not in text(found[A])


def test_submissions_keep_both_where_file_and_folder_disagree(place: Path) -> None:
    put(place, {f"{A}/{name(B)}": b"a"})
    found = read(place)
    assert list(found) == [B]
    assert A in text(found[B])
    assert B in text(found[B])


def test_submissions_of_moodle(place: Path) -> None:
    put(
        place,
        {
            f"Ann Lee_1234567_assignsubmission_file_/{name(A)}": b"a",
            f"Ann Lee_1234567_assignsubmission_file_/{name(A, '.pdf')}": PDF,
            "Ann Lee_1234567_assignsubmission_onlinetext_/onlinetext.html": b"<p>hi",
            f"Bo Li_1234568_assignsubmission_file/{B}.zip": zipped({"main.py": b"b"}),
            f"{A}9 Cy_1234569_assignsubmission_file_/main.py": b"c",
            "Di_1234570_assignsubmission_file_main.py": b"d",
            "Di_1234570_assignsubmission_file_report.pdf": PDF,
            "Ed_1234571_assignsubmission_onlinetext_onlinetext.html": b"<p>e",
        },
    )
    found = read(place)
    assert {s: code(v) for s, v in found.items()} == {
        A: b"a",
        f"{A}9": b"c",
        "Bo Li_1234568": b"b",
        "Di_1234570": b"d",
        "Ed_1234571": None,
    }
    assert found[A].pdf is not None
    assert found["Di_1234570"].pdf is not None
    assert "typed" in text(found[A])
    assert "typed" in text(found["Ed_1234571"])


def test_submissions_of_moodle_within_the_folder_that_unpacking_made(place: Path) -> None:
    put(place, {f"CS-Lab 7-123456/Ann_{n}_assignsubmission_file_/main.py": b"a" for n in (1, 2)})
    assert list(read(place)) == ["Ann_1", "Ann_2"]


def test_submissions_of_canvas(place: Path) -> None:
    put(
        place,
        {
            f"leeann_12345_67890_{name(A)}": b"old",
            f"leeann_LATE_12345_67999_{A}_Lab7_Homework-1.py": b"new",
            f"leeann_LATE_12345_68000_{A}_Lab7_Homework-1.pdf": PDF,
            "libo_12346_67891_main.ipynb": b"{}",
            "anon_Ab1Cd_67892_main.py": b"x",
            "cy_12347_text.html": b"<p>",
        },
    )
    found = read(place)
    assert {s: code(v) for s, v in found.items()} == {
        A: b"new",
        "anon_Ab1Cd": b"x",
        "cy_12347": None,
        "libo_12346": b"{}",
    }
    assert "uploaded later" in text(found[A])
    assert str(found[A].code).endswith(f"/{A}_Lab7_Homework-1.py")
    assert exported(f"lee_{A}_Lab7_Homework.py") is None


def test_submissions_of_one_class_zip_with_zips_in_it(place: Path) -> None:
    content = {f"Lab 7/{A}.zip": zipped({name(A): b"a"}), f"Lab 7/{B}/{name(B)}": b"b", "__MACOSX/._x.py": b""}
    (place / "class.zip").write_bytes(zipped(content))
    found = read(place / "class.zip")
    assert {s: code(v) for s, v in found.items()} == {A: b"a", B: b"b"}


def test_submissions_take_the_later_by_what_tells(place: Path, tmp_path: Path) -> None:
    put(place, {name(A): b"old", f"{A}_Lab7_Homework (1).py": b"new", name(A, ".pdf"): PDF})
    found = read(place)
    assert code(found[A]) == b"new"
    assert found[A].pdf is not None
    assert "its name says that it is the later one" in text(found[A])
    assert name(A) in text(found[A])
    (tmp_path / "zip").mkdir()
    late = zipped({"x.py": b"new"}, (2025, 11, 27, 10, 0, 0))
    put(tmp_path / "zip", {f"{A}.zip": zipped({"x.py": b"old"}), f"{A}_again.zip": late, f"{B}/a.py": b"1"})
    os.utime(tmp_path / "zip" / f"{A}_again.zip", (1_770_000_000, 1_770_000_000))
    put(tmp_path / "zip", {f"{B}/b.py": b"2"})
    found = read(tmp_path / "zip")
    assert code(found[A]) == b"new"
    assert "its folder or zip is newer" in text(found[A])
    assert code(found[B]) == b"2"
    assert "nothing tells which is later" in text(found[B])


def test_submissions_take_a_members_time(tmp_path: Path) -> None:
    new, old = member(f"{A}/a.py", (2025, 11, 27, 0, 0, 0)), member(f"{A}/b.py", (2025, 11, 26, 0, 0, 0))
    (tmp_path / "c.zip").write_bytes(packed([(new, b"new"), (old, b"old")]))
    found = read(tmp_path / "c.zip")
    assert code(found[A]) == b"new"
    assert "it is newer" in text(found[A])


def test_submissions_prefer_the_labs_name_to_newer_files(place: Path) -> None:
    put(place, {f"{A}/{name(A)}": b"a", f"{A}/model.py": b"b", f"{A}/{name(B)}": b"friend's"})
    os.utime(place / A / "model.py", (1_780_000_000, 1_780_000_000))
    found = read(place)
    assert list(found) == [A]
    assert code(found[A]) == b"a"
    assert "model.py" in text(found[A])
    assert "nearer to the lab's" in text(found[A])


def test_submissions_of_one_number_by_two_owners_replace_nothing(place: Path) -> None:
    put(
        place,
        {
            f"{A} Ann_1_assignsubmission_file_/{name(A)}": b"ann",
            f"Bo_2_assignsubmission_file_/{name(A)}": b"bo",
            f"Cy_3_assignsubmission_file_/{name(B)}": b"cy",
            f"Di_4_assignsubmission_file_/{name(B)}": b"di",
        },
    )
    os.utime(place / "Bo_2_assignsubmission_file_" / name(A), (1_780_000_000, 1_780_000_000))
    found = read(place)
    assert {s: code(v) for s, v in found.items()} == {A: b"ann", "Bo_2": b"bo", "Cy_3": b"cy", "Di_4": b"di"}
    assert "nothing was replaced" in text(found[A])
    assert all("a person has to decide" in text(found[s]) for s in ("Bo_2", "Cy_3", "Di_4"))


def test_submissions_cannot_take_a_number_by_a_folders_name_after_it(place: Path) -> None:
    """Who claims a number falls back to their own, even if that is taken."""
    put(place, {f"{A}/{name(B)}": b"a", f"{B}/{name(B)}": b"b", f"x_{A}.zip": zipped({name(A): b"z"})})
    found = read(place)
    assert code(found[B]) == b"b"
    assert sorted(filter(None, map(code, found.values()))) == [b"a", b"b", b"z"]


def test_submissions_ignore_rubbish_and_name_what_is_not_read(place: Path) -> None:
    put(
        place,
        {
            f"{A}/{name(A)}": b"a",
            f"{A}/__pycache__/x.py": b"",
            f"{A}/.ipynb_checkpoints/{name(A, '.ipynb')}": b"",
            f"{A}/data/MNIST/x.py": b"",
            f"{A}/.DS_Store": b"",
            f"{A}/report.docx": b"",
            f"{A}/old.rar": b"Rar!",
        },
    )
    (submission,) = read(place).values()
    assert code(submission) == b"a"
    assert submission.pdf is None
    assert "report.docx" in text(submission)
    assert "RAR archive" in text(submission)
    assert "There is no PDF" in text(submission)
    assert len(submission.notes) == 3


def test_submissions_without_anything_are_submissions(place: Path) -> None:
    (place / A).mkdir()
    put(place, {f"{B}.rar": b"Rar!", "8765432.zip": b"Rar!\x1a\x07", "7654321.zip": b"PK\x03\x04 nothing"})
    found = read(place)
    assert list(found) == [A, B, "7654321", "8765432"]
    assert all(s.code is None and s.pdf is None for s in found.values())
    assert "RAR" in text(found[B])
    assert "RAR" in text(found["8765432"])
    assert "damaged" in text(found["7654321"])
    assert "There is no code" in text(found[A])


def test_submissions_are_an_error_only_where_nothing_is(place: Path, tmp_path: Path) -> None:
    for content, words in ((b"PK\x03\x04", "damaged"), (b"7z\xbc\xaf\x27\x1c", "7z archive"), (b"", "damaged")):
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(InputError, match=words):
            read(tmp_path / "x.zip")
    with pytest.raises(InputError, match="no hand-in"):
        read(place)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        read(Path("a\0b"))
    assert not (tmp_path / "into").exists()


HOSTILE = {
    "../../escape.py": "leads out",
    "/etc/cron.py": "leads out",
    "C:/x.py": "leads out",
    "..\\..\\x.py": "leads out",
    "a\0b.py": "control characters",
    "a\x1b[2Jb.py": "control characters",
    "a\u202eb.py": "control characters",
}


@pytest.mark.parametrize("path", HOSTILE)
def test_submissions_hostile_names_in_a_zip_stay_in_their_hand_in(tmp_path: Path, path: str) -> None:
    (tmp_path / "in").mkdir()
    bad = packed([(member(path), b"evil")])
    put(tmp_path / "in", {f"{A}.zip": bad, f"{B}.zip": zipped({name(B): b"b"})})
    found = read(tmp_path / "in")
    assert list(found) == [A, B]
    assert found[A].code is None
    assert code(found[B]) == b"b"
    assert HOSTILE[path] in text(found[A])
    assert "\x1b" not in text(found[A])
    written = sorted(str(p.relative_to(tmp_path / "into")) for p in (tmp_path / "into").rglob("*") if p.is_file())
    assert written == [f"{B}/{name(B)}", "handed-in.json"]


@pytest.mark.parametrize("path", HOSTILE)
def test_submissions_hostile_names_in_the_class_zip_stop_nobody(tmp_path: Path, path: str) -> None:
    (tmp_path / "c.zip").write_bytes(packed([(member(path), b"evil"), (member(f"{B}/{name(B)}"), b"b")]))
    found = read(tmp_path / "c.zip")
    assert code(found.pop(B)) == b"b"
    (other,) = found.values()
    assert other.code is None
    assert HOSTILE[path] in text(other)
    assert all(p.resolve().is_relative_to(tmp_path) for p in (tmp_path / "into").rglob("*"))


@pytest.mark.parametrize(("mode", "words"), [(0o120777, "is a link"), (0o010644, "a pipe"), (0o020666, "a device")])
def test_submissions_special_members_of_a_zip_are_not_read(tmp_path: Path, mode: int, words: str) -> None:
    bad = packed([(member(name(A), mode=mode), b"/etc/passwd"), (member("other.py"), b"a")])
    put(tmp_path / "in", {f"{A}.zip": bad})
    found = read(tmp_path / "in")
    assert code(found[A]) == b"a"
    assert words in text(found[A])


@pytest.mark.skipif(sys.platform != "linux", reason="makes pipes and sockets, by a path of Linux")
def test_submissions_special_files_on_disk_are_not_read(place: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text("secret")
    (place / A).mkdir()
    (place / A / name(A)).symlink_to(secret)
    (place / B).mkdir()
    os.mkfifo(place / B / name(B))
    (place / "linked").symlink_to(tmp_path)
    os.mkfifo(place / name("8765432"))
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(place / A, os.O_RDONLY)
        try:
            listening.bind(f"/proc/self/fd/{here}/s.py")  # a path as short as a socket's has to be
        finally:
            os.close(here)
        found = read(place)
    assert list(found) == [A, B, "8765432", "linked"]
    assert all(s.code is None for s in found.values())
    assert "is a link" in text(found[A])
    assert "a socket" in text(found[A])
    assert "a pipe" in text(found[B])
    assert "a pipe" in text(found["8765432"])
    assert "is a link" in text(found["linked"])


def test_submissions_encrypted_and_oddly_packed_members(place: Path) -> None:
    data = bytearray(zipped({name(A): b"a" * 100}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(magic) + offset
        data[at : at + 2] = struct.pack("<H", 0x1)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(name(B), b"b")
    put(place, {f"{A}.zip": bytes(data), f"{B}.zip": file.getvalue()})
    found = read(place)
    assert "is encrypted" in text(found[A])
    assert "method" in text(found[B])
    assert found[A].code is None
    assert found[B].code is None


def test_submissions_count_real_bytes_of_bombs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "MOST_BYTES", 1 << 20)
    lying = bytearray(zipped({name(A, ".ipynb"): bytes(8 << 20)}))
    at = lying.index(b"PK\x01\x02") + 24
    lying[at : at + 4] = struct.pack("<I", 10)  # the size that the directory tells
    put(place, {f"{A}.zip": zipped({name(A, ".ipynb"): bytes(8 << 20)}), f"{B}.zip": bytes(lying), "s/a.py": b"1"})
    found = read(place)
    assert "has more than 1 MB" in text(found[A])
    assert "without its outputs" in text(found[A])
    assert found[A].code is None
    assert code(found["s"]) == b"1"
    assert len(code(found[B]) or b"") <= 1 << 20


def test_submissions_bound_nested_zips_and_the_whole_class(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = zipped({name(A): b"a"})
    put(place, {f"{A}.zip": zipped({"again.zip": inner}), f"{B}/{B}.zip": zipped({"x.py": b"b"})})
    found = read(place)
    assert found[A].code is None
    assert "within a zip" in text(found[A])
    assert code(found[B]) == b"b"
    monkeypatch.setattr(entries, "MOST_OF_A_ZIP", 64)
    assert "has more than 0 MB" in text(read(place)[B])
    monkeypatch.undo()
    spent = entries.Budget(100)
    with pytest.raises(entries.ReadError, match="the class has more"):
        spent.spend(101)


def test_submissions_with_too_many_members(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (entries, submissions):
        monkeypatch.setattr(module, "MOST_MEMBERS", 20)
    many = {f"{n}.py": b"" for n in range(21)}
    put(place, {f"{A}.zip": zipped(many), f"{B}/{name(B)}": b"b", **{f"8765432/{n}": data for n, data in many.items()}})
    deep = place / "7654321"
    for _ in range(entries.MOST_DEPTH + 2):
        deep = deep / "d"
    put(deep, {"x.py": b""})
    found = read(place)
    assert code(found[B]) == b"b"
    assert all("more than 20 files" in text(found[s]) and found[s].code is None for s in (A, "8765432"))
    assert "too many folders" in text(found["7654321"]) or "more than 20 files" in text(found["7654321"])
    monkeypatch.setattr(entries, "DIRECTORY", 100)
    put(place, {f"{A}.zip": zipped({name(A): b"a", "b.py": b""})})
    archive = entries.opened_zip((place / f"{A}.zip").open("rb"), 100)
    with pytest.raises(entries.ReadError, match="directory is too large"), archive:
        pass


def test_submissions_damaged_anywhere_stop_nobody(place: Path) -> None:
    """Every cut and many changed bytes of a student's zip end in notes."""
    good = zipped({name(A): b"print(1)\n" * 50, name(A, ".pdf"): PDF})
    content = {f"{9000000 + n}.zip": good[:n] for n in range(0, len(good), 7)}
    for n in range(0, len(good), 3):
        changed = bytearray(good)
        changed[n] ^= 0xFF
        content[f"{8000000 + n}.zip"] = bytes(changed)
    put(place, {**content, f"{B}/{name(B)}": b"b"})
    found = read(place)
    assert code(found[B]) == b"b"
    assert len(found) >= len(content)


def test_submissions_names_twice_in_other_case_and_other_encodings(place: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = packed([(member(name(A)), b"first"), (member(name(A)), b"second")])
    case = zipped({"Main.py": b"1", "main.py": b"2"})
    marked = member("報告.py")
    utf8 = packed([(marked, b"u")]).replace(struct.pack("<H", 0x800), struct.pack("<H", 0))
    big5 = utf8.replace("報告".encode(), b"\xb3\xf8\xa7i\xa1\x40")
    content = {f"{A}.zip": twice, f"{B}.zip": case, "7654321.zip": utf8, "8765432.zip": big5}
    both = zipped({**content, "S12345/a.py": b"l", "s12345/b.py": b"s"})
    (place / "class.zip").write_bytes(both)
    found = read(place / "class.zip")
    assert code(found[A]) == b"second"
    assert "twice" in text(found[A])
    assert code(found[B]) in (b"1", b"2")
    assert "Main.py" in text(found[B])
    path = found["7654321"].code
    assert path is not None
    assert path.name == "報告.py"
    assert code(found["8765432"]) == b"u"
    assert "unknown encoding" in text(found["8765432"])
    assert len([s for s in found if s.lower() == "s12345"]) == 1


def test_submissions_ids_are_safe_names() -> None:
    assert safe_id("../../etc") == "etc"
    assert safe_id("CON") == "unnamed"
    assert "." not in safe_id("grades.csv")
    assert safe_id("\x1b[2J=1+1") not in ("", ".")
    assert "/" not in safe_id("a/b")


def test_submissions_are_the_same_in_any_order_of_the_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(place, {f"{s}/{n}.py": n.encode() for s in (A, B, "Ann") for n in "cab"})
    put(place, {f"{A} (1)/x.py": b"x", name("s1"): b"", f"{B}.zip": zipped({"b.py": b"", "a.py": b""})})
    first = read(place)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: str) -> None:
            with scandir(path) as listed:
                self.entries = sorted(listed, key=lambda child: child.name, reverse=True)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Reversed)
    assert read(place) == first


def test_submissions_write_only_what_changed_and_remove_only_their_own(place: Path) -> None:
    put(place, {f"{A}/{name(A)}": b"a", f"{B}/{name(B)}": b"b", f"{B}/{name(B, '.pdf')}": PDF})
    into = place.parent / "into"
    read(place)
    paths = [into / A / name(A), into / B / name(B), into / "handed-in.json"]
    for path in paths:
        os.utime(path, (1, 1))
    (into / B / "result.json").write_text("ours, of another command")
    (into / "notes.txt").write_text("somebody's")
    (into / A / name(A)).chmod(0o600)
    read(place)
    assert [p.stat().st_mtime for p in paths] == [1, 1, 1]
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o644
    (into / B / name(B, ".pdf")).write_bytes(b"%PDF- marked by a person")
    (place / B / name(B)).unlink()
    (place / B / name(B, ".pdf")).unlink()
    (place / B).rmdir()
    assert list(read(place)) == [A]
    assert not (into / B / name(B)).exists()
    assert (into / B / name(B, ".pdf")).exists()
    assert (into / B / "result.json").exists()
    assert (into / "notes.txt").exists()


def test_submissions_do_not_write_through_links(place: Path, tmp_path: Path) -> None:
    put(place, {f"{A}/{name(A)}": b"a"})
    into = tmp_path / "into"
    (into / A).mkdir(parents=True)
    outside = tmp_path / "outside.py"
    outside.write_text("outside")
    (into / A / name(A)).symlink_to(outside)
    found = read(place)
    assert outside.read_text() == "outside"
    assert found[A].code is not None
    assert not (into / A / name(A)).is_symlink()
    (into / A / name(A)).unlink()
    (into / A).rmdir()
    (into / A).symlink_to(tmp_path)
    with pytest.raises(InputError, match="is a link"):
        read(place)


def test_submissions_leave_their_own_folder_out(place: Path) -> None:
    put(place, {f"{A}/{name(A)}": b"a", "graded/class.json": b"{}", f"graded/{A}/feedback.pdf": PDF})
    for _ in range(2):
        assert list(read(place, place / "graded" / "hand-ins")) == [A]
    with pytest.raises(InputError, match="their own folder"):
        read(place, place)


def test_submissions_a_damaged_class_zip_is_one_line_or_has_notes(tmp_path: Path) -> None:
    """Changed bytes of the class's zip end in an InputError, or leave the others' hand-ins."""
    good = zipped({f"{A}.zip": zipped({name(A): b"a"}), f"{B}/{name(B)}": b"b" * 40})
    outcomes = []
    for n in range(0, len(good), 2):
        changed = bytearray(good)
        changed[n] ^= 0xA5
        (tmp_path / "c.zip").write_bytes(changed)
        try:
            outcomes.append(len(read_submissions(tmp_path / "c.zip", LAB, tmp_path / "into")))
        except InputError as error:
            outcomes.append(-len(str(error).splitlines()))
    assert set(outcomes) <= {-1, 1, 2, 3}
    assert outcomes.count(2) > len(outcomes) // 4
