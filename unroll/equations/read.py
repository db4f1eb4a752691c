"""Reading a cell: the forward of one step, in plain PyTorch, becomes a step program.

The step is run on a small batch under torch's function mode, which is told of every call; `unroll.equations.rules` says what
each of them is in the program's operations. It is run at two batch sizes: what depends on the batch shows as a difference.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unroll.cells.base import Cell, joined, parts, place_of
from unroll.equations.cell import ProgramCell
from unroll.equations.check import copies, sample_masks, word_indices
from unroll.equations.held import as_it_was, drawn_since, random_states, remembered, replica, restore_random
from unroll.equations.program import Node, Program, UnreadableError
from unroll.errors import InputError

# Sizes of the batch that no axis of a small cell is likely to have, each with a type of its own: a step may ask for both.
READINGS = (5, torch.float64), (7, torch.float32)
TRIES = 5  # how often a cell is read before the random numbers that were drawn each time are its own
_HERE, _TORCH = str(Path(__file__).parent), str(Path(torch.__file__).parent)

# What tells nothing of the values, or writes them on the screen; zeros and ones are looked at where they are used.
_ASKED = frozenset(
    """shape size dim ndim numel nelement dtype device layout requires_grad is_leaf is_floating_point is_complex is_contiguous
    stride storage_offset get_device is_cuda is_mps is_cpu is_sparse is_quantized is_meta names __len__ __repr__ __str__
    __format__ __hash__ element_size itemsize nbytes grad grad_fn retain_grad requires_grad_ data_ptr untyped_storage
    zeros_like ones_like new_zeros new_ones""".split()  # noqa: SIM905
)
_PYTHON = frozenset("__bool__ item __float__ __int__ __index__ __complex__ numpy tolist __array__ __contains__".split())  # noqa: SIM905
_RANDOM = frozenset(
    """rand randn randint rand_like randn_like randint_like randperm normal bernoulli multinomial poisson uniform_ normal_
    bernoulli_ exponential_ geometric_ cauchy_ log_normal_ random_ alpha_dropout feature_alpha_dropout dropout1d dropout2d
    dropout3d rrelu""".split()  # noqa: SIM905
)


class Value:
    """What is known of a tensor: its node, and whether its first axis is the batch."""

    __slots__ = ("batched", "node", "stale", "tensor")

    def __init__(self, tensor: Tensor, node: int, batched: bool) -> None:
        self.tensor, self.node, self.batched = tensor, node, batched
        self.stale: str | None = None


class Reader(TorchFunctionMode):
    """Keeps the node of every tensor while a step is run."""

    def __init__(self, program: Program, batch: int, own: dict[int, tuple[Tensor, str, bool]]) -> None:
        super().__init__()
        self.program, self.batch = program, batch
        self.own = own  # see `owned`
        self.known: dict[int, Value] = {}
        self.places: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        self.line = "?"
        self._given: set[int] = set()

    # --- tensors and nodes ------------------------------------------------------------------------------------------

    def give(self, tensor: Tensor, op: str, number: int) -> None:
        """An input or a part of the state, which the step must not write to."""
        self.keep(tensor, self.program.add(op, of=(number,), shape=(tensor.shape[1] if tensor.dim() > 1 else 1,)))
        self._given.add(id(tensor))

    def keep(self, tensor: Tensor, node: int, batched: bool = True) -> None:
        self.known[id(tensor)] = Value(tensor, node, batched)

    def refuse(self, why: str) -> UnreadableError:
        return UnreadableError(f"{self.line}: {why}")

    def value(self, given: Any) -> Value:
        """The value of a tensor, or of a number as if it were one."""
        if isinstance(given, bool | int | float):
            return Value(torch.tensor(float(given)), self.program.number(given), False)
        if not isinstance(given, Tensor):
            raise self.refuse(f"a {type(given).__name__} stands among tensors")
        found = self.known.get(id(given))
        if found is None:
            found = self._unknown(given)
            self.known[id(given)] = found
        if found.stale is not None:
            raise self.refuse(f"reads a tensor that {found.stale} has changed in place through another one")
        return found

    def _unknown(self, tensor: Tensor) -> Value:
        """A parameter, a buffer, or a tensor that came from somewhere else."""
        program = self.program
        if id(tensor) in self.own:
            _, name, learnt = self.own[id(tensor)]
            if not learnt:
                program.constants[name] = tensor.detach()
            return Value(
                tensor, program.add("parameter" if learnt else "constant", of=(name,), shape=tuple(tensor.shape)), False
            )
        if tensor.requires_grad:
            raise self.refuse("reads a tensor that wants a gradient and is no parameter of the cell")
        if tensor.dtype not in (torch.float32, torch.float64, torch.int64, torch.int32, torch.bool):
            raise self.refuse(f"reads a tensor of {tensor.dtype}")
        program.foreign.append((tensor, tensor.detach().clone()))
        flat = tensor.detach().to(torch.float64).flatten()
        batched = tensor.dim() > 1 and tensor.shape[0] == self.batch
        if len(flat) and bool((flat == flat[0]).all()):  # zeros, ones, or a number
            return Value(tensor, program.number(float(flat[0])), batched)
        if batched:
            if not bool((tensor == tensor[:1]).all()):
                raise self.refuse(
                    "reads a tensor that is no parameter or buffer of the cell and differs between sequences"
                )
            tensor_of_row = flat[: len(flat) // self.batch]
        name = f"constant_{len(program.constants)}"
        program.constants[name] = tensor_of_row.clone() if batched else tensor.detach().to(torch.float64).clone()
        return Value(tensor, program.add("constant", of=(name,), shape=tuple(program.constants[name].shape)), batched)

    def node(self, n: int) -> Node:
        return self.program.nodes[n]

    # --- calls ------------------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = getattr(func.__self__, "__name__", name)
        if name in _ASKED:
            return func(*args, **kwargs)
        place = self._find_place()
        if name in _RANDOM or (name == "dropout" and _drops(*args, **kwargs)):
            raise self.refuse(f"{name} draws random numbers of its own")
        touched = [t for t in _tensors((args, kwargs)) if id(t) in self.known or id(t) in self.own or t.requires_grad]
        if name in _PYTHON and touched:
            raise self.refuse(f"{name} reads a tensor's value in Python, which is another at every step")
        if not touched:
            return func(*args, **kwargs)  # made of nothing that the step is given
        if kwargs.get("out") is not None:
            raise self.refuse(f"{name} writes to a tensor that is given as out")
        plain, inplace = _plain(name)
        from unroll.equations.rules import RULES

        rule = RULES.get(plain)
        if rule is None:
            raise self.refuse(f"the step program has no operation for torch's {name}")
        if inplace:
            self._check_target(args[0], name)
        before = len(self.program.nodes)
        found = rule(self, func, args, kwargs)
        result = func(*args, **kwargs)
        if inplace:
            self._overwrite(args[0], name)
        self._pair(result, found, name)
        for n in range(before, len(self.program.nodes)):
            node = self.node(n)
            if node.line is None and node.args:
                self.program.nodes[n] = replace(node, line=self.line)
        if place is not None:
            self.places[place] = [v.node for v in (found if isinstance(found, list) else [found]) if v is not None]
        return result

    def _pair(self, result: Any, found: Any, name: str) -> None:
        """Keep the node of a result, once it is known to fit."""
        if isinstance(found, list):
            if not isinstance(result, tuple | list) or len(result) != len(found):
                raise self.refuse(f"{name} gives {type(result).__name__}, which was not expected")
            for one, value in zip(result, found, strict=True):
                if value is not None:
                    self._pair(one, value, name)
            return
        node, batched = found.node, found.batched
        shape = tuple(result.shape)
        width = 1
        for axis in shape[1:]:
            width *= axis
        known = self.node(node)
        if batched:
            fits = len(shape) > 0 and shape[0] == self.batch and known.shape in ((width,), ())
        else:
            fits = known.op == "number" or known.shape == shape
        if not fits:
            raise self.refuse(f"{name} gives {shape}, which mixes the sequences of a batch")
        self.keep(result, node, batched)

    def _check_target(self, target: Tensor, name: str) -> None:
        storage = target.untyped_storage().data_ptr()
        for tensor in (*(self.known[n].tensor for n in self._given), *(t for t, _, _ in self.own.values())):
            if tensor.untyped_storage().data_ptr() == storage:
                what = "the step's input or state" if id(tensor) in self._given else "a parameter or buffer"
                raise self.refuse(f"{name} writes to {what} in place; make a new tensor")

    def _overwrite(self, target: Tensor, name: str) -> None:
        storage = target.untyped_storage().data_ptr()
        for value in self.known.values():
            if value.tensor is not target and value.tensor.untyped_storage().data_ptr() == storage:
                value.stale = name

    def _find_place(self) -> tuple[str, tuple[int, ...]] | None:
        """The author's file and expression that made the call under way; `line` says it in words."""
        frame: Any = sys._getframe(2)
        while frame is not None:
            file = frame.f_code.co_filename
            if not file.startswith((_TORCH, _HERE)):
                positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
                self.line = f"{file}:{frame.f_lineno}"
                return file, tuple(-1 if p is None else p for p in positions)
            frame = frame.f_back
        return None


def _drops(_: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
    return training and p > 0


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, tuple | list):
        for one in given:
            yield from _tensors(one)
    elif isinstance(given, dict):
        for one in given.values():
            yield from _tensors(one)


def _plain(name: str) -> tuple[str, bool]:
    """The name of an operation without what makes it an in-place or reflected one, and whether it is in place."""
    if name.startswith("__i") and name.endswith("__") and name not in ("__invert__", "__index__"):
        return f"__{name[3:]}", True
    if name.endswith("_") and not name.startswith("__"):
        return name[:-1], True
    return name, False


def read(cell: Cell, words: bool = False) -> Program:
    """The step program of a cell, in the mode (training or evaluation) that it is in.

    Args:
        words: x_t are word indices (B,), and not features (B, D).

    Raises:
        UnreadableError: it is none; the message names the author's line.
    """
    if isinstance(cell, ProgramCell):
        return _carried(cell, words)
    hooked = next((type(m).__name__ for m in cell.modules() for key in vars(m) if _is_hook(key) and vars(m)[key]), None)
    if hooked is not None:
        raise UnreadableError(f"{hooked} has hooks, which only its own step calls")
    cell = replica(cell)
    first, second = _undrawn(cell, words)
    for n, (one, other) in enumerate(zip(first.nodes, second.nodes, strict=False)):
        if not _alike(one, other):
            line = next((node.line for node in first.nodes[n:] if node.line), place_of(cell))
            raise UnreadableError(f"{line}: {DEPENDS}")
    if len(first.nodes) != len(second.nodes) or first.new != second.new:
        raise UnreadableError(f"{place_of(cell)}: {DEPENDS}")
    for name, buffer in cell.named_buffers():
        if name in first.constants:
            first.constants[name] = buffer.detach()  # itself and no copy, for it may be written to
    return first


