"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll.errors import InputError, RunError

if TYPE_CHECKING:
    from torch import Tensor


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write beside and rename, so that the file is there whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """A safetensors file with `metadata` as JSON in the one entry ``unroll``.

    One entry, because safetensors writes several in an order that changes from run to run.
    """
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, {"unroll": json.dumps(metadata)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("unroll", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} is damaged or no safetensors file: {str(error).splitlines()[0]}") from None


SIGNS = {
    ".pdf": rb"/Keywords\(recurrent neural network, .{1,200}sequence classification.{0,100}\)/Creator\(Typst",
    ".png": rb"\A\x89PNG.{0,4096}?tEXtSoftware\x00unroll",
    ".svg": rb"<dc:title>unroll</dc:title>",
    ".onnx": rb"\A\x08.\x12\x06unroll",
    ".safetensors": rb'\A.{8}\{"__metadata__":\{"unroll":',
    "README.md": rb"\A---\n.{0,1000}library_name: unroll-rnn",
    "look.npz": rb"\APK.{28}layer0\.",
    "gradients.json": rb'\A\[\{"label": ".{1,1000}", "cell": "',
    "effects.md": rb"\A# From .{1,1000}: what each change is worth\n",
    "trials.json": rb'\A\{\n "study": "',
    "best.yaml": rb"(?m)^about: the best of \d+ complete and \d+ pruned trials",
}
"""What is in every file that a command of ours writes where people tell it to, by the file's name or suffix."""


def refuse_foreign(*paths: Path) -> None:
    """Raise InputError where a file stands that would be lost: one that this package did not write, or no file at all.

    The rule of every command for what it is told to write, asked before it writes anything: a new file is made, a file
    of ours (by its content, see `SIGNS`) or an empty one is replaced, and everything else stays. The lists of trainings
    that `ablate`, `memory` and `effects` go on with are read instead, and refused where they are anything else.
    """
    for path in paths:
        try:
            if not path.exists() or (path.is_file() and _is_ours(path)):
                continue
            what = "is a folder" if path.is_dir() else "was not written by this package and would be lost"
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        raise InputError(f"{path} {what}; move it away, or name another place")


def _is_ours(path: Path) -> bool:
    content = path.read_bytes()
    sign = SIGNS.get(path.name, SIGNS.get(path.suffix.lower()))
    return not content or (sign is not None and re.search(sign, content, re.DOTALL) is not None)
