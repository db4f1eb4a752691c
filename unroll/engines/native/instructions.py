"""The instructions of the kernels' interpreter (native/program.hpp), in which order they run, and which values share memory."""

from __future__ import annotations

from collections.abc import Sequence

# In the order of `Op` in native/program.hpp.
OPS: Sequence[str] = """
    affine sum max dot load_input store_input accumulate copy add sub mul div neg sigmoid tanh relu exp log sqrt abs sign sin
    cos softplus log1p expm1 erf maximum minimum pow less equal where sigmoid_back tanh_back relu_back multiply_add
""".split()  # noqa: SIM905 (a list would take a line for every name)
NUMBER = {name: number for number, name in enumerate(OPS)}
# Where a value lives, in the order of `Home` in native/program.hpp.
SCRATCH, SAVED, BEFORE, STATE, VECTOR, CONSTANT, GRADIENT, SENT, STRIP, LOCAL = range(10)

Value = tuple[int, int, int, int]
"""Width, home, index and offset, as `Value` in native/program.hpp."""

_SLOW_READERS = ("affine", "sum", "max", "dot")  # which write while they still read


def touched(one: Sequence[int]) -> tuple[list[int], list[int]]:
    """The values that an instruction makes, and those that it reads."""
    op, rest = OPS[one[0]], list(one[1:])
    if op == "affine":
        count, *rest = rest
        made, read, rest = [], rest[:count], rest[count:]
        results, *rest = rest
        for _ in range(results):
            value, biases, *rest = rest
            rest = rest[biases:]
            addends, *rest = rest
            made.append(value)
            read += rest[:addends]
            rest = rest[addends + 4 * count :]
        return made, read
    if op in ("sum", "max", "dot"):
        return rest[:1], rest[2:]
    if op == "load_input":
        return rest[:1], []
    if op in ("store_input", "accumulate"):
        return [], rest[2:]
    return rest[:1], rest[1:]


def ordered(instructions: Sequence[list[int]], values: Sequence[Value]) -> list[list[int]]:
    """Products and sums over steps as soon as what they read is there; what is computed again as late as can be.

    So there are few stretches between products, and most values are used up within theirs.
    """
    found: list[list[int]] = []
    for one in instructions:
        op, place = OPS[one[0]], len(found)
        if op in ("affine", "accumulate"):
            reads = set(touched(one)[1])
            while place and not (
                reads.intersection(touched(found[place - 1])[0]) or (op == "affine" == OPS[found[place - 1][0]])
            ):
                place -= 1
        found.insert(place, one)
    waiting: dict[int, list[int]] = {}  # instructions that read what is always there, by the value that they make
    result: list[list[int]] = []

    def put(one: list[int]) -> None:
        for v in dict.fromkeys(touched(one)[1]):
            if v in waiting:
                put(waiting.pop(v))
        result.append(one)

    for one in found:
        made, read = touched(one)
        there = all(v in waiting or values[v][1] in (SAVED, BEFORE, VECTOR, CONSTANT) for v in read)
        if one[0] >= NUMBER["copy"] and there and values[made[0]][1] == SCRATCH:
            waiting[made[0]] = one
        else:
            put(one)
    return result


def share_memory(directions: Sequence[Sequence[list[int]]], values: list[Value]) -> None:
    """Give scratch values their slots of memory: those that are never alive together share one.

    Values that no product reads or makes are LOCAL. What nobody reads is not computed, and shares any slot of its width.
    """
    free: dict[tuple[int, int], list[int]] = {}  # slots by home and width
    slots = 0

    def slot_of(home: int, width: int) -> int:
        nonlocal slots
        pool = free.setdefault((home, width), [])
        if pool:
            return pool.pop()
        slots += 1
        return slots - 1

    met: set[int] = set()
    for instructions in directions:
        last, far = _lifetimes(instructions)
        met |= last.keys()
        for place, one in enumerate(instructions):
            made, read = touched(one)
            ending = {v for v in (*made, *read) if last[v] == place}
            early = ending.difference(made) if OPS[one[0]] not in _SLOW_READERS else set()
            for v in sorted(early):
                _release(v, values, free)
            for v in made:
                width, home, _, _ = values[v]
                if home == SCRATCH:
                    home = SCRATCH if v in far else LOCAL
                    values[v] = width, home, slot_of(home, width), 0
            for v in sorted(ending - early):
                _release(v, values, free)
    for v, (width, home, _, _) in enumerate(values):
        if home == SCRATCH and v not in met:
            values[v] = width, SCRATCH, slot_of(SCRATCH, width), 0
            _release(v, values, free)


def _lifetimes(instructions: Sequence[list[int]]) -> tuple[dict[int, int], set[int]]:
    """The last instruction that touches each value, and the values that a product touches or that are there beyond one."""
    last: dict[int, int] = {}
    far: set[int] = set()
    born: dict[int, int] = {}  # the stretch between two products in which a value is made
    stretch = 0
    for place, one in enumerate(instructions):
        made, read = touched(one)
        product = OPS[one[0]] == "affine"
        stretch += product
        for v in (*made, *read):
            last[v] = place
            if born.setdefault(v, stretch) != stretch or product:
                far.add(v)
    return last, far


def _release(v: int, values: Sequence[Value], free: dict[tuple[int, int], list[int]]) -> None:
    width, home, slot, _ = values[v]
    if home in (SCRATCH, LOCAL):
        free.setdefault((home, width), []).append(slot)
