"""What the cells are: equations, number of parameters, and what a time step costs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import torch

from unroll.cells import CELLS, cell_type
from unroll.engines import native
from unroll.engines.native.kernels import kernel_of
from unroll.equations import Program, read

WIDTH = 100  # characters of a line of formulas


class Listed(NamedTuple):
    """A cell of recipes at one size.

    Attributes:
        name: as recipes call it.
        title: as reports call it.
        parameters: how many numbers it learns.
        multiply_adds: of the products with weights, in one time step of one sequence.
        engine: which engine scans it on this machine's CPU, and how.
        formulas: lines of text, in the names of the cell's source.
    """

    name: str
    title: str
    parameters: int
    multiply_adds: int
    engine: str
    formulas: tuple[str, ...]


def listed(names: Sequence[str], input_size: int, hidden_size: int) -> list[Listed]:
    """The cells of these names (none: all), at D = `input_size` and H = `hidden_size`.

    Raises:
        InputError: there is no such cell, or a size is no whole number of at least 1.
    """
    return [_listed(name, input_size, hidden_size) for name in dict.fromkeys(names or CELLS)]


def _listed(name: str, D: int, H: int) -> Listed:
    cell = cell_type(name)(D, H)
    program = read(cell)
    engine, small = "reference", cell_type(name)(2, 3)  # whether it can be scanned is no matter of size
    if native.why_not(small, torch.zeros(1, 1, 2)) is None:
        engine = "native, step program" if kernel_of(cell) is None else "native, own kernel"
    parameters = sum(p.numel() for p in cell.parameters())
    return Listed(name, cell.title, parameters, multiply_adds(program), engine, tuple(str(program).split("\n")))


def multiply_adds(program: Program) -> int:
    """Multiply-adds of a step's products with weights, of one sequence; work element by element is not counted."""
    products = (program.nodes[n] for n in program.needed(program.new) if program.nodes[n].op == "linear")
    return sum(program.nodes[v].width * product.width for product in products for v in product.args[:1])


def text_table(cells: Sequence[Listed]) -> list[list[str]]:
    """The cells as rows of text, with a head."""
    head = ["cell", "title", "parameters", "multiply-adds", "engine"]
    return [head, *([c.name, c.title, f"{c.parameters:10,}", f"{c.multiply_adds:13,}", c.engine] for c in cells)]


def text_formulas(cell: Listed) -> list[str]:
    """A cell's formulas as lines of at most `WIDTH` characters, under its name."""
    lines = [f"{cell.name}: {cell.title}"]
    for formula in cell.formulas:
        lines += textwrap.wrap(
            formula,
            WIDTH,
            initial_indent="  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines
