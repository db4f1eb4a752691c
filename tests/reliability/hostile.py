"""Hand the commands what somebody would who wants to break them: bombs, devices, pipes, escapes, names that lead elsewhere.

Each case runs in a process of its own. It may be refused, with status 2 and one line; where a case is no error the command may do
its work. In neither case may it take more than SECONDS or MEGABYTES, write a control character to the terminal, print a secret,
or touch a file outside its folder.

Usage: python tests/reliability/hostile.py [--only CASE ...]
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import lzma
import os
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import crash
import numpy as np
import targets

SECONDS, MEGABYTES, LINE = 30, 1500, 1000
SECRET = "s3cret"
ESCAPE = "\x1b]0;owned\x07\x1b[2J"
Make = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Case:
    """What to run. `make` puts files into a folder and returns the arguments; `fine`: the command may succeed."""

    name: str
    make: Make
    fine: bool = False


CASES: list[Case] = []


def case(fine: bool = False) -> Callable[[Make], Make]:
    """Add a case; its name is the function's."""

    def add(make: Make) -> Make:
        CASES.append(Case(make.__name__.replace("_", " "), make, fine))
        return make

    return add


TRAIN = ["--out", "out", "--epochs", "1", "--hidden-size", "2", "--batch-size", "2", "--no-figures"]


def pictures(place: Path, **files: bytes) -> list[str]:
    """A folder of pictures with some of its files replaced: train_images, train_labels, test_images, test_labels."""
    names = {
        "train_images": ("train-images-idx3-ubyte", targets.IMAGES),
        "train_labels": ("train-labels-idx1-ubyte", targets.LABELS),
        "test_images": ("t10k-images-idx3-ubyte", targets.IMAGES),
        "test_labels": ("t10k-labels-idx1-ubyte", targets.LABELS),
    }
    for key, (name, content) in names.items():
        (place / name).write_bytes(files.get(key, content))
    return ["train", "lstm-mnist", "--data", ".", *TRAIN]


def table(place: Path, text: str, name: str = "x.csv") -> list[str]:
    (place / name).write_text(text, encoding="utf-8")
    return ["train", "lstm-series", "--data", name, "--validation", "0", "--test", "0", *TRAIN]


def told(place: Path, text: str, name: str = "x.csv") -> list[str]:
    (place / name).write_text(text, encoding="utf-8")
    return ["train", "lstm-sentences", "--data", name, "--validation", "0", "--test", "0.5", *TRAIN]


def zeros(size: int) -> bytes:
    """So many zeros, packed with gzip, without ever holding them."""
    return gzip.compress(bytes(1 << 26), 9) * (size >> 26)  # files of gzip may stand one behind the other


# --------------------------------------------------------------------------------------------------------------- bombs


@case()
def pictures_that_unpack_to_four_gigabytes(place: Path) -> list[str]:
    return pictures(place, train_images=zeros(4 << 30))


@case()
def labels_that_unpack_to_four_gigabytes(place: Path) -> list[str]:
    return pictures(place, train_labels=gzip.compress(targets.LABELS) + zeros(4 << 30))


@case(fine=True)
def xz_with_a_dictionary_of_four_gigabytes(place: Path) -> list[str]:
    packed = bytearray(lzma.compress(targets.IMAGES, preset=0))
    at = packed.index(0x21, 12)  # the filter's number; its size of the dictionary comes two bytes later
    packed[at + 2] = 40  # 4 GiB
    header = packed[12 : 12 + 4 * (packed[12] + 1) - 4]
    packed[12 + len(header) : 12 + len(header) + 4] = struct.pack("<I", zlib.crc32(header))
    return pictures(place, train_images=bytes(packed))


@case()
def a_label_of_two_thousand_million(place: Path) -> list[str]:
    return pictures(place, train_labels=targets.idx(np.array([0, 1, 2, 0, 1, 2_000_000_000], ">i4"), 0x0C))


@case()
def a_header_that_promises_a_terabyte(place: Path) -> list[str]:
    return pictures(place, train_images=bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 16, 16))


def npz(place: Path, header: str, body: bytes = b"") -> list[str]:
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode().ljust(118) + body
    with zipfile.ZipFile(place / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", member)
        y = io.BytesIO()
        np.save(y, np.array([0, 1]))
        archive.writestr("y.npy", y.getvalue())
    return ["train", "lstm-series", "--data", "x.npz", *TRAIN]


@case()
def an_array_that_promises_a_terabyte(place: Path) -> list[str]:
    return npz(place, f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**9}, 128, 1), }}")


