"""Everything that reads a file which the package did not just write itself: by name, with sound files to damage.

A target's `read` gets a damaged file. It may return or raise `UnrollError`; whatever else happens is a fault.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import mutate
import numpy as np

FIXTURES = Path(__file__).parent.parent / "fixtures" / "runs-0.1"
FOUND = Path(__file__).parent / "found"  # files that once were read wrongly, by target


@dataclass(frozen=True)
class Target:
    """What reads files.

    name: of the target; also of the folder of found files.
    file: name of the file, whose ending may say what it is.
    seeds: makes sound files.
    mutation: damages one.
    read: reads the file at a path; its folder is its own.
    readers: the public functions of the package that are tested with it.
    """

    name: str
    file: str
    seeds: Callable[[], Sequence[bytes]]
    mutation: mutate.Mutation
    read: Callable[[Path], Any]
    readers: Sequence[str] = field(default=())


# --------------------------------------------------------------------------------------------------------------- seeds


def texts(*given: str) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in given]


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    header = struct.pack(">BBBB", 0, 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


IMAGES = idx(np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4))
LABELS = idx(np.array([0, 1, 2, 0, 1, 2], np.uint8))


def idx_seeds(content: bytes) -> Callable[[], list[bytes]]:
    wide = idx(np.array([0, 1, 2, 0, 1, 2], ">i4"), 0x0C)
    return lambda: [content, gzip.compress(content, 1), wide]


def npz_seeds() -> list[bytes]:
    X = np.arange(24, dtype=np.float64).reshape(4, 3, 2)
    found = []
    for arrays in (
        {"X": X, "y": np.array([0, 1, 0, 1])},
        {"X": X[:, :, 0].astype(np.float32), "y": np.array(["a", "b", "a", "é"]), "lengths": np.array([3, 1, 2, 3])},
        {"X": X.astype(np.int16), "y": np.array([b"a", b"b", b"a", b"b"])},
    ):
        content = io.BytesIO()
        np.savez(content, **arrays)
        found.append(content.getvalue())
    return found


def npy_seeds() -> list[bytes]:
    content = io.BytesIO()
    np.save(content, np.arange(24.0).reshape(4, 3, 2))
    return [content.getvalue()]


def picture_seeds() -> list[bytes]:
    from PIL import Image, ImageDraw

    found = []
    for mode, kind in (
        ("L", "PNG"),
        ("RGB", "JPEG"),
        ("RGBA", "PNG"),
        ("P", "GIF"),
        ("I;16", "TIFF"),
        ("1", "BMP"),
        ("RGB", "WEBP"),
    ):
        picture = Image.new("L", (24, 20), 255)
        ImageDraw.Draw(picture).line((6, 4, 12, 16, 18, 5), fill=0, width=2)
        content = io.BytesIO()
        (picture.convert("I") if mode == "I;16" else picture).convert(mode).save(content, kind)
        found.append(content.getvalue())
    return found


def fixture_files(name: str) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(FIXTURES.glob(f"*/{name}"))]


def recipes() -> list[bytes]:
    from unroll.training.recipe import RECIPES

    own = "task: series\ndata: x.csv\nspace:\n  learning_rate: 0.001..0.1 log\n  hidden_size: 8, 16\n"
    return [path.read_bytes() for path in sorted(RECIPES.glob("*.yaml"))] + [own.encode()]


@functools.cache
def own_run() -> Path:
    """What `unroll lab run` leaves of a file of two lines; to be copied."""
    from unroll.labs.run import run_lab

    place = Path(tempfile.mkdtemp(prefix="unroll-fuzz-"))
    text = "learning_rate = 0.5\nimport matplotlib.pyplot as plt; plt.plot([1, 2]); print(learning_rate)\n"
    (place / "my_lab.py").write_text(text)
    return run_lab(place / "my_lab.py", "homework", place / "run", echo=list, small=True).path


@functools.cache
def handout_seeds() -> list[bytes]:
    """Two pages with an outline and a link."""
    import pypdf
    from pypdf.annotations import Link

    writer = pypdf.PdfWriter()
    for number in range(2):
        writer.add_blank_page(200, 300)
        writer.add_outline_item(f"Page {number}", number)
    writer.add_annotation(0, Link(rect=(0, 0, 9, 9), url="https://x.org"))
    made = io.BytesIO()
    writer.write(made)
    return [made.getvalue()]


def labs() -> list[bytes]:
    from unroll.labs.spec import LABS

    return [path.read_bytes() for path in sorted(LABS.glob("*.yaml"))]


LONG = "id,time,label,a,b\n1,0,x,1,2\n1,1,x,2,3\n2,0,y,0.5,\n2,1,y,4,5e3\n3,2024-05-31 12:00:00,x,1,1\n"
TIMES = "id\ttime\tlabel\ta\n1\t2024-05-31 12:00\tx\t1\n1\t2024-06-01 12:00\tx\t3\n2\t2024-05-31 12:00\ty\t-1\n"
TS = "@problemName P\n@timeStamps false\n@dimensions 2\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n3,?:1,2:b\n"
CSV = 'text,label\nThe movie is good,1\n"It\'s ""bad"", truly",0\n好电影,1\n'
JSON = '{"text": "The movie is good", "label": 1}\n{"text": "bad ❤️", "label": "0"}\n{"text": "x", "label": true}\n'
ANSWERS = "# M\n\n## 1\n\nIt is **so**: $x^2$ and `code`.\n\n- [b](https://x.org)\n\n## 2\n\n| a | b |\n| - | - |\n| 1 | 2 |\n"
NOTEBOOK = json.dumps(
    {"cells": [{"cell_type": "code", "source": ["a = 1\n", "b"]}, {"cell_type": "markdown", "source": "x"}]}
)


# ------------------------------------------------------------------------------------------------------------- readers


def image_folder(path: Path) -> Any:
    from unroll.data.images import load_image_dataset

    files = {
        "train-images-idx3-ubyte": IMAGES,
        "train-labels-idx1-ubyte": LABELS,
        "t10k-images-idx3-ubyte": IMAGES,
        "t10k-labels-idx1-ubyte": LABELS,
    }
    for name, content in files.items():
        if name != path.name:
            (path.parent / name).write_bytes(content)
    return load_image_dataset(str(path.parent), standardise=True)


def sentences(path: Path) -> Any:
    from unroll.data.sentences import load_sentence_dataset

    return load_sentence_dataset(str(path), validation=0.2)


def series(path: Path) -> Any:
    from unroll.data.series import load_series_dataset

    if path.name == "X.npy":
        np.save(path.with_name("y.npy"), np.array([0, 1, 0, 1]))
    return load_series_dataset(str(path), fill_missing="mean")


def unlabelled(path: Path) -> Any:
    from unroll.data.series import read_series

    return read_series(path, labelled=False)


def picture(path: Path) -> Any:
    from unroll.data.pictures import load_picture

    return load_picture(path)


def recipe(path: Path) -> Any:
    from unroll.training.recipe import dump_recipe, load_recipe, read_recipe
    from unroll.tuning.space import read_space

    found = load_recipe(str(path))
    dump_recipe(found)
    return read_space(read_recipe(str(path))[0].get("space"), found, [], set(), str(path))


def lab(path: Path) -> Any:
    from unroll.labs.spec import load_lab, questions_file

    return questions_file(load_lab(str(path)))


def answers(path: Path) -> Any:
    from unroll.labs.answers import read_answers
    from unroll.labs.spec import load_lab

    return read_answers(path, load_lab("homework"))


def code(path: Path) -> Any:
    from unroll.labs.source import read_source

    return read_source(path)


def handout(path: Path) -> Any:
    """A handout with a page of results behind it."""
    from unroll.labs.handout import behind, read_handout

    return behind(read_handout(path), path, handout_seeds()[0])


POINTS = '{"lab": "homework", "points": {"1": {"5": {"points": 4.5, "comment": "clear"}}}, "seen": ["1"]}'


def handed_in(path: Path) -> Any:
    """The text of a hand-in's PDF."""
    from unroll.labs.child.read_pdf import read_pdf

    return read_pdf({"file": str(path)})


