"""The classes that a trained model gives to images, in a process that knows no labels, from what its run handed over as data.

``by`` says how: ``engine``, which computes the cell's step program and loads nothing of the student's file; or ``model``, the
file's own classes with these weights. What is asked for are numbers, and who asks has the labels.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unroll.data.images import PACKAGED
from unroll.errors import UnrollError, shortened
from unroll.labs.child.argument_names import HIDDEN
from unroll.labs.child.definitions import calls_of, definitions
from unroll.labs.child.execute import execute
from unroll.labs.child.make_classifier import constructor_arguments, default_dtype
from unroll.labs.child.observe_run import predict as classes_of
from unroll.labs.child.surroundings import surroundings
from unroll.labs.recompute import GIVEN, WEIGHT, predictions
from unroll.labs.source import Source, read_source

MOST_TRIED = 64  # ways to make the classifier
FLOATS = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


def predict(task: dict[str, Any]) -> dict[str, Any]:
    """``predicted``: classes (N,), or ``reason``: why there are none. Runs in the child.

    Args:
        task: ``file``: the student's; ``by``; ``input``: as of `unroll.labs.child.observe_run.Recorder.input`; ``class``: the
            model's name, or ``cell``: the program; ``seed``, ``threads``, ``seconds``; ``blind``: the labels of the package's
            test images must be out of reach.
    """
    # Before anything of the student's is loaded. What lies over the file is empty, or a device.
    if task["blind"] and any(path.is_file() and path.stat().st_size for path in PACKAGED.glob("t10k-labels*")):
        return {"reason": "the labels of the test could be read where the model was to be asked"}
    from safetensors.numpy import load

    path = Path(task["file"])
    given = load((path.parent / GIVEN).read_bytes())
    images = given.pop("images")
    weights = {name.removeprefix(WEIGHT): value for name, value in given.items()}
    torch.set_num_threads(task["threads"])
    try:
        if task["by"] == "engine":
            return {"predicted": by_engine(task, images, weights)}
        return {"predicted": by_model(task, read_source(path), images, weights)}
    except Exception as error:  # of hostile data, or of the student's own code
        said = f"{error}" if isinstance(error, UnrollError) else f"{type(error).__name__}: {error}"
        return {"reason": shortened(said, 300)}


def by_engine(task: dict[str, Any], images: np.ndarray[Any, Any], tensors: dict[str, Any]) -> Any:
    """By our engine; the output layer's tensors are ``W_out`` and ``b_out``."""
    scale, shift = float(task["input"]["scale"]), float(task["input"]["shift"])
    dtype = tensors["W_out"].dtype
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"the output layer's weights are {dtype}; expected float32 or float64")
    given = {"cell": task["cell"], "tensors": tensors, "W_out": tensors["W_out"], "b_out": tensors["b_out"]}
    return predictions(given, (images / 255 * scale + shift).astype(dtype))


def by_model(task: dict[str, Any], source: Source, images: np.ndarray[Any, Any], weights: dict[str, Any]) -> Tensor:
    """By the student's own classes."""
    asked = task["input"]
    with surroundings(source.path, seed=task["seed"], threads=task["threads"]):
        namespace: dict[str, Any] = {}
        execute(definitions(source), namespace, task["seconds"])
        model = made(
            source, namespace, task["class"], {name: torch.from_numpy(value) for name, value in weights.items()}
        )
        values = torch.from_numpy(images).double() / 255 * float(asked["scale"]) + float(asked["shift"])
        return classes_of(model, values.to(FLOATS[asked["dtype"]]), int(asked["form"]), int(asked["batch"]))


def made(source: Source, namespace: dict[str, Any], name: str, weights: dict[str, Tensor]) -> nn.Module:
    """An instance of a class of the file's, with these weights in it.

    Raises:
        ValueError: there is no such class, or it could not be made so that all of these weights are its own.
    """
    kind = namespace.get(name)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"the file has no class {shortened(name, 60)} outside of its functions")
    why = "its constructor's arguments could not be told"
    for number, (places, names) in enumerate(_arguments(source, namespace, kind, weights)):
        if number >= MOST_TRIED:
            break
        try:
            with default_dtype(torch.float32):
                model = kind(*places, **names)
            for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if key in weights:
                    tensor.data = tensor.data.to(weights[key].dtype)  # the run may have changed it
            nn.Module.load_state_dict(model, weights)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            continue
        return model
    raise ValueError(f"the class {name} could not be made with the weights of the run ({shortened(why, 200)})")


def _arguments(
    source: Source, namespace: dict[str, Any], kind: type[nn.Module], weights: dict[str, Tensor]
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Arguments to make a class with: those with which the file makes it, and then what fits the shapes of the weights."""
    for places, names in calls_of(source, kind.__name__):
        try:
            yield [eval(text, namespace) for text in places], {n: eval(text, namespace) for n, text in names.items()}
        except Exception:  # names that only the run has
            continue
    found = constructor_arguments(kind)
    if found is None:
        return
    sizes = sorted(
        {size // parts for value in weights.values() for size, parts in product(value.shape, (1, 4))}, reverse=True
    )
    defaults = {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    for size in dict.fromkeys(size for size in sizes if size):
        yield [], {name: size if value == HIDDEN and name in defaults else value for name, value in found.items()}
