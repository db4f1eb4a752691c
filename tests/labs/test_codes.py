"""Every code of the check is documented, with its title, and has a hint that does not give the message away."""

from pathlib import Path

from unroll.labs import check
from unroll.labs.judge import cell, classifier, key, script, training

PAGE = Path(__file__).parents[2] / "docs" / "labs" / "check.md"
GROUPS = {
    "The file": check.OF_FILE,
    "The cell": cell.CODES,
    "The cell beside a key of another lab": key.CODES,
    "The classifier": classifier.CODES,
    "The training loop, the testing loop and the pictures": training.CODES,
    "The script in class": script.CODES,
}


def tables() -> str:
    """The tables of codes, as the page has them."""
    lines = []
    for title, codes in GROUPS.items():
        lines += [f"### {title}", "", "| code | what is wrong |", "| --- | --- |"]
        lines += [f"| `{c}` | {'remark: ' * (c in check.REMARKS)}{one.title} |" for c, one in codes.items()]
        lines.append("")
    return "\n".join(lines)


def test_codes_are_documented_with_their_titles() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(tables())


def test_codes_are_one_kind_of_problem_each() -> None:
    assert sum(map(len, GROUPS.values())) == len(check.CODES)
    assert set(check.CODES) >= check.REMARKS
    assert check.UNREAD <= check.REMARKS
    assert set(check.CODES) >= check.NOTHING


def test_codes_of_problems_have_hints() -> None:
    assert [code for code, one in check.CODES.items() if code not in check.REMARKS and not one.hints] == []
