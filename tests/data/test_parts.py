"""Labels and classes."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from unroll.data import parts
from unroll.errors import DataError


@pytest.mark.parametrize(
    ("ordered", "why"),
    [
        (("-1", "2", "10"), "numbers go by value"),
        (("1", "1.0", "2"), "equal numbers go by text"),
        (("1", "10", "2", "nan"), "nan has no place among numbers"),
        (("10", "2", "inf"), "nor has infinity"),
        (("10", "2", "good"), "text goes by alphabet"),
    ],
)
def test_the_order_of_classes_hangs_on_the_names_alone(
    monkeypatch: pytest.MonkeyPatch, ordered: tuple[str, ...], why: str
) -> None:
    # A dictionary keeps the order that it was given, so that it stands for a set under every PYTHONHASHSEED.
    monkeypatch.setattr(parts, "set", dict.fromkeys, raising=False)
    for labels in permutations(ordered):
        assert parts.class_names(labels, Path("a.csv")) == ordered, why


def test_an_amount_below_one_is_a_share_and_from_one_on_a_number():
    assert [parts.amount_of("test", amount, 10) for amount in (0.0, 0.25, 0.5, 1, 1.0, 9)] == [0, 2, 5, 1, 1, 9]
    for amount in (0.01, 0.99, 10):
        with pytest.raises(DataError, match="leaves nothing on one side"):
            parts.amount_of("test", amount, 10)
