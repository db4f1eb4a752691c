"""What stands around the equations of a cell in a report: sentences, the table of its parameters, and what the readout reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unroll.cells.base import Cell, parts
from unroll.equations import UnreadableError, read
from unroll.equations.formulas import latex, latex_symbol
from unroll.equations.formulas import words as aloud
from unroll.equations.names import symbol_of
from unroll.equations.terms import Formulas, formulas
from unroll.report.blocks import count, equation, escape, paragraph, table
from unroll.report.markdown import Block, inline

# What is said of an operation's sign, where it occurs.
NOTATION = {
    "sigmoid": r"$\sigma(a) = 1/(1 + e^{-a})$ is the logistic function",
    "mul": r"$\odot$ multiplies unit by unit",
    "concat": r"$[a, b]$ are $a$ and $b$ side by side",
    "norm": r"$\operatorname{norm}(a) = (a - \operatorname{mean}(a)) / \sqrt{\operatorname{var}(a) + \varepsilon}$",
    "mean": r"$\operatorname{mean}$ is the mean over the units",
    "var": r"$\operatorname{var}$ is the variance over the units",
    "sum": r"$\operatorname{sum}$ adds up the units",
    "max": r"$\operatorname{rowmax}$ is the greatest of the units",
    "softmax": r"$\operatorname{softmax}(a)_k = e^{a_k} / \sum_j e^{a_j}$",
    "softplus": r"$\operatorname{softplus}(a) = \log(1 + e^a)$",
    "log1p": r"$\operatorname{log1p}(a) = \log(1 + a)$",
    "expm1": r"$\operatorname{expm1}(a) = e^a - 1$",
    "erf": r"$\operatorname{erf}$ is the error function",
    "sign": r"$\operatorname{sign}$ is $-1$, $0$ or $1$",
    "less": r"$[a < b]$ is 1 where that is true, else 0",
    "equal": r"$[a = b]$ is 1 where that is true, else 0",
    "where": r"$\operatorname{where}(m, a, b)$ is $a$ where $m$ is not 0, else $b$",
    "slice": r"an index such as $0:6$ takes units 0 to 5",
    "stop": r"no gradient goes through $\operatorname{stop}$",
}

# What the readout reads, by the recipe's pooling: LaTeX, what is read out in its place, and in words; given the state.
POOLED: dict[str, Callable[[str], tuple[str, str, str]]] = {
    "last": lambda s: (latex_symbol(symbol_of(s, "T")), f"{s} T", "the last hidden state"),
    "mean": lambda s: (
        f"\\overline{{{latex_symbol(symbol_of(s))}}}",
        f"mean of {s}",
        f"the mean of ${latex_symbol(symbol_of(s, 't'))}$ over all steps",
    ),
    "max": lambda s: (
        f"\\max_t {latex_symbol(symbol_of(s, 't'))}",
        f"maximum over t of {s} t",
        f"the greatest value of each unit of ${latex_symbol(symbol_of(s, 't'))}$ over all steps",
    ),
}


def equation_blocks(cell: Cell, begin: str, words: bool, num_layers: int, directions: int) -> list[Block]:
    """The equations of a cell with the sentences around them, and its parameters.

    Args:
        begin: what a step reads, a sentence without its end.
        words: the cell reads word indices.
    """
    try:
        found = formulas(read(cell, words))
    except UnreadableError as why:
        return [paragraph(f"{begin}. Its step could not be read as formulas: {escape(str(why))}.")]
    caption = parameter_caption(cell, num_layers, directions)
    head = ["Symbol", "In the code", "Shape", "Numbers"]
    return [
        paragraph(f"{begin}. {cell.explained}:" if cell.explained else f"{begin}:"),
        equation(latex(found), aloud(found), label="eq-cell"),
        paragraph(f"{after(cell, found)} {parameter_sentence(found)}"),
        table("tab-parameters", caption, head, "llrr", parameter_rows(cell, found)),
    ]


def listed(words: list[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def named(cell: Cell, name: str) -> str:
    """What a quantity of the cell is, in a word or two."""
    return cell.meanings[name].partition(":")[0]


def before_step(cell: Cell) -> str:
    """The state that a step reads, and of how many units it is."""
    symbols = [
        f"${latex_symbol(symbol_of(name, 't-1'))} \\in \\mathbb{{R}}^{{{size}}}$"
        for name, size in zip(cell.state_names, cell.state_sizes, strict=True)
    ]
    if set(cell.state_names) <= set(cell.meanings):
        return listed([f"{named(cell, name)} {s}" for name, s in zip(cell.state_names, symbols, strict=True)])
    return f"state{'s' * (len(symbols) > 1)} {listed(symbols)}"


def after(cell: Cell, found: Formulas) -> str:
    """The sentences after the formulas: what the quantities are, what the signs mean, and how the state begins."""
    occurring = found.operations()
    signs = [said for op, said in NOTATION.items() if op in occurring]
    clauses = [listed(signs)] if signs else []
    if len(found.values) > 1 and set(found.values) <= set(cell.meanings):
        clauses.insert(
            0, f"From top to bottom these are {listed([f'the {named(cell, name)}' for name in found.values])}"
        )
    elif signs:
        clauses[0] = f"Here {clauses[0]}"
    if any(bool(part.any()) for part in parts(cell.initial_state(1))):
        clauses.append("the cell has an initial state of its own")
    else:
        zeros = (latex_symbol(symbol_of(f"{name}_0")) for name in cell.state_names)
        clauses.append(f"the state begins as ${' = '.join(zeros)} = 0$")
    said = "; ".join(clauses) + "."
    return said[0].upper() + said[1:]


def parameter_rows(cell: Cell, found: Formulas) -> list[list[Any]]:
    """A row for each parameter: its symbols, its name in the code, its shape; and how many numbers these are."""
    symbols = {letters.path: letters.symbols for letters in found.parameters}
    rows: list[list[Any]] = []
    for path, parameter in cell.named_parameters():
        shown = inline(", ".join(f"${latex_symbol(symbol)}$" for symbol in symbols.get(path, ()))) or "not read"
        code = [{"t": "code", "v": path.removeprefix("module.")}]
        rows.append([shown, code, " × ".join(map(str, parameter.shape)) or "1", f"{parameter.numel():,}"])
    return rows


def parameter_sentence(found: Formulas) -> str:
    """What the table of the parameters says."""
    stacked = any(len(letters.symbols) > 1 for letters in found.parameters)
    more = "; blocks that are stacked in one parameter are named in their order" if stacked else ""
    return f"[](#tab-parameters) lists the parameters, which are the same at every step{more}."


def parameter_caption(cell: Cell, num_layers: int, directions: int) -> str:
    total = sum(parameter.numel() for parameter in cell.parameters())
    where, ways = " of the first layer" * (num_layers > 1), " in each direction" * (directions > 1)
    return f"The {count(total, 'number')} that the cell{where} learns{ways}."
