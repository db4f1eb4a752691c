"""Markdown with formulas -> blocks of plain lists and dictionaries that the Typst template sets.

CommonMark with tables, strikethrough and formulas between dollar signs; markdown-it-py parses. Pictures are local files
with a text alternative. HTML is shown as it was written, comments are left out. The template never evaluates any of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unroll.report.formulas import NotUnderstoodError, parse_formula

if TYPE_CHECKING:
    from markdown_it.token import Token

Block = dict[str, Any]
Inline = dict[str, Any]


def parse_markdown(text: str) -> list[Block]:
    """Markdown -> blocks; each has its kind under "t".

    >>> parse_markdown("a *b*")
    [{'t': 'p', 'c': [{'t': 'text', 'v': 'a '}, {'t': 'emph', 'c': [{'t': 'text', 'v': 'b'}]}]}]
    """
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    parser.use(dollarmath_plugin, double_inline=True, allow_space=False, allow_digits=False)
    return _blocks(iter(parser.parse(text.removeprefix("\ufeff"))), "")


def inline(text: str) -> list[Inline]:
    """One paragraph of Markdown -> its inline nodes."""
    blocks = parse_markdown(text)
    assert [block["t"] for block in blocks] == ["p"], text
    nodes: list[Inline] = blocks[0]["c"]
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


def _blocks(tokens: Iterator[Token], until: str) -> list[Block]:
    found: list[Block] = []
    for token in tokens:
        kind = token.type
        if kind == until:
            break
        if kind == "paragraph_open":
            found += _paragraph(next(tokens))
            next(tokens)
        elif kind == "heading_open":
            title = next(tokens)
            next(tokens)
            found.append({"t": "h", "level": int(token.tag[1]), "c": _inline(title.children or [])})
        elif kind in ("bullet_list_open", "ordered_list_open"):
            closing = kind.replace("open", "close")
            block: Block = {"t": "ul" if kind.startswith("bullet") else "ol", "items": _items(tokens, closing)}
            if block["t"] == "ol":
                block["start"] = int(token.attrs.get("start", 1))
            found.append(block)
        elif kind == "blockquote_open":
            found.append({"t": "quote", "c": _blocks(tokens, "blockquote_close")})
        elif kind in ("fence", "code_block"):
            found.append({"t": "pre", "v": token.content.rstrip("\n"), "lang": token.info.strip().split(" ")[0]})
        elif kind in ("math_block", "math_block_label"):
            found.append(formula(token.content))
        elif kind == "table_open":
            found.append(_table(tokens))
        elif kind == "hr":
            found.append({"t": "hr"})
        elif kind == "html_block" and not _is_comment(token.content):
            found.append({"t": "p", "c": [{"t": "text", "v": token.content.strip()}]})
    return found


def _items(tokens: Iterator[Token], closing: str) -> list[list[Block]]:
    items = []
    for token in tokens:
        if token.type == closing:
            break
        if token.type == "list_item_open":
            items.append(_blocks(tokens, "list_item_close"))
    return items


def _table(tokens: Iterator[Token]) -> Block:
    rows: list[list[list[Inline]]] = []
    align: list[str] = []
    for token in tokens:
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "th_open":
            align.append(str(token.attrs.get("style", "")).removeprefix("text-align:") or "left")
        elif token.type == "inline":
            rows[-1].append(_inline(token.children or []))
    return {"t": "grid", "align": align, "head": rows[0], "rows": rows[1:]}


def _paragraph(token: Token) -> list[Block]:
    """A paragraph; a displayed formula or a picture in it becomes a block of its own."""
    found: list[Block] = []
    run: list[Inline] = []

    def flush() -> None:
        nonlocal run
        if plain(run).strip():
            found.append({"t": "p", "c": run})
        run = []

    for node in _inline(token.children or []):
        if node["t"] in ("equation", "pre", "picture"):
            flush()
            found.append(node)
        else:
            run.append(node)
    flush()
    return found


def _inline(tokens: list[Token]) -> list[Inline]:
    wrappers = {"strong_open": "strong", "em_open": "emph", "s_open": "strike", "link_open": "link"}
    stack: list[list[Inline]] = [[]]
    for token in tokens:
        if token.type in wrappers:
            node: Inline = {"t": wrappers[token.type], "c": []}
            if node["t"] == "link":
                node["url"] = str(token.attrs.get("href", ""))
            stack[-1].append(node)
            stack.append(node["c"])
        elif token.type.endswith("_close"):
            stack.pop()
        elif token.type in ("text", "html_inline", "text_special"):
            if token.content and not (token.type == "html_inline" and _is_comment(token.content)):
                stack[-1].append({"t": "text", "v": token.content})
        elif token.type == "code_inline":
            stack[-1].append({"t": "code", "v": token.content})
        elif token.type == "math_inline":
            stack[-1].append(formula(token.content, display=False))
        elif token.type == "math_inline_double":
            stack[-1].append(formula(token.content))
        elif token.type == "image":
            stack[-1].append({"t": "picture", "file": str(token.attrs.get("src", "")), "alt": token.content})
        elif token.type == "softbreak":
            stack[-1].append({"t": "text", "v": " "})
        elif token.type == "hardbreak":
            stack[-1].append({"t": "break"})
    return stack[0]


def _is_comment(html: str) -> bool:
    html = html.strip()
    return html.startswith("<!--") and html.endswith("-->")
