"""Formulas: LaTeX -> a tree of plain lists that the Typst template turns into mathematical type.

latex2mathml parses the LaTeX; here its MathML becomes nodes that JSON can hold. The template builds each node with a
function of its own and evaluates nothing, so that no formula of a user can run Typst code. What is not understood (an
unknown command, a fraction with one part) is told to the caller, who shows the formula as it was written.
"""

from __future__ import annotations

import html
from itertools import groupby
from typing import Any
from xml.etree.ElementTree import Element

Node = list[Any]

# Operators whose limits stand under and over them in displayed formulas.
LIMITS = frozenset({"lim", "max", "min", "sup", "inf", "argmax", "argmin", "limsup", "liminf", "∑", "∏", "⋃", "⋂"})
ACCENTS = {"~": "~", "^": "^", "¯": "¯", "―": "¯", "ˉ": "¯", "→": "→", "˙": "˙", "¨": "¨", "˘": "˘", "ˇ": "ˇ", "←": "←"}
ACCENTS |= {"´": "´", "`": "`", "̃": "~", "̂": "^", "˜": "~", "ˆ": "^"}
VARIANTS = {"bold", "double-struck", "script", "fraktur", "sans-serif", "monospace", "bold-italic"}


class NotUnderstoodError(Exception):
    """The formula holds something that this module has no type for."""


def parse_formula(latex: str) -> Node:
    r"""LaTeX -> tree.

    >>> parse_formula(r"s_t")
    ['attach', ['symbol', 's'], ['symbol', 't'], None, False]

    Raises:
        NotUnderstoodError: it is no LaTeX, or uses what is not supported.
    """
    from latex2mathml.converter import convert_to_element

    try:
        return _sequence(list(convert_to_element(latex)))
    except NotUnderstoodError:
        raise
    except Exception as error:  # the parser raises many kinds, plain IndexError among them
        raise NotUnderstoodError(f"not understood: {latex}") from error


def _sequence(elements: list[Element]) -> Node:
    """Elements side by side; pairs of growing fences around what is between them."""
    nodes: list[Node] = []
    for upright, group in groupby(elements, lambda e: e.tag == "mi" and e.get("mathvariant") == "normal"):
        if upright:
            nodes.append(["text", "".join(map(_text, group))])  # \mathrm{diag} is one word, not four letters
        else:
            nodes += [node for node in map(_node, group) if node is not None]
    for k, node in enumerate(nodes):
        if node[0] == "binom" and nodes[k - 1 : k + 2 : 2] == [["symbol", "("], ["symbol", ")"]]:
            nodes[k - 1 : k + 2] = [node]  # it brings parentheses of its own
            break
    return nodes[0] if len(nodes) == 1 else ["sequence", nodes]


def _node(element: Element) -> Node | None:
    children = list(element)
    match element.tag:
        case "mrow" | "math" | "mstyle":
            return _row(children)
        case "mi" | "mn" | "mo":
            return _leaf(element)
        case "mtext":
            return ["text", _text(element).replace("\xa0", " ")]
        case "mspace":
            if element.get("linebreak") == "newline":
                return ["newline"]
            width = element.get("width", "0em")
            return ["space", float(width.removesuffix("em")) if width.endswith("em") else 0.3]
        case "msub" | "msup" | "msubsup" | "munder" | "mover" | "munderover":
            return _attached(element.tag, children)
        case "mfrac":
            above, below = children
            if element.get("linethickness") == "0":
                return ["binom", _one(above), _one(below)]
            return ["frac", _one(above), _one(below)]
        case "msqrt":
            return ["sqrt", _sequence(children)]
        case "mroot":
            radicand, index = children
            return ["root", _one(index), _one(radicand)]
        case "mtable":
            rows = [[_sequence(list(cell)) for cell in row] for row in children]
            if not rows or any(child.tag != "mtr" for child in children):
                raise NotUnderstoodError("a table without rows")
            left = any(cell.get("columnalign") == "left" for row in children for cell in row)
            return ["matrix", rows, "left" if left else "center"]
    raise NotUnderstoodError(f"<{element.tag}>")


def _row(children: list[Element]) -> Node:
    r"""A row; where it begins with a fence it is \left … \right, cases or a matrix."""
    tables = any(child.tag == "mtable" for child in children)

    def fence(place: int, form: str) -> str | None:
        mark = children[place]
        return _text(mark).replace(".", "") if mark.tag == "mo" and (tables or mark.get("form") == form) else None

    opening = fence(0, "prefix") if children else None
    if opening is None:
        return _sequence(children)
    closing = fence(-1, "postfix") if len(children) > 1 else None
    return ["fenced", opening, _sequence(children[1 : None if closing is None else -1]), closing or ""]


def _leaf(element: Element) -> Node | None:
    if element.text == "&":
        return ["align"]
    text = _text(element)
    variant = element.get("mathvariant")
    if "\\" in text:
        raise NotUnderstoodError(f"unknown command {text}")
    if text in ("", "\u2061", "\u2062", "\u2063"):  # nothing to see: application, multiplication, separation
        return None
    if element.tag == "mn":
        return ["text", text]
    if len(text) > 1:
        return ["operator", text, text in LIMITS]
    if variant in VARIANTS:
        return ["variant", variant, ["symbol", text]]
    return ["symbol", text]


def _attached(tag: str, children: list[Element]) -> Node:
    if tag in ("mover", "munder") and len(children) == 2 and children[1].tag == "mo":
        mark = _text(children[1])
        if tag == "mover" and mark in ACCENTS:
            return ["accent", _one(children[0]), ACCENTS[mark]]
        if mark in ("⏟", "⏞"):
            return ["brace", "under" if mark == "⏟" else "over", _one(children[0])]
        if tag == "munder" and mark in ("_", "̲", "―"):
            return ["underline", _one(children[0])]
    base, *marks = children
    below = None if tag in ("msup", "mover") else _one(marks.pop(0))
    above = None if tag in ("msub", "munder") else _one(marks.pop(0))
    limits = tag in ("munder", "mover", "munderover") or _text(base) in LIMITS
    return ["attach", _one(base), below, above, limits]


def _one(element: Element) -> Node:
    return _sequence([element])


def _text(element: Element) -> str:
    text = html.unescape(element.text or "")  # the parser leaves &#x0003D; for the writer that is not used here
    return text if element.tag == "mtext" else text.strip()