def _undrawn(cell: Cell, words: bool) -> list[Program]:
    """A program for each of `READINGS`, during which nobody has drawn random numbers, and the cell has changed nothing.

    The generators are all threads': another one may draw meanwhile, and its numbers must not come twice. A cell that draws some
    does so at each of the `TRIES`.
    """
    before, numbers = remembered(cell), random_states()
    with as_it_was(cell), torch.no_grad():
        try:
            for _ in range(TRIES):
                begun = random_states()
                programs = [
                    _read_once(cell, batch, cell.state_sizes, words, *copies(cell, dtype)) for batch, dtype in READINGS
                ]
                if remembered(cell) != before:
                    raise UnreadableError(
                        f"{place_of(cell)} keeps something from one call to the next, or makes modules while it runs"
                    )
                if not any(drawn_since(begun)):
                    return programs
            raise UnreadableError(f"{place_of(cell)} draws random numbers of its own")
        except BaseException:
            restore_random(numbers)
            raise


def _is_hook(attribute: str) -> bool:
    return attribute.endswith("_hooks") and ("forward" in attribute or "backward" in attribute)


DEPENDS = "what the step computes depends on the size of the batch, or on the type of its numbers"


def _alike(one: Node, other: Node) -> bool:
    """Whether two readings have the same node; numbers are the same but for rounding to float32."""
    same = (one.op, one.args, one.shape) == (other.op, other.args, other.shape)
    if one.op == "number":
        return same and (math.isclose(one.of[0], other.of[0], rel_tol=1e-5) or one.of[0] != one.of[0] != other.of[0])
    return same and one.of == other.of


