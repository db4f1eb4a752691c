"""Markdown with formulas -> blocks of plain lists and dictionaries that the Typst template sets.

CommonMark with tables, strikethrough and formulas between dollar signs; markdown-it-py parses. Pictures are local files
with a text alternative. HTML is shown as it was written, comments are left out. The template never evaluates any of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from unroll.report.formulas import NotUnderstoodError, parse_formula
from unroll.terminal import CONTROL, INVISIBLE

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode as Node

LONGEST_LINK = 2000  # characters; the PDF format has a limit, and nobody types a longer one

Block = dict[str, Any]
Inline = dict[str, Any]


def parse_markdown(text: str) -> list[Block]:
    """Markdown -> blocks; each has its kind under "t".

    >>> parse_markdown("a *b*")
    [{'t': 'p', 'c': [{'t': 'text', 'v': 'a '}, {'t': 'emph', 'c': [{'t': 'text', 'v': 'b'}]}]}]
    """
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    parser.use(dollarmath_plugin, double_inline=True, allow_space=False, allow_digits=False)
    return _blocks(SyntaxTreeNode(parser.parse(settable(text))).children)


def settable(text: str) -> str:
    """Text without what no page can show: invisible characters are left out, control characters become �.

    >>> settable("\ufeffa\x1bb")
    'a�b'
    """
    return re.sub(f"[{CONTROL}]", "\N{REPLACEMENT CHARACTER}", re.sub(f"[{INVISIBLE}]", "", text))


def inline(text: str) -> list[Inline]:
    """One paragraph of Markdown -> its inline nodes; none for no text."""
    blocks = parse_markdown(text.strip())
    assert [block["t"] for block in blocks] in ([], ["p"]), text
    nodes: list[Inline] = blocks[0]["c"] if blocks else []
    return nodes


def formula(latex: str, alt: str | None = None, display: bool = True) -> Block:
    """A formula; as it was written where it is not understood. `alt` is read out in its place, else the LaTeX is."""
    latex = latex.strip()
    kind = "equation" if display else "math"
    try:
        return {"t": kind, "tree": parse_formula(latex), "alt": alt or latex}
    except NotUnderstoodError:
        return {"t": "pre", "v": latex} if display else {"t": "code", "v": latex}


def plain(nodes: list[Inline]) -> str:
    """The text of inline nodes, without marks."""
    return "".join(node.get("v", "") or node.get("alt", "") or plain(node.get("c", [])) for node in nodes)


def _blocks(nodes: Sequence[Node]) -> list[Block]:
    return [block for node in nodes for block in _block(node)]


def _block(node: Node) -> list[Block]:
    match node.type:
        case "paragraph":
            return _paragraph(_inline(node.children))
        case "heading":
            content = _inline(node.children)
            return [{"t": "h", "level": int(node.tag[1]), "c": content}] if plain(content).strip() else []
        case "bullet_list":
            return [{"t": "ul", "items": [_blocks(item.children) for item in node.children]}]
        case "ordered_list":
            items = [_blocks(item.children) for item in node.children]
            return [{"t": "ol", "items": items, "start": int(node.attrs.get("start", 1))}]
        case "blockquote":
            return [{"t": "quote", "c": _blocks(node.children)}]
        case "fence" | "code_block":
            return [{"t": "pre", "v": node.content.rstrip("\n"), "lang": node.info.strip().split(" ")[0]}]
        case "math_block" | "math_block_label":
            return [formula(node.content)]
        case "table":
            rows = [row.children for part in node.children for row in part.children]
            head, *body = [[_inline(cell.children) for cell in row] for row in rows]
            align = [str(cell.attrs.get("style", "")).removeprefix("text-align:") or "left" for cell in rows[0]]
            return [{"t": "grid", "align": align, "head": head, "rows": body}]
        case "hr":
            return [{"t": "hr"}]
        case "html_block" if not _is_comment(node.content):
            return [{"t": "p", "c": [{"t": "text", "v": node.content.strip()}]}]
    return []


def _paragraph(nodes: list[Inline]) -> list[Block]:
    """A paragraph; a displayed formula or a picture in it becomes a block of its own."""
    found: list[Block] = []
    for alone, group in groupby(nodes, lambda node: node["t"] in ("equation", "pre", "picture")):
        run = list(group)
        if alone:
            found += run
        elif plain(run).strip():
            found.append({"t": "p", "c": run})
    return found


def _inline(nodes: Sequence[Node]) -> list[Inline]:
    return [inner for node in nodes for inner in _inline_node(node)]


def _inline_node(node: Node) -> list[Inline]:
    match node.type:
        case "inline":
            return _inline(node.children)
        case "strong":
            return [{"t": "strong", "c": _inline(node.children)}]
        case "em":
            return [{"t": "emph", "c": _inline(node.children)}]
        case "s":
            return [{"t": "strike", "c": _inline(node.children)}]
        case "link":
            url = str(node.attrs.get("href", ""))
            return [{"t": "link", "c": _inline(node.children), "url": url if len(url) <= LONGEST_LINK else ""}]
        case "html_inline" if _is_comment(node.content):
            return []
        case "text" | "html_inline" | "text_special":
            return [{"t": "text", "v": node.content}] if node.content else []
        case "code_inline":
            return [{"t": "code", "v": node.content}]
        case "math_inline" | "math_inline_double":
            return [formula(node.content, display=node.type.endswith("double"))]
        case "image":
            return [{"t": "picture", "file": str(node.attrs.get("src", "")), "alt": node.content}]
        case "softbreak":
            return [{"t": "text", "v": " "}]
        case "hardbreak":
            return [{"t": "break"}]
    return []


def _is_comment(html: str) -> bool:
    return html.strip().startswith("<!--") and html.strip().endswith("-->")
