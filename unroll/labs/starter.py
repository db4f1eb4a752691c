"""Files to start a lab from: the labs' names, and gaps to fill with code of one's own.

The templates lie in the folder beside this file. They are text and no modules: each is a script that stops at its first gap.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from unroll.errors import InputError, nearest
from unroll.files import made_folder, write_atomically

TEMPLATES = Path(__file__).parent / "starter"
STEM = "my_lab"
CELL = re.compile(r"^# %% (.+)\n", re.MULTILINE)
GAP = re.compile(r'\bgap\(\d+, "')


def starters() -> list[str]:
    """The labs that there is a starter for."""
    return sorted(path.name.partition(".")[0] for path in TEMPLATES.glob("*.py.txt"))


def starter(lab: str, *, notebook: bool = False) -> str:
    """The text of a starter: a script, or a notebook (nbformat 4.5) with a cell a section.

    Raises:
        InputError: there is no such lab.
    """
    if lab not in starters() and (lab.endswith((".yaml", ".yml")) or (TEMPLATES.parent / f"{lab}.yaml").exists()):
        known = " and ".join(starters())
        raise InputError(f"the lab {lab} comes without a starter ({known} have one); begin with a file of your own")
    if lab not in starters():
        raise InputError(f"there is no starter for {lab!r}{nearest(lab, starters())}")
    text = (TEMPLATES / f"{lab}.py.txt").read_text(encoding="utf-8")
    text = text.replace("@GAPS@", str(gaps(text))).replace("@FILE@", f"{STEM}{'.ipynb' if notebook else '.py'}")
    return _notebook(text) if notebook else text


def gaps(text: str) -> int:
    """How many gaps a starter has."""
    return len(GAP.findall(text))


def write_starter(lab: str, *, notebook: bool = False, folder: Path | None = None) -> tuple[Path, int]:
    """Write `my_lab.py`, or `my_lab.ipynb`, into a folder that is made if need be; the file, and how many gaps it has.

    Raises:
        InputError: there is no such lab, or a file stands there already.
    """
    text = starter(lab, notebook=notebook)
    where = Path() if folder is None else folder
    path = where / f"{STEM}{'.ipynb' if notebook else '.py'}"
    try:
        if path.exists() or path.is_symlink():
            raise InputError(
                f"{path} exists and may hold work of yours; move it away, or name another folder with --out"
            )
        made_folder(where)
        write_atomically(path, text)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another folder") from None
    return path, gaps(starter(lab))


def _notebook(text: str) -> str:
    """A script with sections -> a notebook: of each section its title, and its code in one cell."""
    _, *parts = CELL.split(text)
    cells: list[dict[str, Any]] = []
    for number, (title, code) in enumerate(zip(parts[::2], parts[1::2], strict=True), start=1):
        heading = f"{'#' if number == 1 else '##'} {title}"
        cells.append({"cell_type": "markdown", "id": f"title-{number}", "metadata": {}, "source": [heading]})
        cells.append(
            {
                "cell_type": "code",
                "execution_count": None,
                "id": f"code-{number}",
                "metadata": {},
                "outputs": [],
                "source": code.strip("\n").splitlines(keepends=True),
            }
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    made = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"
