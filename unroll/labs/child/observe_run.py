"""A run of a student's own file, seen from within the child: losses, figures, hyperparameters, and its model's predictions.

The model is asked for the classes of the 10,000 test images after the run, from the weights that it has then; it never sees
their labels. What it is asked with are the student's own inputs: transformed as theirs, and in the shape that they gave it.
"""

from __future__ import annotations

import io
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils.data import DataLoader

from unroll.errors import InputError, shortened
from unroll.files import write_atomically
from unroll.labs.child.entry import FIGURES, NOTES
from unroll.labs.child.execute import TimeUp, execute
from unroll.labs.child.hand_over import hand_over, scale_of
from unroll.labs.child.patches import Patches
from unroll.labs.child.served import MNIST, last_part
from unroll.labs.child.surroundings import surroundings
from unroll.labs.hyperparameters import hyperparameters, is_plain
from unroll.labs.source import read_source

MOST_FIGURES = 40
MOST_WEIGHTS = 256 << 20  # bytes
MOST_LOSSES = 1_000_000
IMAGES = 10_000
WIDTH = 28

# How an input of a model may hold B images, and how the images (B, 1, 28, 28) become it.
FORMS: tuple[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]], ...] = (
    (lambda x: x.reshape(-1, WIDTH, WIDTH), lambda v: v.reshape(-1, WIDTH, WIDTH)),
    (lambda x: x.reshape(-1, 1, WIDTH, WIDTH), lambda v: v.reshape(-1, WIDTH, WIDTH)),
    (lambda x: x.reshape(-1, WIDTH * WIDTH), lambda v: v.reshape(-1, WIDTH, WIDTH)),
    (lambda x: x.reshape(-1, WIDTH * WIDTH, 1), lambda v: v.reshape(-1, WIDTH, WIDTH)),
    (lambda x: x.reshape(-1, WIDTH, WIDTH, 1), lambda v: v.reshape(-1, WIDTH, WIDTH)),
    (lambda x: x.reshape(-1, WIDTH, WIDTH).transpose(0, 1), lambda v: v.transpose(0, 1)),
    (lambda x: x.reshape(-1, WIDTH, WIDTH).transpose(1, 2), lambda v: v.reshape(-1, WIDTH, WIDTH).transpose(1, 2)),
)


PLAIN = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16,
    torch.int32, torch.int64,
}  # fmt: skip
COLUMNS = len(FORMS) - 1
"""The form whose steps are no rows."""


def observe_run(task: dict[str, Any]) -> dict[str, Any]:
    """Run a file, and gather what a run folder holds. Runs in the child.

    Args:
        task: ``file``, ``sha256`` of its content, ``seed``, ``threads``, ``folder`` to write figures into, and ``small``, for
            few images. For a grading: ``printed``, so that what was printed is handed back too, and a model is asked even where
            the file ended early; ``seconds``, after which the file is stopped; ``stop_above``, the mean loss of the first epoch
            above which it is.

    Raises:
        InputError: the file is another one by now.
    """
    source = read_source(Path(task["file"]).absolute())
    if source.sha256 != task["sha256"]:
        raise InputError(f"code file {task['file']} was changed just now; run it again")
    notes = Notes(Path(task["folder"]) / NOTES)
    figures = Figures(Path(task["folder"]) / FIGURES, notes.add)
    recorder = Recorder(notes.add, task.get("stop_above"))
    namespace: dict[str, Any] = {}
    around_options = {"seed": task["seed"], "threads": task["threads"], "small": bool(task.get("small"))}
    with surroundings(source.path, on_figure=figures.save, **around_options) as around:
        begin = time.perf_counter()
        with notes, recorder:
            outcome = execute(source, namespace, task.get("seconds"), live)
        seconds = time.perf_counter() - begin
        around.keep_open()
        test = next((part for part in reversed(around.parts) if not part.train), None)
        graded = bool(task.get("printed"))
        asked = outcome.whole or recorder.hopeless is not None or (graded and outcome.stopped is None)
        train = next((part for part in reversed(around.parts) if part.train), None)
        predicted = recorder.predictions(test, train) if asked else {"reason": "the file ended early"}
        weights = {} if recorder.model is None else _weights(recorder.model)
        return {
            "outcome": {**outcome.data(), "printed": outcome.printed if graded else ""},
            "hopeless": recorder.hopeless,
            "seconds": seconds,
            "losses": torch.tensor(recorder.losses, dtype=torch.float64),
            "figures": figures.rows,
            "hyperparameters": hyperparameters(source, namespace),
            "optimizer": _optimizer(namespace),
            "model": None if recorder.model is None else _about(recorder.model),
            "weights": weights,
            "prediction": predicted,
            "engine": recorder.handed_over(namespace, test) if "predicted" in predicted else None,
            "input": recorder.input(test) if "predicted" in predicted else None,
            "images": None if test is None else len(test),
            "warnings": [*around.warnings, *figures.failed],
            "versions": versions(),
        }


class Notes:
    """A file of JSON lines on what a run has seen so far; a disk that takes no more of them stops no run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None

    def __enter__(self) -> Notes:
        with suppress(OSError):
            self._file = io.FileIO(self._path, "w")
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, row: dict[str, Any]) -> None:
        """Write a line, at once."""
        if self._file is not None:
            with suppress(OSError):
                self._file.write(f"{json.dumps(row)}\n".encode())


def live(content: bytes) -> None:
    """Hand on what is printed, past `execute`'s own stdout."""
    out = sys.__stdout__
    if out is not None:
        out.buffer.write(content)
        out.buffer.flush()


@dataclass
class Call:
    """A call of a model: itself, its first input, and how many inputs there were."""

    model: nn.Module
    values: Tensor
    others: int

    @property
    def batch(self) -> int:
        """How many images its input holds."""
        return max(self.values.numel() // (WIDTH * WIDTH), 1)


class Hopeless(TimeUp):
    """A file is stopped, since the loss of its first epoch says that it learns nothing."""


class Recorder:
    """Notes losses, and which model was called last on test images.

    Args:
        note: is called with each loss.
        stop_above: the mean loss of the first epoch above which `Hopeless` is raised in the file; None: never.

    Attributes:
        losses: the value of each tensor whose ``backward()`` was called, in order.
        hopeless: the mean loss of the first epoch, where it was too high.
    """

    def __init__(
        self, note: Callable[[dict[str, Any]], object] = lambda row: None, stop_above: float | None = None
    ) -> None:
        self.losses: list[float] = []
        self.hopeless: float | None = None
        self._stop_above = stop_above
        self._note = note
        self._patches = Patches()
        self._depth = 0
        self._last: Call | None = None
        self._on_test: Call | None = None
        self._called: Call | None = None  # the one that was asked for predictions
        self._prepared: tuple[Tensor, int] | None = None  # all images (N, 28, 28), and the number of their form

    @property
    def model(self) -> nn.Module | None:
        """That which was called last on test images, else on any."""
        call = self._on_test or self._last
        return None if call is None else call.model

    def __enter__(self) -> Recorder:
        self._patches.later(modules.register_module_forward_pre_hook(self._enter).remove)
        self._patches.later(modules.register_module_forward_hook(self._leave, always_call=True).remove)
        self._patches.wrap(Tensor, "backward", self._noting)
        if self._stop_above is not None:
            self._patches.wrap(DataLoader, "__iter__", self._first_epoch)
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.undo()

    def _noting(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        def noted(tensor: Tensor, *arguments: Any, **named: Any) -> Any:
            if tensor.numel() == 1 and len(self.losses) < MOST_LOSSES:
                self.losses.append(float(tensor.detach()))
                self._note({"loss": self.losses[-1]})
            return backward(tensor, *arguments, **named)

        return noted

    def _first_epoch(self, iterate: Callable[..., Any]) -> Callable[..., Any]:
        """Looks at the mean loss at the end of the first whole pass over a loader in which there were any."""
        done = False

        def watched(loader: Any) -> Iterator[Any]:
            nonlocal done
            before = len(self.losses)
            yield from iterate(loader)
            losses = self.losses[before:]
            if losses and not done:
                done = True
                mean = sum(losses) / len(losses)
                if not mean <= self._stop_above:  # type: ignore[operator]  # nan is hopeless too
                    self.hopeless = mean
                    raise Hopeless

        return watched

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self._depth += 1

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._depth = max(self._depth - 1, 0)
        if self._depth or not inputs or not isinstance(inputs[0], Tensor):
            return
        logits = _logits(output)
        # A loss is a module too, and gives one number.
        if logits is None or logits.ndim == 0 or next(module.parameters(), None) is None:
            return
        call = Call(module, inputs[0].detach(), len(inputs) - 1)
        self._last = call
        part = last_part()
        if (part is not None and not part.train) or (part is None and not torch.is_grad_enabled()):
            self._on_test = call

    def predictions(self, test: MNIST | None, train: MNIST | None = None) -> dict[str, Any]:
        """``predicted``: classes (N,) of the test images by the model; or ``reason`` why there are none.

        Of a hopeless run, which came to no test, the training part tells how images become the model's input.
        """
        call = self._called = self._on_test or self._last
        if call is None or test is None:
            return {"reason": "no model was called" if call is None else "no test images were read"}
        if call.others:
            return {"reason": "the model is called with more than the images"}
        try:
            self._prepared = self._inputs(call, test)
            if self._prepared is None and self.hopeless is not None and train is not None:
                self._prepared = self._as_in_training(call, train, test)
            if self._prepared is None:
                return {"reason": "the model's last input holds no test images"}
            images, form = self._prepared
            predicted = predict(call.model, images, form, call.batch)
        except Exception as error:  # of the student's own code
            return {
                "reason": f"the model could not be called again: {shortened(f'{type(error).__name__}: {error}', 200)}"
            }
        return {"predicted": predicted}

    def handed_over(self, namespace: dict[str, Any], test: MNIST | None) -> dict[str, Any]:
        """What our engine needs to compute the same predictions (see `hand_over`, `scale_of`), or ``reason`` why it cannot."""
        if self.model is None or self._prepared is None or test is None:
            return {"reason": "no model was asked for predictions"}
        images, form = self._prepared
        if form == COLUMNS:
            return {"reason": "the model is given the images' columns, and not their rows"}
        try:
            scale = scale_of(images, test.data / 255)
            if "reason" in scale:
                return scale
            made = hand_over(namespace, self.model, WIDTH)
            tensors = [*made.get("tensors", {}).values(), made.get("W_out"), made.get("b_out")]
            if "reason" not in made and not all(_is_plain(tensor) for tensor in tensors):
                return {"reason": "its weights are no real numbers"}
            return made | scale
        except Exception as error:  # of the student's own code
            return {"reason": shortened(f"{type(error).__name__}: {error}", 200)}

    def input(self, test: MNIST | None) -> dict[str, Any]:
        """How grey levels (N, 28, 28) of 0 to 1 become the model's input: ``scale``, ``shift``, ``form``, ``dtype`` and
        ``batch``, its size; or ``reason``, why that cannot be told."""
        if self._called is None or self._prepared is None or test is None:
            return {"reason": "no model was asked for predictions"}
        images, form = self._prepared
        dtype = str(images.dtype).removeprefix("torch.")
        return scale_of(images, test.data / 255) | {"form": form, "dtype": dtype, "batch": self._called.batch}

    def _as_in_training(self, call: Call, train: MNIST, test: MNIST) -> tuple[Tensor, int] | None:
        found = self._inputs(call, train)
        if found is None:
            return None
        scale = scale_of(found[0], train.data / 255)
        if "reason" in scale:
            return None
        return (test.data / 255 * scale["scale"] + scale["shift"]).to(found[0].dtype), found[1]

    def _inputs(self, call: Call, test: MNIST) -> tuple[Tensor, int] | None:
        """All test images (N, 28, 28) as the student's file prepares them, and in which of `FORMS` they become its input.

        The input that was noted has to be made of these very images.
        """
        ways = (
            [torch.stack([torch.as_tensor(image) for image, _ in DataLoader(test, batch_size=None)])]
            if test.transform
            else []
        )
        plain = test.data.to(call.values.dtype if call.values.is_floating_point() else torch.float32)
        ways += [plain / 255, plain]
        ways += [(plain / 255 - mean) / std for mean, std in ((0.1307, 0.3081), (0.5, 0.5))]
        for way in ways:
            if way.numel() != len(test) * WIDTH * WIDTH:
                continue
            images = way.reshape(-1, WIDTH, WIDTH).to(call.values.dtype)
            for number, (make, images_of) in enumerate(FORMS):
                if _is_made_of(call.values, images, make, images_of):
                    return images, number
        return None


def _logits(output: Any) -> Tensor | None:
    if isinstance(output, list | tuple):
        output = next((value for value in output if isinstance(value, Tensor)), None)
    return output if isinstance(output, Tensor) else None


def _is_made_of(
    values: Tensor, images: Tensor, make: Callable[[Tensor], Tensor], images_of: Callable[[Tensor], Tensor]
) -> bool:
    if values.numel() % (WIDTH * WIDTH):
        return False
    try:
        found = images_of(values)
        if found.shape[1:] != (WIDTH, WIDTH) or make(found).shape != values.shape:
            return False
    except (RuntimeError, IndexError):
        return False
    flat = images.reshape(len(images), -1)
    return all(float((flat - image).abs().amax(1).min()) <= 1e-05 for image in found[:8].reshape(-1, WIDTH * WIDTH))


def predict(model: nn.Module, images: Tensor, form: int, batch: int) -> Tensor:
    """The classes (N,) that a model gives to images (N, 28, 28).

    Args:
        form: the number of the one of `FORMS` that the model takes.
        batch: how many it takes at once, should it not take any number.

    Raises:
        Exception: any, of the student's own code.
    """
    training, make = model.training, FORMS[form][0]
    model.eval()
    try:
        with torch.no_grad():
            try:
                return _classes(model, images, make, 500)
            except Exception:
                return _classes(model, images, make, batch)  # it may be made for one size of batch
    finally:
        model.train(training)


def _classes(model: nn.Module, images: Tensor, make: Callable[[Tensor], Tensor], batch: int) -> Tensor:
    found = []
    for part in images.split(batch):
        short = batch - len(part) if len(images) > batch else 0
        part = torch.cat([part, images[:short]]) if short else part
        logits = _logits(model(make(part)))
        if logits is None or logits.ndim != 2 or len(logits) != len(part):
            shape = None if logits is None else tuple(logits.shape)
            raise ValueError(
                f"its output for {len(part)} images has the shape {shape}; expected ({len(part)}, classes)"
            )
        found.append(logits.argmax(1)[: len(part) - short])
    return torch.cat(found)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """What can be handed over of a model's weights; nothing where they are too large, or its class has another idea of them."""
    try:
        found = nn.Module.state_dict(model)
        kept = {name: value for name, value in found.items() if _is_plain(value)}
        # By elements, and not by what they take: one that is repeated takes nothing.
        return kept if sum(value.numel() * value.element_size() for value in kept.values()) <= MOST_WEIGHTS else {}
    except Exception:  # of the student's own code
        return {}


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.dtype in PLAIN


def _about(model: nn.Module) -> dict[str, Any]:
    return {"class": type(model).__name__, "parameters": sum(value.numel() for value in model.parameters())}


def _optimizer(namespace: dict[str, Any]) -> dict[str, Any] | None:
    """Class and numbers of the last optimizer among a file's names."""
    found = [value for value in list(namespace.values()) if isinstance(value, torch.optim.Optimizer)]
    if not found:
        return None
    defaults = {name: value for name, value in found[-1].defaults.items() if is_plain(value)}
    return {"class": type(found[-1]).__name__, **defaults}


def versions() -> dict[str, str]:
    """Of what a run depends on."""
    found = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": platform.platform(terse=True),
    }
    for name, package in (
        ("unroll", "unroll-rnn"),
        ("numpy", "numpy"),
        ("torchvision", "torchvision"),
        ("matplotlib", "matplotlib"),
    ):
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found


class Figures:
    """Writes figures into a folder as 01.png, 02.png, …; one that looks as it did before is not written again.

    Attributes:
        rows: ``file`` and ``titles`` of each.
        failed: why others were not drawn.
    """

    def __init__(self, folder: Path, note: Callable[[dict[str, Any]], object] = lambda row: None) -> None:
        self.folder = folder
        self._note = note
        self.rows: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self._known: set[int] = set()

    def save(self, figure: Any) -> None:
        """Write a figure as it is now, if there is something in it."""
        if len(self.rows) >= MOST_FIGURES or not (figure.axes or figure.images or figure.texts):
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        room = io.BytesIO()
        try:
            with _own_canvas(figure):
                FigureCanvasAgg(figure).print_figure(room, format="png", dpi=150, bbox_inches="tight")
        except Exception as error:  # too large for the memory, say: no reason to lose the run
            self.failed.append(shortened(f"a figure could not be drawn: {type(error).__name__}: {error}", 200))
            return
        content = room.getvalue()
        if hash(content) in self._known:
            return
        self._known.add(hash(content))
        name = f"{len(self.rows) + 1:02d}.png"
        try:
            self.folder.mkdir(exist_ok=True)
            write_atomically(self.folder / name, content)
        except OSError as error:
            self.failed.append(f"a figure could not be written: {error.strerror}")
            return
        self.rows.append({"file": name, "title": _title(figure), "titles": _titles(figure)})
        self._note({"figure": self.rows[-1]})


@contextmanager
def _own_canvas(figure: Any) -> Iterator[None]:
    canvas = figure.canvas
    try:
        yield
    finally:
        figure.set_canvas(canvas)


def _titles(figure: Any) -> list[str]:
    titles = [_over_all(figure), *(axes.get_title() for axes in figure.axes)]
    return [shortened(title, 200) for title in titles if title.strip()][:30]


def _title(figure: Any) -> str:
    """The title of a figure as a whole, empty where it has none; the only one of its parts' is its own."""
    parts = [title for axes in figure.axes if (title := axes.get_title()).strip()]
    title = _over_all(figure).strip() or (parts[0] if len(parts) == 1 else "") or str(figure.get_label())
    return shortened(title.strip(), 200)


def _over_all(figure: Any) -> str:
    return str(figure.get_suptitle()) if hasattr(figure, "get_suptitle") else ""