def class_seeds() -> list[bytes]:
    """A class of two: a folder, and a zip within the zip."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("313513055_Lab7_Homework.py", "y = 2\n" * 30)
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("313513054/313513054_Lab7_Homework.py", "x = 1\n" * 30)
        archive.writestr("313513055.zip", inner.getvalue())
    return [outer.getvalue()]


def submissions(path: Path) -> Any:
    """The hand-ins of a zip."""
    from unroll.labs.grade.submissions import read_submissions
    from unroll.labs.spec import load_lab

    return read_submissions(path, load_lab("homework"), path.parent / "into")


def points(path: Path) -> Any:
    """Points of the review page, put into records."""
    from unroll.labs.grade.collect import apply_points, read_points
    from unroll.labs.grade.record import Graded, Record
    from unroll.labs.spec import load_lab

    items = [Graded(number=5, title="Gates", points=5, question=True)]
    records = [Record(student="1", lab="homework", key="", code=None, pdf=None, items=items)]
    return apply_points(records, read_points(path, load_lab("homework"), records))


def own(path: Path) -> Any:
    """All that a report shows of a run of own code."""
    from unroll.labs.own_run import OwnRun
    from unroll.labs.results import how_it_was_run, sections, summary

    for source in own_run().rglob("*"):
        target = path.parent / source.relative_to(own_run())
        if source.is_file() and target.name != path.name:
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
    run = OwnRun(path.parent)
    return summary(run, "x.py"), sections(run, "lstm", {}, None), how_it_was_run(run, "x.py")


def observed(path: Path) -> Any:
    """What a child process hands back, of which another exception is a fault than that which its reader promises."""
    from unroll.labs.process import read_observed

    with suppress(ValueError):
        return read_observed(path.read_bytes(), 1 << 20)


def observed_seeds() -> list[bytes]:
    from unroll.labs.child.entry import packed

    return [packed({"a": np.arange(6.0).reshape(2, 3), "b": [1, {"c": None}]})]


def typeset(path: Path) -> Any:
    """A report's text, as the body of a PDF."""
    from unroll.errors import UnrollError
    from unroll.report.markdown import parse_markdown
    from unroll.report.pdf import Document
    from unroll.report.pdf import typeset as set_document

    with suppress(UnicodeDecodeError):
        blocks = parse_markdown(path.read_text(encoding="utf-8"))
        with suppress(UnrollError):
            set_document(Document("Title", ("left", "right"), [], blocks))


