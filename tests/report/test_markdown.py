"""Markdown and formulas become data."""

from __future__ import annotations

import pytest

from unroll.report.formulas import NotUnderstoodError, parse_formula
from unroll.report.markdown import formula, inline, parse_markdown, plain
from unroll.report.pdf import Document, typeset


def test_a_recurrence_becomes_its_tree():
    assert parse_formula(r"s_t = \tanh(W s_{t-1})") == [
        "sequence",
        [
            ["attach", ["symbol", "s"], ["symbol", "t"], None, False],
            ["symbol", "="],
            ["operator", "tanh", False],
            ["symbol", "("],
            ["symbol", "W"],
            ["attach", ["symbol", "s"], ["sequence", [["symbol", "t"], ["symbol", "−"], ["text", "1"]]], None, False],
            ["symbol", ")"],
        ],
    ]


@pytest.mark.parametrize(
    ("latex", "kind"),
    [
        (r"\frac{a}{b}", "frac"),
        (r"\sqrt{a + b}", "sqrt"),
        (r"\sqrt[3]{a}", "root"),
        (r"\tilde{c}", "accent"),
        (r"\hat{y}", "accent"),
        (r"\bar{h}", "accent"),
        (r"\overline{h}", "accent"),
        (r"\vec{v}", "accent"),
        (r"\sum_{t=1}^{T} x_t", "sequence"),
        (r"\binom{n}{k}", "binom"),
        (r"\left( x \right)", "fenced"),
        (r"\begin{bmatrix} a & b \\ c & d \end{bmatrix}", "fenced"),
        (r"\begin{cases} a & b \\ c & d \end{cases}", "fenced"),
        (r"\underbrace{a + b}_{c}", "attach"),
        (r"\mathrm{diag}", "text"),
        (r"\mathbb{R}^{n \times m}", "attach"),
    ],
)
def test_the_common_formulas_are_understood_and_can_be_set(latex, kind):
    tree = parse_formula(latex)
    assert tree[0] == kind
    body = parse_markdown(f"Inline ${latex}$ and\n\n$$\n{latex}\n$$\n")
    assert [block["t"] for block in body] == ["p", "equation"]
    assert typeset(Document(title="t", running=("", ""), summary=[], body=body)).startswith(b"%PDF")


@pytest.mark.parametrize("latex", [r"\foo{x}", r"\frac{1", r"x_{", r"\unknowncommand", r"\begin{bmatrix}"])
def test_a_formula_that_is_not_understood_is_shown_as_it_was_written(latex):
    with pytest.raises(NotUnderstoodError):
        parse_formula(latex)
    assert formula(latex) == {"t": "pre", "v": latex}
    assert formula(latex, display=False) == {"t": "code", "v": latex}


def test_limits_stand_under_max_but_not_beside_letters():
    assert parse_formula(r"\max_t h_t")[1][0] == ["attach", ["operator", "max", True], ["symbol", "t"], None, True]
    assert parse_formula(r"\log_2 x")[1][0][4] is False


def test_prices_are_no_formulas():
    (block,) = parse_markdown("It costs $5 and $6.")
    assert plain(block["c"]) == "It costs $5 and $6."


def test_blocks_keep_their_order_and_nesting():
    blocks = parse_markdown(
        "# T\n\na\n\n1. x\n   - y\n2. z\n\n> q\n\n```python\ncode\n```\n\n---\n\n| a | b |\n|---|--:|\n| 1 | $x$ |\n"
    )
    assert [block["t"] for block in blocks] == ["h", "p", "ol", "quote", "pre", "hr", "grid"]
    assert [inner["t"] for inner in blocks[2]["items"][0]] == ["p", "ul"]
    assert blocks[4] == {"t": "pre", "v": "code", "lang": "python"}
    assert blocks[6]["align"] == ["left", "right"]


def test_html_is_text_and_comments_are_nothing():
    assert plain(inline("a <b>c</b><!-- d -->")) == "a <b>c</b>"
    assert parse_markdown("<!-- a\nb -->") == []
