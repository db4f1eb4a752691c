"""docs/questions.md says what the files under docs/evidence say, and nothing was typed in by hand."""

from __future__ import annotations

import json
import re

import evidence as script
import pytest


@pytest.fixture(scope="module")
def template() -> str:
    return script.TEMPLATE.read_text(encoding="utf-8")


def test_the_page_is_the_template_with_the_numbers_of_the_result_files(template: str):
    assert script.PAGE.read_text(encoding="utf-8") == script.render(template, script.load_evidence()), (
        "docs/questions.md differs from its template and docs/evidence; write it anew with: "
        "python benchmarks/evidence.py --text"
    )


def test_a_changed_result_changes_the_page(template: str):
    evidence = script.load_evidence()
    before = script.render(template, evidence)
    evidence["memory"]["adding"]["lstm"]["100"]["sequences"] += 1
    assert script.render(template, evidence) != before


def test_no_percentage_and_no_measured_decimal_is_typed_into_the_template(template: str):
    prose = re.sub(r"\{\{[^{}]+\}\}|\$\$.*?\$\$|\$[^$]*\$", "", template, flags=re.DOTALL)
    published = {"25%", "10%", "99%", "99.9%", "95%", "0.04"}  # what guessing gives, and what counts as solved
    found = set(re.findall(r"\d+(?:\.\d+)?%|\d+\.\d+", prose)) - published
    assert not found


def test_every_figure_on_the_page_is_there_and_every_figure_that_is_there_is_shown():
    shown = set(re.findall(r"\]\(evidence/(\w+\.png)\)", script.PAGE.read_text(encoding="utf-8")))
    assert shown == {path.name for path in script.OUT.glob("*.png")}
    assert len(shown) >= 6


def test_a_placeholder_that_names_nothing_is_an_error():
    assert script.render("{{a.b.1:.1%}} {{a.c}}", {"a": {"b": [0, 0.123], "c": None}}) == "12.3% –"
    for wrong in ("{{a.x}}", "{{a.b.7}}", "{{b}}"):
        with pytest.raises(KeyError, match="nothing is called"):
            script.render(wrong, {"a": {"b": [0]}})


def test_ratios_are_shown_as_powers_of_ten():
    assert script.render("{{a:power}}", {"a": 3.1e-11}) == "10⁻¹¹"
    assert script.render("{{a:power}}", {"a": 2e50}) == "10⁵⁰"


def test_the_result_files_are_json_that_every_reader_takes():
    files = sorted(script.OUT.glob("*.json"))
    assert {path.stem for path in files} >= {"states", "gates", "gradients", "ablation", "memory", "rows", "machine"}
    for path in files:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)  # it is called for NaN and Infinity


def test_the_memory_recipes_on_file_are_those_in_use():
    from unroll.insight.memory import RECIPES

    on_file = script.load_evidence()["memory"]["recipes"]
    assert on_file == {f"{task}-{cell}": vars(recipe) for (task, cell), recipe in RECIPES.items()}