def model(path: Path) -> Any:
    """A model, and what it predicts for nothing unusual."""
    from unroll.training.run import load

    classifier = load(path)
    encoder = classifier.encoder
    if encoder.task == "sentences":
        return classifier.predict(["The movie is good"])
    shape = (encoder.rows, encoder.columns) if encoder.task == "images" else (5, encoder.input_size)
    return classifier.predict([np.zeros(shape, np.uint8 if encoder.task == "images" else np.float64)])


@cache
def interrupted() -> Path:
    """A run folder that was left in the middle, to be copied."""
    from unroll.training import callbacks
    from unroll.training.recipe import parse_recipe
    from unroll.training.run import RunFolder
    from unroll.training.train import train

    class EnoughError(Exception):
        pass

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise EnoughError

    place = Path(tempfile.mkdtemp(prefix="unroll-fuzz-")) / "run"
    chosen = parse_recipe({**vars_of_the_lab(), "epochs": 3, "weight_average": 0.9}, "fuzz")
    usual, callbacks.SECONDS_BETWEEN_SAVES = callbacks.SECONDS_BETWEEN_SAVES, -1.0
    try:
        with suppress(EnoughError):
            train(chosen, RunFolder.create(place, chosen, {}), echo=lambda line: None, on_epoch=stop)
    finally:
        callbacks.SECONDS_BETWEEN_SAVES = usual
    assert (place / "resume.safetensors").is_file()
    return place


