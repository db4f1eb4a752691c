"""A small PDF that stands for a lab's handout; the hand-ins, which are no tests, are left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Undo what a student's text may have set for the whole process."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)


collect_ignore = ["correct", "faulty", "hostile", "second"]  # each would do its work when it is imported


@pytest.fixture
def handout(tmp_path: Path) -> Callable[..., Path]:
    """Makes a small PDF of empty pages, of sizes that are told apart."""

    def make(sizes: tuple[tuple[int, int], ...] = ((612, 792), (300, 200))) -> Path:
        import pypdf

        writer = pypdf.PdfWriter()
        for width, height in sizes:
            writer.add_blank_page(width, height)
        path = tmp_path / "lab.pdf"
        writer.write(path)
        return path

    return make
