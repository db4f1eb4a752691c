"""Grade a class of eighty made of the hand-ins beside this file, the hostile ones among them: `make class`.

Grades it twice with --no-train and compares every byte of what was made; kills the grader over and over and lets it go on, and
compares again; and grades six with training. Prints what it took.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import typst

HERE = Path(__file__).parent
ANSWERS = """
#set page(paper: "a4")
= Lab 7, homework
5. The forget gate of student {n} decides what stays of the old state, the input gate what is written.

6. I tried {n} hidden units and several learning rates.

7. An LSTM, where much lies between cause and effect; a simple RNN for short sequences.
"""
IGNORED = {"class.lock"}


def files() -> list[Path]:
    """The class: the sixty's homework, right and wrong, honest variants, and hostile files, eighty together."""
    sixty = [path for kind in ("correct", "faulty") for path in sorted((HERE / kind).glob("hw_*"))]
    hostile = sorted((HERE / "hostile").glob("*.py"))
    variants = sorted((HERE / "second" / "correct").glob("hw_*"))
    return [*sixty, *hostile, *variants][:80]


def make_class(into: Path) -> None:
    """A folder or a zip a student, each with code and a PDF."""
    for number, path in enumerate(files()):
        student = 313513000 + number
        stem = f"{student}_Lab7_Homework"
        source = into / f"{number}.typ"
        source.write_text(ANSWERS.format(n=number), encoding="utf-8")
        parts = {f"{stem}{path.suffix}": path.read_bytes(), f"{stem}.pdf": typst.compile(source)}
        source.unlink()
        if number % 2:
            with zipfile.ZipFile(into / f"{student}.zip", "w") as archive:
                for name, content in parts.items():
                    archive.writestr(zipfile.ZipInfo(name), content)
        else:
            (into / str(student)).mkdir()
            for name, content in parts.items():
                (into / str(student) / name).write_bytes(content)


def command(place: Path, out: Path, *options: str) -> list[str]:
    """The command line that grades a class."""
    given = ["lab", "grade", str(place), "--out", str(out), "--lab", "homework", *options]
    return [sys.executable, "-m", "unroll", *given]


def grade(place: Path, out: Path, *options: str) -> float:
    """Grade, and return the seconds that it took."""
    begin = time.monotonic()
    subprocess.run(command(place, out, *options), check=True)
    return time.monotonic() - begin


def content(out: Path) -> dict[str, bytes]:
    """Every file of a class's folder; of the review page without the key of the browser's memory, which is the folder's own."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: data for name, data in found.items() if name not in IGNORED}


def differing(one: Path, other: Path) -> list[str]:
    """Names of files that differ between two folders, apart from the review page's key."""
    first, second = content(one), content(other)
    for made in (first, second):
        made["review.html"] = re.sub(rb'data-kept="[^"]*"', b"", made["review.html"])
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def grade_with_kills(place: Path, out: Path, kills: int, draw: random.Random) -> None:
    """Grade, with `kill -9` so many times on the way, and to the end after them."""
    for _ in range(kills):
        process = subprocess.Popen(command(place, out, "--no-train"), start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            process.wait(draw.uniform(1, 14))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    grade(place, out, "--no-train")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trained", type=int, default=6, help="how many are graded with training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for all that is made")
    given = parser.parse_args()
    work = given.keep or Path(tempfile.mkdtemp(prefix="unroll-class-"))
    place = work / "submissions"
    place.mkdir(parents=True)
    make_class(place)
    good = True
    seconds = [grade(place, work / name, "--no-train") for name in ("first", "second")]
    different = differing(work / "first", work / "second")
    good &= not different
    print(
        f"80 hand-ins without training: {seconds[0]:.0f} s, {seconds[1]:.0f} s; files that differ: {different or 'none'}"
    )
    if given.kills:
        grade_with_kills(place, work / "killed", given.kills, random.Random(given.seed))
        different = differing(work / "first", work / "killed")
        good &= not different
        print(f"after {given.kills} kills: files that differ: {different or 'none'}")
    if given.trained:
        few = work / "few"
        few.mkdir()
        for path in sorted(place.iterdir())[: given.trained]:
            (shutil.copytree if path.is_dir() else shutil.copy)(path, few / path.name)
        took = grade(few, work / "trained")
        print(f"{given.trained} hand-ins with training: {took:.0f} s")
    if given.keep is None:
        shutil.rmtree(work)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