OWN_CELL = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, D, H):
        super().__init__()
        self.hidden_size = H
        self.gate, self.norm = nn.Linear(D + H, H), nn.LayerNorm(H)

    def forward(self, x, h):
        z = torch.sigmoid(self.gate(torch.cat([x, h], 1)))
        return z * h + (1 - z) * torch.tanh(self.norm(z))
"""


@cache
def own_model() -> bytes:
    """The model of a finished run with a cell of one's own: it carries a step program."""
    from unroll.training.recipe import parse_recipe
    from unroll.training.run import RunFolder
    from unroll.training.train import train

    place = Path(tempfile.mkdtemp(prefix="unroll-fuzz-"))
    (place / "own.py").write_text(OWN_CELL)
    chosen = parse_recipe(
        {**vars_of_the_lab(), "cell": f"{place}/own.py:Own", "epochs": 1, "embedding_size": 4}, "fuzz"
    )
    train(chosen, RunFolder.create(place / "run", chosen, {}), echo=lambda line: None)
    return (place / "run" / "model.safetensors").read_bytes()


def vars_of_the_lab() -> dict[str, Any]:
    from unroll.training.recipe import load_recipe

    return load_recipe("rnn-sentences").model_dump()


def resumed(path: Path) -> Any:
    """Go on with an interrupted run, one of whose files is the damaged one."""
    from unroll.training.run import RunFolder
    from unroll.training.train import train

    for source in interrupted().iterdir():
        if source.name != path.name and source.is_file():
            shutil.copyfile(source, path.parent / source.name)
    folder = RunFolder(path.parent)
    return train(folder.recipe, folder, echo=lambda line: None, resume=True)


def finished(path: Path) -> Any:
    """What reports read of a run, one of whose files is the damaged one."""
    from unroll.report.compare import compare, lines
    from unroll.report.document import report
    from unroll.training.run import RunFolder

    for source in (FIXTURES / "lstm-series").iterdir():
        if source.name != path.name:
            shutil.copyfile(source, path.parent / source.name)
    folder = RunFolder(path.parent)
    lines(compare([folder, RunFolder(FIXTURES / "lstm-series")]))
    return report(folder, draft=True).to_json()


def trials(path: Path) -> Any:
    from unroll.training.trials import Trials

    return Trials(path, ("recipe", "seed"), {"recipe": dict, "seed": int, "accuracy": (float, type(None))}).rows


def traced(path: Path) -> Any:
    from unroll.insight.trace import Trace

    return Trace.load(path)


def trace_seeds() -> list[bytes]:
    from unroll.insight.trace import trace

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "look.npz"
        trace(FIXTURES / "lstm-series" / "model.safetensors", np.zeros((4, 2))).save(path)
        return [path.read_bytes()]


def trials_seeds() -> list[bytes]:
    rows = [{"recipe": {"epochs": 1}, "seed": n, "accuracy": 0.5} for n in range(2)]
    return [json.dumps(rows).encode(), json.dumps({"machine": {}, "trainings": rows}).encode()]


Files = partial(Target, mutation=mutate.damaged)
IMAGE_READERS = ("read_part", "read_idx", "read_idx_shape", "load_images", "load_image_dataset", "begin_loading")
SENTENCE_READERS = ("read_text", "read_records", "read_table", "read_sentences", "load_sentence_dataset")
RUN_READERS = ("load", "load_tensors", "load_header")

