"""A step program as formulas in the author's own names: as text, as LaTeX, as MathML, and in words that are read aloud."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from unroll.equations.names import ACCENTS, Symbol
from unroll.equations.program import Program
from unroll.equations.terms import Equation, Formulas, Term, formulas

GREEK = {
    **dict(zip("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi".split(), "αβγδεζηθικλμνξ")),  # noqa: B905, SIM905
    **dict(zip("pi rho sigma tau upsilon phi chi psi omega".split(), "πρστυφχψω")),  # noqa: B905, SIM905
    **{
        "Gamma": "Γ",
        "Delta": "Δ",
        "Theta": "Θ",
        "Lambda": "Λ",
        "Xi": "Ξ",
        "Pi": "Π",
        "Sigma": "Σ",
        "Phi": "Φ",
        "Psi": "Ψ",
    },
    "Omega": "Ω",
}
_MARKS = {"tilde": "~", "hat": "^", "bar": "¯", "dot": "˙"}
LONGEST = 76  # characters of a right side, as text; a longer sum goes on in the next row
PLUS, TIMES, TIGHT, ATOM = 1, 2, 3, 4  # how strongly an operation binds


class Operation(NamedTuple):
    """How an operation is written: how strongly it binds, how strongly its arguments must, and a template for each form.

    ``{0}`` stands for the first argument, ``{all}`` for all of them with commas.
    """

    strength: int
    needs: tuple[int, ...]
    text: str
    latex: str
    words: str


def _function(text: str, latex: str, words: str) -> Operation:
    return Operation(ATOM, (0,), f"{text}({{all}})", rf"{latex}({{all}})", f"{words} of {{all}}")


def _named(name: str, words: str) -> Operation:
    return _function(name, rf"\operatorname{{{{{name}}}}}", words)


OPERATIONS = {
    "mul": Operation(TIMES, (TIMES, TIMES), "{0} ⊙ {1}", r"{0} \odot {1}", "{0} times {1}"),
    "scale": Operation(TIMES, (TIMES, TIMES), "{0} {1}", r"{0}\, {1}", "{0} times {1}"),
    "div": Operation(TIMES, (TIMES, TIGHT), "{0} / {1}", r"\frac{{{0}}}{{{1}}}", "{0} divided by {1}"),
    "product": Operation(TIGHT, (ATOM, ATOM), "{0} {1}", r"{0}\, {1}", "{0} times {1}"),
    "transpose": Operation(ATOM, (ATOM,), "{0}ᵀ", r"{{{0}}}^\top", "{0} transposed"),
    "concat": Operation(ATOM, (0,), "[{all}]", r"\left[{all}\right]", "{all} side by side"),
    "square": Operation(TIGHT, (ATOM,), "{0}²", r"{{{0}}}^2", "{0} squared"),
    "pow": Operation(TIGHT, (ATOM, ATOM), "{0}^{1}", r"{{{0}}}^{{{1}}}", "{0} to the power {1}"),
    "sqrt": Operation(ATOM, (0,), "√({0})", r"\sqrt{{{0}}}", "the root of {0}"),
    "abs": Operation(ATOM, (0,), "|{0}|", r"\left|{0}\right|", "the absolute value of {0}"),
    "relu": Operation(ATOM, (0,), "max(0, {0})", r"\max(0,\; {0})", "the greater of 0 and {0}"),
    "less": Operation(ATOM, (PLUS, PLUS), "[{0} < {1}]", r"\left[{0} < {1}\right]", "1 if {0} is less than {1} else 0"),
    "equal": Operation(ATOM, (PLUS, PLUS), "[{0} = {1}]", r"\left[{0} = {1}\right]", "1 if {0} equals {1} else 0"),
    "sigmoid": _function("σ", r"\sigma", "sigma"),
    "tanh": _function("tanh", r"\tanh", "tanh"),
    "exp": _function("exp", r"\exp", "the exponential function"),
    "log": _function("log", r"\log", "the logarithm"),
    "sin": _function("sin", r"\sin", "sine"),
    "cos": _function("cos", r"\cos", "cosine"),
    "maximum": _function("max", r"\max", "the maximum"),
    "minimum": _function("min", r"\min", "the minimum"),
    "max": _named("rowmax", "the greatest value"),
    "sum": _named("sum", "the sum over the row"),
    "mean": _named("mean", "the mean"),
    "var": _named("var", "the variance"),
    "norm": _named("norm", "the normalised row"),
    "softmax": _named("softmax", "softmax"),
    "softplus": _named("softplus", "softplus"),
    "log1p": _named("log1p", "the logarithm of one plus"),
    "expm1": _named("expm1", "the exponential function minus one"),
    "erf": _named("erf", "the error function"),
    "sign": _named("sign", "the sign"),
    "where": _named("where", "where"),
    "stop": _named("stop", "the value alone"),
}


@dataclass(frozen=True)
class Form:
    """One way to write terms: how symbols, numbers, slices, sums and parentheses look, and which of the templates is meant."""

    symbol: Callable[[Symbol], str]
    number: Callable[[float], str]
    template: Callable[[Operation], str]
    cut: Callable[[str, list[str]], str]
    signs: tuple[str, str, str]  # between summands: plus, minus; before the first: minus
    comma: str
    parentheses: str
    fractions: bool = False  # whether a fraction and its parts need no parentheses
    spoken: bool = False  # whether a function within something else takes no sum without parentheses

    def write(self, term: Term, need: int = 0, inner: bool = False) -> str:
        """A term, in parentheses where it binds less than is needed."""
        if term.op == "symbol":
            return self.symbol(term.of)
        if term.op == "number":
            value = float(term.of[0])
            found, strength = self.number(value), PLUS if value < 0 else ATOM
        elif term.op == "plus":
            found, strength = "".join(self.summands(term)), PLUS
        elif term.op == "slice":
            axis, start, stop = map(int, term.of)
            bounds = [":"] * axis + [f"{start}:{stop}"]
            found, strength = self.cut(self.write(term.args[0], ATOM, True), bounds), ATOM
        else:
            found, strength = self._operation(OPERATIONS[term.op], term, inner)
        return self.parentheses.format(found) if strength < need else found

    def _operation(self, operation: Operation, term: Term, inner: bool) -> tuple[str, int]:
        strength, needs = operation.strength, operation.needs
        if term.op == "div" and self.fractions:
            strength, needs = ATOM, (0, 0)
        if self.spoken and inner:
            needs = tuple(max(need, TIMES) for need in needs)
        args = [self.write(arg, needs[min(k, len(needs) - 1)], True) for k, arg in enumerate(term.args)]
        return self.template(operation).format(*args, all=self.comma.join(args)), strength

    def summands(self, term: Term) -> list[str]:
        """The summands of a sum, each with its sign."""
        plus, minus, first = self.signs
        found = []
        for k, (arg, sign) in enumerate(zip(term.args, term.of, strict=True)):
            mark = (minus if sign == -1 else plus) if k else (first if sign == -1 else "")
            found.append(mark + self.write(arg, TIMES, True))
        return found


# --- text ---------------------------------------------------------------------------------------------------------------------


def text(program: Program) -> str:
    """One line for each value that the author has named, and for each part of the new state."""
    return "\n".join(f"{_left(one, TEXT, '[{}]')} = {TEXT.write(one.right)}" for one in formulas(program).equations)


def _left(equation: Equation, form: Form, several: str) -> str:
    symbols = [form.symbol(symbol) for symbol in equation.left]
    return symbols[0] if len(symbols) == 1 else several.format(form.comma.join(symbols))


def text_symbol(symbol: Symbol) -> str:
    """A symbol as text.

    >>> text_symbol(Symbol("c", ("ih",), "tilde", "t-1"))
    'c̃_ih_{t-1}'
    """
    found = GREEK.get(symbol.base, symbol.base) + ACCENTS.get(symbol.accent or "", "")
    for sub in symbol.sub:
        found += sub if sub.isdigit() and len(symbol.sub) == 1 else f"_{sub}"
    return found if symbol.time is None else f"{found}_t" if symbol.time == "t" else f"{found}_{{{symbol.time}}}"


TEXT = Form(
    text_symbol,
    lambda value: f"{value:g}",
    lambda operation: operation.text,
    lambda what, bounds: f"{what}[{', '.join(bounds)}]",
    (" + ", " - ", "-"),
    ", ",
    "({})",
)


# --- LaTeX --------------------------------------------------------------------------------------------------------------------


def latex(found: Formulas) -> str:
    """The equations one below the other, aligned at their signs; one alone as it is."""
    rows = [row for equation in found.equations for row in _latex_rows(equation)]
    if len(rows) == 1:
        return rows[0].replace("&", "")
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def _latex_rows(equation: Equation) -> list[str]:
    """An equation in as many rows as its summands need."""
    left, right = _left(equation, LATEX, r"\left[{}\right]"), equation.right
    if right.op != "plus" or len(TEXT.write(right)) <= LONGEST:
        return [f"{left} &= {LATEX.write(right)}"]
    rows, width = [f"{left} &="], 0
    for shown, written in zip(TEXT.summands(right), LATEX.summands(right), strict=True):
        if width and width + len(shown) > LONGEST:
            rows.append(r"&\quad ")
            width = 0
        rows[-1] += " " + written
        width += len(shown)
    return rows


def latex_symbol(symbol: Symbol) -> str:
    """A symbol as LaTeX.

    >>> latex_symbol(Symbol("c", ("ih", "2"), "tilde", "t-1"))
    '\\\\tilde{c}_{\\\\text{ih},2,t-1}'
    """
    base = _latex_word(symbol.base)
    base = rf"\{symbol.accent}{{{base}}}" if symbol.accent else base
    marks = [*map(_latex_word, symbol.sub), *([symbol.time] if symbol.time else [])]
    below = ",".join(marks)
    return base + (f"_{below}" if len(below) == 1 else f"_{{{below}}}" if below else "")


def _latex_word(word: str) -> str:
    if word in GREEK:
        return "\\" + word
    return word if len(word) == 1 or word.isdigit() else rf"\text{{{word.replace('_', ' ')}}}"


def _latex_number(value: float) -> str:
    mantissa, _, exponent = f"{value:g}".partition("e")
    if not exponent:
        return mantissa
    power = f"10^{{{int(exponent)}}}"
    return power if mantissa == "1" else f"{mantissa} \\cdot {power}"


LATEX = Form(
    latex_symbol,
    _latex_number,
    lambda operation: operation.latex,
    lambda what, bounds: "{" + what + "}_{" + r",\,".join(bounds) + "}",
    (" + ", " - ", "-"),
    r",\; ",
    r"\left({}\right)",
    fractions=True,
)


# --- MathML -------------------------------------------------------------------------------------------------------------------


def mathml(found: Formulas) -> str:
    """The equations as one `<math>` element, which browsers show without a script; what is read aloud is its alternative."""
    rows = []
    for equation in found.equations:
        left = _left(equation, MATHML, "<mo>[</mo>{}<mo>]</mo>")
        cells = (left, "<mo>=</mo>", MATHML.write(equation.right))
        rows.append("<mtr>" + "".join(f"<mtd>{_row(cell)}</mtd>" for cell in cells) + "</mtr>")
    table = '<mtable columnalign="right center left" displaystyle="true">' + "".join(rows) + "</mtable>"
    return (
        '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block" '
        f'alttext="{html.escape(words(found))}">{table}</math>'
    )


def _row(inner: str) -> str:
    return f"<mrow>{inner}</mrow>"


def _mathml_symbol(symbol: Symbol) -> str:
    base = _mathml_word(symbol.base)
    if symbol.accent:
        base = f'<mover accent="true">{base}<mo>{_MARKS[symbol.accent]}</mo></mover>'
    marks = [_mathml_word(sub) for sub in symbol.sub]
    if symbol.time:
        marks.append("<mi>t</mi>" + ("<mo>−</mo><mn>1</mn>" if symbol.time == "t-1" else ""))
    return f"<msub>{base}{_row('<mo>,</mo>'.join(marks))}</msub>" if marks else base


def _mathml_word(word: str) -> str:
    if word.isdigit():
        return f"<mn>{word}</mn>"
    return f"<mi>{html.escape(GREEK.get(word, word).replace('_', ' '))}</mi>"


def _mathml_number(value: float) -> str:
    mantissa, _, exponent = f"{abs(value):g}".partition("e")
    found = ("<mo>−</mo>" if value < 0 else "") + f"<mn>{mantissa}</mn>"
    if exponent:
        found += f"<mo>·</mo><msup><mn>10</mn>{_row(_mathml_number(int(exponent)))}</msup>"
    return found


def _mathml_template(operation: Operation) -> str:
    """The template of the text, its words and signs in elements; four have a form of their own."""
    special = {
        "div": "<mfrac><mrow>{0}</mrow><mrow>{1}</mrow></mfrac>",
        "sqrt": "<msqrt><mrow>{0}</mrow></msqrt>",
        "square": "<msup><mrow>{0}</mrow><mn>2</mn></msup>",
        "pow": "<msup><mrow>{0}</mrow><mrow>{1}</mrow></msup>",
        "transpose": "<msup><mrow>{0}</mrow><mo>⊤</mo></msup>",
    }
    for name, template in special.items():
        if operation is OPERATIONS[name]:
            return template

    def element(match: re.Match[str]) -> str:
        token = match[0]
        if token.startswith("{"):
            return _row(token) if token != "{all}" else token
        if token.isdigit():
            return f"<mn>{token}</mn>"
        return f"<mi>{token}</mi>" if token.isalpha() else f"<mo>{html.escape(token)}</mo>"

    return re.sub(r"\{\w+\}|\w+|[^\s\w]", element, operation.text)


MATHML = Form(
    _mathml_symbol,
    _mathml_number,
    _mathml_template,
    lambda what, bounds: f"<msub>{_row(what)}<mtext>{', '.join(bounds)}</mtext></msub>",
    ("<mo>+</mo>", "<mo>−</mo>", "<mo>−</mo>"),
    "<mo>,</mo>",
    "<mo>(</mo>{}<mo>)</mo>",
    fractions=True,
)


# --- words --------------------------------------------------------------------------------------------------------------------


def words(found: Formulas) -> str:
    """The equations read aloud, a sentence each; the text alternative of the formulas, for screen readers."""
    sentences = [f"{_left(one, WORDS, '{}')} equals {WORDS.write(one.right)}" for one in found.equations]
    return ". ".join(re.sub(r",+(?=,|$)", "", sentence) for sentence in sentences)


def _spoken_symbol(symbol: Symbol) -> str:
    sub = [part.replace("_", " ") for part in symbol.sub]
    said = [symbol.base, symbol.accent or "", *sub, (symbol.time or "").replace("-", " minus ")]
    return " ".join(part for part in said if part)


WORDS = Form(
    _spoken_symbol,
    lambda value: f"{value:g}".replace("-", "minus ", 1) if value < 0 else f"{value:g}",
    lambda operation: operation.words,
    lambda what, bounds: f"the part {', '.join(bounds)} of {what}",
    (", plus ", ", minus ", "minus "),
    " and ",
    "the quantity {},",
    spoken=True,
)
