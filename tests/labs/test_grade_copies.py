"""Copies are found under their disguises, and strangers who wrote the same plain program are not called copies."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.labs.disguise import as_notebook, disguised
from tests.labs.plain import PLAIN, plain
from unroll.labs.grade.copies import FEWEST, Alike, copies
from unroll.labs.grade.tables import copies_csv
from unroll.labs.source import Source, read_source
from unroll.labs.starter import starter

HERE = Path(__file__).parent
COPIED = ("hw_01", "hw_02", "hw_05", "hw_07", "hw_08", "hw_12", "hw_14", "hw_16", "hw_18", "hw_20")


def of(text: str, name: str = "lab.py") -> Source:
    return Source(Path(name), text.encode("utf-8", "replace"), text, text)


def hand_ins(*folders: str, lab: str = "hw") -> dict[str, Source]:
    return {
        f"{folder}/{path.stem}": read_source(path)
        for folder in folders
        for path in sorted((HERE / folder).glob(f"{lab}_*"))
    }


HOMEWORK, INCLASS = of(starter("homework")), of(starter("inclass"))
GIVEN = [HOMEWORK]


@pytest.fixture(scope="module")
def strangers() -> Mapping[str, Source]:
    return hand_ins("correct")


def groups(found: list[Alike]) -> list[tuple[str, ...]]:
    return [one.students for one in found]


# --- strangers


@pytest.mark.parametrize("given", [[HOMEWORK], []], ids=["with the starter", "without"])
def test_copies_finds_none_among_strangers(given: list[Source]) -> None:
    assert copies(hand_ins("correct"), given) == []
    assert copies(hand_ins("correct", "second/correct"), given) == []
    assert copies(hand_ins("correct", "second/correct", "faulty"), given) == []


def test_copies_finds_none_among_strangers_in_class() -> None:
    assert copies(hand_ins("correct", "second/correct", "faulty", lab="rnn"), [INCLASS]) == []


def test_copies_lists_no_plain_programs(strangers: Mapping[str, Source]) -> None:
    ten = {f"plain_{n}": of(plain(n)) for n in range(len(PLAIN))}
    for one in ten.values():
        compile(one.text, "plain.py", "exec")
    for class_ in (ten, {**strangers, **ten}, dict(list(ten.items())[:2])):
        assert copies(class_, GIVEN) == []
    for first, second in zip(ten, list(ten)[1:], strict=False):
        assert copies({**strangers, first: ten[first], second: ten[second]}, GIVEN) == []


def test_copies_lists_no_plain_programs_where_the_starter_is_not_known(strangers: Mapping[str, Source]) -> None:
    assert copies({f"plain_{n}": of(plain(n)) for n in range(len(PLAIN))}) == []


def test_copies_lists_no_unchanged_starter() -> None:
    assert copies({"a": HOMEWORK, "b": HOMEWORK}, GIVEN) == []
    assert copies({"a": read_text_of_notebook("homework"), "b": HOMEWORK}, GIVEN) == []


def read_text_of_notebook(lab: str) -> Source:
    return of(starter(lab).replace("\n\n", "\n"))


# --- copies


@pytest.mark.parametrize("name", COPIED)
def test_copies_finds_a_disguised_copy(strangers: Mapping[str, Source], name: str) -> None:
    copy = of(disguised(strangers[f"correct/{name}"].text, seed=sum(map(ord, name))))
    found = copies({**strangers, "copy": copy}, GIVEN)
    assert groups(found) == [("copy", f"correct/{name}")]
    assert found[0].kind == "same program"


@pytest.mark.parametrize("name", ["rnn_04", "rnn_05", "rnn_06"])
def test_copies_finds_a_disguised_copy_in_class(name: str) -> None:
    class_ = hand_ins("correct", lab="rnn")
    copy = of(disguised(class_[f"correct/{name}"].text))
    assert groups(copies({**class_, "copy": copy}, [INCLASS])) == [("copy", f"correct/{name}")]


def test_copies_finds_copies_in_a_full_class() -> None:
    class_ = hand_ins("correct", "second/correct", "faulty")
    for n, name in enumerate(COPIED):
        class_[f"copy_{name}"] = of(disguised(class_[f"correct/{name}"].text, seed=n))
    assert groups(copies(class_, GIVEN)) == [(f"copy_{name}", f"correct/{name}") for name in sorted(COPIED)]


def test_copies_finds_a_notebook_of_a_script(strangers: Mapping[str, Source], tmp_path: Path) -> None:
    path = tmp_path / "copy.ipynb"
    path.write_text(as_notebook(disguised(strangers["correct/hw_18"].text)), encoding="utf-8")
    (found,) = copies({**strangers, "copy": read_source(path)}, GIVEN)
    assert found.students == ("copy", "correct/hw_18")
    assert "cell 2, line" in found.evidence[0]


def test_copies_sees_through_a_file_that_does_not_parse(strangers: Mapping[str, Source]) -> None:
    text = disguised(strangers["correct/hw_04"].text).replace("figsize=(", "figsize=((", 1) + "\nprint('"
    with pytest.raises(SyntaxError):
        compile(text, "copy.py", "exec")
    assert groups(copies({**strangers, "copy": of(text)}, GIVEN)) == [("copy", "correct/hw_04")]


def test_copies_calls_the_same_function_by_any_way(strangers: Mapping[str, Source]) -> None:
    text = strangers["correct/hw_18"].text
    other = text.replace("import torch.nn as nn", "from torch import nn as net").replace("nn.", "net.")
    other = (
        other.replace("torch.", "tt.")
        .replace("import torch\n", "import torch as tt\n")
        .replace("import tt.", "import torch.")
    )
    class_ = {**strangers, "copy": of(disguised(other))}
    by_name, by_other = copies({**strangers, "copy": of(disguised(text))}, GIVEN), copies(class_, GIVEN)
    assert by_other[0].evidence[0].partition(". ")[0] == by_name[0].evidence[0].partition(". ")[0]


def test_copies_makes_one_entry_of_three(strangers: Mapping[str, Source]) -> None:
    text = strangers["correct/hw_09"].text
    found = copies({**strangers, "x": of(disguised(text, 1)), "y": of(disguised(text, 2))}, GIVEN)
    assert groups(found) == [("correct/hw_09", "x", "y")]


def test_copies_says_the_lines_of_both_files() -> None:
    base = "import torch\n"
    class_ = {f"s{n}": of(base + "".join(f"v{k} = torch.f{n}_{k}(x, {k})\n" for k in range(20))) for n in range(10)}
    odd = [f"z = torch.rare_{k}_function(z + 1, other=[z, z])\n" for k in range(20)]
    class_["a"], class_["b"] = of(base + "".join(odd)), of(base + "\n\n" + "".join(odd).replace("z", "w"))
    (found,) = copies(class_)
    assert "lines 2-21 of a and lines 4-23 of b" in " ".join(found.evidence)


# --- equal files


def test_copies_lists_equal_files_in_the_smallest_class() -> None:
    (found,) = copies({"b": of(plain(0)), "a": of(plain(0)), "c": of(plain(5))}, GIVEN)
    assert (found.students, found.kind) == (("a", "b"), "same file")
    (found,) = copies({"a": of(plain(0)), "b": of(plain(0).replace("\n", "\r\n").replace(" = ", "  = "))}, GIVEN)
    assert found.kind == "same text"
    assert "not the starter's" in found.evidence[0]


def test_copies_lists_a_long_equal_program_in_a_class_too_small_to_say_what_is_rare(
    strangers: Mapping[str, Source],
) -> None:
    text = strangers["correct/hw_04"].text
    other = text.replace("labels", "truth").replace("# ", "# my ")
    (found,) = copies({"a": of(text), "b": of(other)}, GIVEN)
    assert found.kind == "same program"
    few = {"copy": of(disguised(text)), **dict(list(strangers.items())[: FEWEST - 2])}
    assert copies(few, GIVEN) == []


# --- unusual numbers and words


def with_numbers(number: int, rate: str, seed: str, more: str = "") -> Source:
    text = plain(number).replace("num_epochs = 2", f"num_epochs = 2\ntorch.manual_seed({seed})\n{more}")
    return of(text.replace(text.partition("learning_rate = ")[2].partition("\n")[0], rate, 1))


@pytest.mark.parametrize(
    ("rate", "seed", "listed"),
    [
        ("0.00317", "4711", True),
        ("3.17e-3", "4_711", True),
        ("0.001", "42", False),
        ("0.005", "1234", False),
        ("0.0025", "2024", False),
        ("0.00317", "42", False),  # one such number may be chance
        ("0.0035", "17", False),
        ("0.0035", "173", False),
    ],
)
def test_copies_lists_the_same_unusual_numbers(
    strangers: Mapping[str, Source], rate: str, seed: str, listed: bool
) -> None:
    class_ = {
        **strangers,
        "a": with_numbers(0, rate.replace("3.17e-3", "0.00317"), seed.replace("_", "")),
        "b": with_numbers(4, rate, seed),
    }
    found = copies(class_, GIVEN)
    assert groups(found) == ([("a", "b")] if listed else [])
    if listed:
        assert found[0].kind == "same constants"
        assert "0.00317 (line " in " ".join(found[0].evidence)


def test_copies_lists_the_same_odd_messages(strangers: Mapping[str, Source]) -> None:
    more = 'print("now teh traning begins, get yourself a coffe")  # dont forget to set the numbers back before handing in\n'
    class_ = {**strangers, "a": with_numbers(1, "0.001", "1", more), "b": with_numbers(4, "0.01", "2", more)}
    (found,) = copies(class_, GIVEN)
    assert found.students == ("a", "b")
    assert '"now teh traning begins, get yourself a coffe" (line ' in " ".join(found.evidence)
    everybody = {student: of(source.text + more) for student, source in class_.items()}
    assert copies(everybody, GIVEN) == []


def test_copies_counts_no_number_that_many_have(strangers: Mapping[str, Source]) -> None:
    four = {f"s{n}": with_numbers(n, "0.00317", "4711") for n in (0, 2, 4, 6)}
    assert copies({**strangers, **four}, GIVEN) == []
    del four["s6"]
    assert groups(copies({**strangers, **four}, GIVEN)) == [("s0", "s2", "s4")]


def test_copies_does_not_go_by_names_alone(strangers: Mapping[str, Source]) -> None:
    names = "".join(f"名稱{n}的變數 = None\n" for n in range(20))
    named = {"a": with_numbers(1, "0.001", "1", names), "b": with_numbers(4, "0.01", "2", names)}
    assert copies({**strangers, **named}, GIVEN) == []
    odd = {"a": with_numbers(1, "0.003177", "4", names), "b": with_numbers(4, "0.003177", "2", names)}
    assert groups(copies({**strangers, **odd}, GIVEN)) == [("a", "b")]


def test_copies_takes_short_numbers_for_chance_and_arguments_for_no_names(strangers: Mapping[str, Source]) -> None:
    short = "others = [17, 96, 0.45, 0.65, 23, 78, 1100]\n"
    class_ = {**strangers, "a": with_numbers(1, "0.001", "1", short), "b": with_numbers(4, "0.01", "2", short)}
    assert copies(class_, GIVEN) == []
    call = "print(some_keyword=0.00317, other_keyword=4711)\n"
    class_ = {**strangers, "a": with_numbers(1, "0.001", "1", call), "b": with_numbers(4, "0.01", "2", call)}
    (found,) = copies(class_, GIVEN)
    assert "keyword" not in " ".join(found.evidence)


# --- the output, and hostile input


def test_copies_are_the_same_in_any_order(strangers: Mapping[str, Source]) -> None:
    class_ = {**strangers, **{f"copy_{name}": of(disguised(strangers[f"correct/{name}"].text)) for name in COPIED[:4]}}
    expected = copies(class_, GIVEN)
    for seed in range(3):
        order = sorted(class_)
        random.Random(seed).shuffle(order)
        assert copies({student: class_[student] for student in order}, GIVEN) == expected


def test_copies_rows_hold_no_formula() -> None:
    text = copies_csv([Alike(("=cmd", "b"), "same file", ("-1 and more", "Twice; =1."))]).removeprefix("\ufeff")
    header, row = csv.reader(text.splitlines())
    assert header == ["students", "kind", "evidence"]
    assert row == ["'=cmd, b", "same file", "'-1 and more Twice, =1."]


def test_copies_shows_nothing_that_steers_a_terminal(strangers: Mapping[str, Source]) -> None:
    more = 'print("a message \x1b]0;with words\x07 that nobody else in the class has written so")\nseed = 90817\n'
    class_ = {**strangers, "a": with_numbers(1, "0.001", "1", more), "b": with_numbers(4, "0.01", "2", more)}
    (found,) = copies(class_, GIVEN)
    assert "\x1b" not in "".join(found.evidence)
    assert "\\u001b" in "".join(found.evidence)


HOSTILE = {
    "brackets": "(" * 100_000,
    "for": "for " * 50_000,
    "lambda": "lambda " * 30_000,
    "quotes": '"' * 99_999,
    "a string without end": "'''" + "\\" * 99_999,
    "calls": "f(a=" * 50_000,
    "zero bytes": "\x00" * 1000,
    "assignments": "x=" * 90_000,
    "lines": "\n".join(f"a{n} = b{n}.c{n}({n})" for n in range(20_000)),
    "a long number": "9" * 100_000,
    "exponents": "1e" * 50_000,
    "backslashes": "\\\n" * 50_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_copies_reads_any_text(strangers: Mapping[str, Source], text: str) -> None:
    assert copies({**strangers, "hostile": of(text)}, GIVEN) == []
