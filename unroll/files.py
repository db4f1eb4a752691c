"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

NAME = re.compile(r"\w[\w. -]*")
MOST_CHARACTERS = 100
NAME_RULE = f"a name: at most {MOST_CHARACTERS} letters, digits, spaces, '-', '_' and '.', and no '.' first or last"
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}  # by Windows


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


def is_name(text: str) -> bool:
    """Whether a text can name a file or a folder on every system, and cannot lead out of the folder that it is in."""
    stem = text.partition(".")[0].strip().upper()
    return (
        len(text) <= MOST_CHARACTERS
        and NAME.fullmatch(text) is not None
        and text == text.strip()
        and not text.endswith(".")
        and stem not in RESERVED
    )


def name_from(text: str) -> str:
    """A name made from any text, such as the stem of a file.

    >>> name_from("runs (2)"), name_from("..")
    ('runs -2', 'unnamed')
    """
    if is_name(text):
        return text
    kept = re.sub(r"[^\w. -]", "-", text)[:MOST_CHARACTERS].strip(". -")
    return kept if is_name(kept) else "unnamed"


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