def _carried(cell: ProgramCell, words: bool) -> Program:
    try:
        found = cell.read(words)
    except InputError as why:
        raise UnreadableError(str(why)) from None
    if found is None:
        raise UnreadableError(f"{cell.called} reads {'word indices' if cell.words else 'features'} only")
    return found


def owned(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> dict[int, tuple[Tensor, str, bool]]:
    """Parameters and buffers by their tensors' ids: tensor, name, whether it is a parameter."""
    return {
        id(t): (t, name, learnt)
        for found, learnt in ((parameters, True), (buffers, False))
        for name, t in found.items()
    }


def _read_once(
    cell: Cell,
    batch: int,
    widths: tuple[int, ...],
    words: bool,
    parameters: dict[str, Tensor],
    buffers: dict[str, Tensor],
) -> Program:
    generator, dtype = torch.Generator().manual_seed(batch), dict(READINGS)[batch]
    random: Callable[..., Tensor] = lambda n: torch.randn(batch, n, generator=generator, dtype=dtype)  # noqa: E731
    if words:
        x = word_indices(cell, batch)
    elif cell.input_size is None:
        raise UnreadableError(f"{place_of(cell)} does not say its input_size")
    else:
        x = random(cell.input_size)
    states = [random(size) for size in widths]
    masks = [mask.to(dtype) for mask in sample_masks(cell.masks, batch, generator)]
    features = () if words else (x.shape[1],)
    program = Program((*features, *(mask.width for mask in cell.masks)), widths, masks=cell.masks)
    reader = Reader(program, batch, owned(parameters, buffers))
    if words:
        reader.keep(x, program.add("input", of=(0,), shape=(1,)))
    else:
        reader.give(x, "input", 0)
    for k, mask in enumerate(masks, 1):
        reader.give(mask, "input", k)
    for k, state in enumerate(states):
        reader.give(state, "state", k)
    kept = {name: b.clone() for name, b in buffers.items()}
    with reader:
        new = torch.func.functional_call(cell, {**parameters, **buffers}, (x, joined(states), *masks))
    if any(not torch.equal(kept[name], b) for name, b in buffers.items()):
        raise UnreadableError(f"{place_of(cell)} changes a buffer from one call to the next")
    found = parts(new)
    if [tuple(t.shape) for t in found] != [(batch, size) for size in widths]:
        raise UnreadableError(
            f"{place_of(cell)} returns {[tuple(t.shape) for t in found]}; expected the state's shapes"
        )
    nodes = []
    for tensor in found:
        value = reader.value(tensor)
        if not reader.node(value.node).row:
            raise UnreadableError(f"{place_of(cell)}: a state does not depend on the step's input or the state before")
        nodes.append(value.node)
    program.new = tuple(nodes)
    program.places = list(reader.places.items())
    program.state_names = cell.state_names
    return program