@case()
def an_archive_that_unpacks_to_four_gigabytes(place: Path) -> list[str]:
    with (
        zipfile.ZipFile(place / "x.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("X.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(4 << 10):
            member.write(bytes(1 << 20))
    return ["train", "lstm-series", "--data", "x.npz", *TRAIN]


@case()
def an_array_of_python_objects(place: Path) -> list[str]:
    return npz(
        place, "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", b"cos\nsystem\n(S'touch ../escaped'\ntR."
    )


@case()
def a_picture_of_four_thousand_million_pixels(place: Path) -> list[str]:
    run = model(place)
    size = struct.pack(">II5B", 65000, 65000, 8, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", size), (b"IDAT", zlib.compress(bytes(10_000_000))), (b"IEND", b""))
    )
    (place / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return ["predict", run, "x.png"]


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join([f'*{b}'] * 9)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
)


@case()
def a_recipe_of_aliases(place: Path) -> list[str]:
    (place / "x.yaml").write_text(ALIASES + "task: images\nname: *i\n")
    return ["train", "x.yaml"]


@case()
def a_lab_of_aliases(place: Path) -> list[str]:
    (place / "x.yaml").write_text(ALIASES + "title: *i\nquestions: *i\n")
    return ["lab", "handin", "--lab", "x.yaml", "--questions"]


@case()
def an_option_of_aliases(place: Path) -> list[str]:
    return ["train", "lstm-mnist", "--learning-rate", "[&a [x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a], *b, *b]"]


@case()
def an_option_nested_ten_thousand_deep(place: Path) -> list[str]:
    return ["train", "lstm-mnist", "--learning-rate", "[" * 10_000]


@case()
def a_recipe_nested_a_hundred_thousand_deep(place: Path) -> list[str]:
    (place / "x.yaml").write_text("task: images\nname: " + "[" * 100_000)
    return ["train", "x.yaml"]


@case()
def a_number_of_a_hundred_thousand_digits(place: Path) -> list[str]:
    return ["train", "lstm-mnist", "--epochs", "9" * 100_000]


@case()
def json_nested_a_hundred_thousand_deep(place: Path) -> list[str]:
    return told(place, '{"text": ' + "[" * 100_000 + "\n", "x.jsonl")


@case()
def a_table_with_a_million_columns(place: Path) -> list[str]:
    return table(place, ",".join(["id", "time", "label", *map(str, range(1_000_000))]) + "\n1,1,a\n")


@case()
def a_label_for_each_of_a_hundred_thousand_sentences(place: Path) -> list[str]:
    return told(place, "text,label\n" + "".join(f"good,{'x' * 50}{n}\n" for n in range(100_000)))


# ------------------------------------------------------------------------------------------------------------- a model


def model(place: Path, name: str = "lstm-mnist") -> str:
    """A trained run."""
    shutil.copytree(targets.FIXTURES / name, place / name)
    return name


def own_run(place: Path) -> str:
    """The folder of a run of own code, with as little in it as may be."""
    shutil.copytree(targets.own_run(), place / "own")
    return "own"


def with_metadata(place: Path, change: Callable[[dict], None], tensors: dict | None = None) -> list[str]:
    """A model file whose metadata are changed."""
    content = (targets.FIXTURES / "lstm-series" / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["unroll"])
    change(inner)
    header["__metadata__"]["unroll"] = json.dumps(inner)
    header |= tensors or {}
    packed = json.dumps(header).encode()
    (place / "x.safetensors").write_bytes(struct.pack("<Q", len(packed)) + packed + content[8 + length :])
    table(place, targets.LONG)
    return ["predict", "x.safetensors", "x.csv"]


@case()
def a_model_of_a_million_million_layers(place: Path) -> list[str]:
    return with_metadata(place, lambda inner: inner["recipe"].update(num_layers=10**12))


@case()
def a_model_of_a_thousand_layers_of_a_million_units(place: Path) -> list[str]:
    return with_metadata(place, lambda inner: inner["recipe"].update(num_layers=1000, hidden_size=1_000_000))


@case()
def a_model_of_a_million_classes(place: Path) -> list[str]:
    return with_metadata(place, lambda inner: inner["encoder"].update(class_names=[str(n) for n in range(1_000_000)]))


@case()
def a_model_with_a_header_of_an_exabyte(place: Path) -> list[str]:
    (place / "x.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    return ["predict", "x.safetensors", "x.csv"]


@case()
def a_model_with_tensors_that_are_not_there(place: Path) -> list[str]:
    far = {"more": {"dtype": "F32", "shape": [10**9, 10**3], "data_offsets": [0, 4 * 10**12]}}
    return with_metadata(place, lambda inner: None, far)


@case(fine=True)
def a_model_whose_classes_clear_the_screen(place: Path) -> list[str]:
    return with_metadata(place, lambda inner: inner["encoder"].update(class_names=[f"{ESCAPE}{n}" for n in range(3)]))


# ------------------------------------------------------------------------------------------------------ what is no file


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return path.name


@case()
def a_pipe_as_sentences(place: Path) -> list[str]:
    return ["train", "lstm-sentences", "--data", pipe(place / "x.csv"), *TRAIN]


@case()
def a_pipe_as_series(place: Path) -> list[str]:
    return ["train", "lstm-series", "--data", pipe(place / "x.npz"), *TRAIN]


@case()
def a_pipe_as_recipe(place: Path) -> list[str]:
    return ["train", pipe(place / "x.yaml")]


@case()
def a_pipe_as_picture(place: Path) -> list[str]:
    return ["predict", model(place), pipe(place / "x.png")]


@case()
def a_pipe_among_the_pictures(place: Path) -> list[str]:
    arguments = pictures(place)
    (place / "t10k-labels-idx1-ubyte").unlink()
    pipe(place / "t10k-labels-idx1-ubyte")
    return arguments


@case()
def a_pipe_as_model(place: Path) -> list[str]:
    return ["predict", pipe(place / "x.safetensors"), "x.png"]


@case()
def a_pipe_as_answers(place: Path) -> list[str]:
    given = ["--student-id", "s1", "--name", "N", "--draft", "--answers", pipe(place / "x.md")]
    return ["lab", "handin", own_run(place), "--lab", "homework", *given]


@case()
def a_pipe_as_handout(place: Path) -> list[str]:
    given = ["--student-id", "s1", "--handout", pipe(place / "x.pdf")]
    return ["lab", "handin", own_run(place), "--lab", "homework", *given]


@case()
def a_handout_that_unpacks_into_gigabytes(place: Path) -> list[str]:
    packed = zlib.compress(zlib.compress(bytes(1 << 30)))
    head = b"%PDF-1.7\n1 0 obj <</Type/XRef /Size 2 /W[1 2 1] /Root 1 0 R /Filter[/FlateDecode/FlateDecode] /Length "
    body = head + str(len(packed)).encode() + b">> stream\n" + packed + b"\nendstream endobj\n"
    tail = b"startxref\n9\n%%EOF\n"
    (place / "x.pdf").write_bytes(body + tail)
    return ["lab", "handin", own_run(place), "--lab", "homework", "--student-id", "s1", "--handout", "x.pdf"]


@case()
def an_own_run_whose_files_are_elsewhere(place: Path) -> list[str]:
    own_run(place)
    facts = json.loads((place / "own" / "own.json").read_text()) | {"files": {"/etc/passwd": "0" * 64}}
    (place / "own" / "own.json").write_text(json.dumps(facts))
    return ["lab", "handin", "own", "--lab", "homework", "--student-id", "s1"]


@case()
def an_endless_file_as_sentences(place: Path) -> list[str]:
    (place / "x.csv").symlink_to("/dev/zero")
    return ["train", "lstm-sentences", "--data", "x.csv", *TRAIN]


@case()
def an_endless_file_as_recipe(place: Path) -> list[str]:
    (place / "x.yaml").symlink_to("/dev/zero")
    return ["train", "x.yaml"]


@case()
def an_endless_file_as_picture(place: Path) -> list[str]:
    (place / "x.png").symlink_to("/dev/zero")
    return ["predict", model(place), "x.png"]


@case()
def a_folder_as_sentences(place: Path) -> list[str]:
    (place / "x.csv").mkdir()
    return ["train", "lstm-sentences", "--data", "x.csv", *TRAIN]


# ------------------------------------------------------------------------------------------------- escapes and injections


@case(fine=True)
def labels_that_rename_the_terminal(place: Path) -> list[str]:
    return told(place, "text,label\n" + "".join(f"good movie,{ESCAPE}a\nbad movie,b\n" for _ in range(4)))


@case()
def a_sentence_that_clears_the_screen(place: Path) -> list[str]:
    return told(place, f"text,label\ngood,a\nbad,b\n{ESCAPE},\n")


@case()
def a_column_that_clears_the_screen(place: Path) -> list[str]:
    return told(place, f"{ESCAPE},x\ngood,a\nbad,b\n")


@case()
def a_file_name_that_clears_the_screen(place: Path) -> list[str]:
    return ["train", "lstm-sentences", "--data", f"{ESCAPE}.csv"]


@case(fine=True)
def words_that_clear_the_screen_when_they_are_unknown(place: Path) -> list[str]:
    return ["predict", model(place, "lstm-sentences"), f"good {ESCAPE} movie"]


@case()
def a_recipe_whose_name_leads_elsewhere(place: Path) -> list[str]:
    table(place, targets.LONG)
    (place / "x.yaml").write_text(
        "task: series\ndata: x.csv\nname: ../../escaped\nepochs: 1\nbatch_size: 1\nhidden_size: 2\n"
    )
    return ["train", "x.yaml", "--validation", "0", "--test", "0"]


@case()
def a_lab_whose_name_leads_elsewhere(place: Path) -> list[str]:
    (place / "x.yaml").write_text("name: ../escaped\ntitle: T\nquestions: []\n")
    given = ["--student-id", "../../escaped", "--name", "N", "--draft"]
    return ["lab", "handin", own_run(place), "--lab", "x.yaml", *given]


@case(fine=True)
def a_report_that_reads_other_files(place: Path) -> list[str]:
    text = '## 1\n\n#read("/etc/passwd") #image("/etc/passwd")\n\n![x](/etc/passwd)\n'
    (place / "x.md").write_text(text)
    given = ["--student-id", "s1", "--name", "N", "--draft", "--answers", "x.md"]
    return ["lab", "handin", own_run(place), "--lab", "homework", *given]


def storage(url: str) -> Make:
    def make(place: Path) -> list[str]:
        table(place, targets.LONG)
        (place / "x.yaml").write_text("task: series\ndata: x.csv\nbatch_size: 1\nvalidation: 1\nspace:\n  seed: 1, 2\n")
        return ["tune", "x.yaml", "--space", "hidden_size=2,3", "--storage", url, "--out", "out"]

    return make


for number, url in enumerate(
    [
        f"postgresql+psycopg://user:{SECRET}@127.0.0.1:1/db",
        f"postgresql+psycopg://user@127.0.0.1:1/db?password={SECRET}",
        f"postgresql+psycopg://user:x@{SECRET}@127.0.0.1:1/db",
        f"postgresql://user:{SECRET}@[::1/db",
        f"nonsense://user:{SECRET}@host/db",
        f"postgresql+psycopg://127.0.0.1:1/db?user=u&password={SECRET}&connect_timeout=x",
    ],
    start=1,
):
    CASES.append(Case(f"a password in a storage, form {number}", storage(url)))


# ------------------------------------------------------------------------------------------------------------- running


def run(one: Case) -> str | None:
    """What is wrong with how a case is dealt with; None where nothing is."""
    with tempfile.TemporaryDirectory(prefix="unroll-hostile-") as name:
        outer = Path(name)
        place = outer / "a" / "here"
        place.mkdir(parents=True)
        arguments = one.make(place)
        began = time.monotonic()

        def limits() -> None:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))

        before = int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024  # what a fork begins with
        child = crash.start(arguments, place, limits)
        done = 0
        while not done and time.monotonic() - began < SECONDS:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if not done and resident(child) > before + MEGABYTES:
                break
            time.sleep(0.005)
        if not done:
            slow = time.monotonic() - began >= SECONDS
            os.killpg(child, signal.SIGKILL)
            os.wait4(child, 0)
            return f"more than {SECONDS} s" if slow else f"more than {MEGABYTES} MB"
        said, errors = ((place / f".{stream}-{child}").read_text(errors="replace") for stream in ("stdout", "stderr"))
        if usage.ru_maxrss // 1024 > before + MEGABYTES:
            return f"{usage.ru_maxrss // 1024 - before} MB"
        code = os.waitstatus_to_exitcode(status)
        lines = errors.splitlines()
        if code not in ((0, 2) if one.fine else (2,)):
            return f"status {code}: {errors[-500:]!r}"
        if code == 2 and (len(lines) != 1 or len(lines[0]) > LINE):
            return f"{len(lines)} lines, {len(errors)} characters: {errors[:300]!r}"
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said + errors):
            return f"control characters reach the terminal: {(said + errors)[:300]!r}"
        if SECRET in said + errors or any(
            SECRET.encode() in path.read_bytes()
            for path in place.rglob("*")
            if path.is_file() and not path.is_symlink()
        ):
            return f"the secret is printed or kept: {errors[:300]!r}"
        elsewhere = [
            path for path in outer.rglob("*") if path not in (place, place.parent) and place not in path.parents
        ]
        return f"{elsewhere} was made" if elsewhere else None


def resident(process: int) -> int:
    """Megabytes that a process holds."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4 // 1024
    except (OSError, IndexError):
        return 0


def campaign(only: list[str] | None, say: Callable[[str], None]) -> list[str]:
    """All cases; the faults."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    import unroll.cli
    import unroll.labs.handin
    import unroll.report.figures
    import unroll.training.train
    import unroll.tuning.study  # noqa: F401

    torch.set_num_threads(1)
    faults = []
    for one in CASES:
        if only is None or one.name in only:
            wrong = run(one)
            say(f"{'FAULT' if wrong else 'ok':6}{one.name}{': ' + wrong if wrong else ''}")
            faults += [f"{one.name}: {wrong}"] if wrong else []
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=[one.name for one in CASES])
    faults = campaign(parser.parse_args().only, lambda line: print(line, flush=True))
    print(json.dumps({"campaign": "hostile", "cases": len(CASES), "faults": len(faults)}))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
