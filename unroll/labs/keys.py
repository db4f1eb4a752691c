"""The keys of labs: cells whose equations a student's are compared with, as step programs of any size."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from unroll.cells import cell_type
from unroll.cells.own import is_own, own_parts
from unroll.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from unroll.equations.program import Program

SIZES = 5, 7  # D and H at which a key is tried first


@dataclass(frozen=True)
class Key:
    """A lab's key.

    Attributes:
        name: as the lab has it: of `unroll.cells`, or FILE.py:CLASS.
        called: what a student's classes are called after, such as ``GRU``.
        states: how many tensors its state has: 1 (h), or 2 (h and c).
    """

    name: str
    called: str
    states: int
    _programs: dict[tuple[int, int], list[Program]] = field(default_factory=dict, compare=False, repr=False)

    def programs(self, D: int, H: int) -> list[Program]:
        """The key's step programs of these sizes, the first as it is written; the others count as right too."""
        if (D, H) not in self._programs:
            self._programs[D, H] = [_read(self.name, kind, D, H) for kind in _kinds(self.name)]
        return self._programs[D, H]


def name_of(name: str) -> str:
    """What a student's classes are called after, of a key's name.

    >>> name_of("gru"), name_of("keys/own.py:MyCell")
    ('GRU', 'My')
    """
    return (own_parts(name)[1].removesuffix("Cell") if is_own(name) else name.upper()) or "Own"


@cache
def load_key(name: str) -> Key:
    """A key by its name. Of a file of one's own, this executes the file.

    Raises:
        InputError: there is no such file or class, it computes no step, or its equations cannot be read.
    """
    from unroll.cells.base import as_cell
    from unroll.cells.own import check_own, load_own

    if is_own(name):
        load_own(name)
        check_own(name, *SIZES, words=False)
    cell = as_cell(_kinds(name)[0](*SIZES))
    sizes = tuple(cell.state_sizes)
    if sizes not in ((SIZES[1],), (SIZES[1],) * 2):
        raise InputError(f"the key {name} has a state of sizes {sizes} for H = {SIZES[1]}; expected h, or h and c")
    key = Key(name, name_of(name), len(sizes))
    key.programs(*SIZES)
    return key


def _kinds(name: str) -> list[type[nn.Module]]:
    """The classes that count as a key."""
    if is_own(name):
        from unroll.cells.own import own_type

        return [own_type(name)]  # type: ignore[list-item]
    return [cell_type(name), *([_reset_before()] if name == "gru" else [])]


@cache
def _reset_before() -> type[nn.Module]:
    import torch
    from torch import Tensor

    from unroll.cells.gru import GRUCell, GRUGates

    class ChoGRUCell(GRUCell):
        """The GRU of Cho et al. 2014, whose reset gate is applied before the candidate's recurrent product."""

        def equations(self, x: Tensor, h: Tensor) -> GRUGates:
            """x (B, D), h (B, H) of the step before -> all four quantities."""
            from_x = self.project(x)
            if self.b is not None:
                from_x = from_x + self.b
            x_r, x_z, x_n = from_x.chunk(3, dim=-1)
            W_r, W_z, W_n = self.W.chunk(3)

            r = torch.sigmoid(h @ W_r.T + x_r)
            z = torch.sigmoid(h @ W_z.T + x_z)
            n = torch.tanh((r * h) @ W_n.T + x_n)
            h = z * h + (1 - z) * n
            return GRUGates(r, z, n, h)

    return ChoGRUCell


def _read(name: str, kind: type[nn.Module], D: int, H: int) -> Program:
    from unroll.cells.base import as_cell
    from unroll.equations.program import UnreadableError
    from unroll.equations.read import read

    try:
        cell = as_cell(kind(D, H))
        if cell.input_size is None:
            cell.input_size = D
        return read(cell)
    except UnreadableError as why:
        raise InputError(f"the key {name} cannot be compared with: {why}") from None