TARGETS = [
    Target(
        "images",
        "train-images-idx3-ubyte",
        idx_seeds(IMAGES),
        mutate.packed(mutate.damaged),
        image_folder,
        IMAGE_READERS,
    ),
    Target(
        "labels",
        "train-labels-idx1-ubyte",
        idx_seeds(LABELS),
        mutate.packed(mutate.damaged),
        image_folder,
        IMAGE_READERS,
    ),
    Files("test labels", "t10k-labels-idx1-ubyte", idx_seeds(LABELS), read=image_folder),
    Files("class names", "classes.txt", texts("zero\none\ntwo\n", "0\n1\n2\n3"), read=image_folder),
    Files("sentences.csv", "x.csv", texts(CSV, CSV.replace(",", ";")), read=sentences, readers=SENTENCE_READERS),
    Files("sentences.tsv", "x.tsv", texts(CSV.replace(",", "\t")), read=sentences),
    Target("sentences.jsonl", "x.jsonl", texts(JSON), mutate.of_json, sentences),
    Files("sentences", "x", texts(CSV, JSON, CSV.replace(",", "\t")), read=sentences),
    Files("series.csv", "x.csv", texts(LONG), read=series, readers=("read_series", "load_series_dataset")),
    Files("series.tsv", "x.tsv", texts(TIMES), read=series),
    Files("series.ts", "x.ts", texts(TS), read=series),
    Target("series.npz", "x.npz", npz_seeds, mutate.of_zip, series),
    Target("series.npy", "X.npy", npy_seeds, mutate.of_npy, series),
    Target("unlabelled.npz", "x.npz", npz_seeds, mutate.of_zip, unlabelled),
    Files("unlabelled.csv", "x.csv", texts(LONG, TIMES), read=unlabelled),
    Files("pictures", "x.png", picture_seeds, read=picture, readers=("load_picture",)),
    Target(
        "recipe",
        "x.yaml",
        recipes,
        mutate.of_yaml,
        recipe,
        ("load_recipe", "read_recipe", "read_space", "read_yaml"),
    ),
    Target("lab", "x.yaml", labs, mutate.of_yaml, lab, ("load_lab",)),
    Files("answers", "x.md", texts(ANSWERS), read=answers, readers=("read_answers",)),
    Target("notebook", "x.ipynb", texts(NOTEBOOK), mutate.of_json, code, ("read_source",)),
    Files("handout", "x.pdf", handout_seeds, read=handout, readers=("read_handout",)),
    Files("hand-in", "x.pdf", handout_seeds, read=handed_in, readers=("read_pdf",)),
    Files("submissions", "x.zip", class_seeds, read=submissions, readers=("read_submissions",)),
    Target("points", "points.json", texts(POINTS), mutate.of_json, points, ("read_points",)),
    Target("own run", "own.json", lambda: [(own_run() / "own.json").read_bytes()], mutate.of_json, own),
    Files("observed", "observed", observed_seeds, read=observed, readers=("read_observed",)),
    Files("report text", "x.md", texts(ANSWERS), read=typeset),
    Target("model", "model.safetensors", fixture_files("model.safetensors"), mutate.of_safetensors, model, RUN_READERS),
    Target("own cell", "model.safetensors", lambda: [own_model()], mutate.of_safetensors, model, RUN_READERS),
    Target(
        "resume",
        "resume.safetensors",
        lambda: [(interrupted() / "resume.safetensors").read_bytes()],
        mutate.of_safetensors,
        resumed,
    ),
    Target(
        "resumed recipe", "recipe.yaml", lambda: [(interrupted() / "recipe.yaml").read_bytes()], mutate.of_yaml, resumed
    ),
    Target(
        "resumed history",
        "history.jsonl",
        lambda: [(interrupted() / "history.jsonl").read_bytes()],
        mutate.of_json,
        resumed,
    ),
    Target("history", "history.jsonl", fixture_files("history.jsonl"), mutate.of_json, finished),
    Target("metrics", "metrics.json", fixture_files("metrics.json"), mutate.of_json, finished),
    Target("predictions", "predictions.npz", fixture_files("predictions.npz"), mutate.of_zip, finished),
    Target("run's recipe", "recipe.yaml", fixture_files("recipe.yaml"), mutate.of_yaml, finished),
    Target("trainings", "effects.json", trials_seeds, mutate.of_json, trials),
    Target("trace", "look.npz", trace_seeds, mutate.of_zip, traced),
]
