"""What a test says, on an example counted by hand."""

import math

import pytest
import torch
from scipy.stats import binomtest

from unroll.heads import Classification, wilson


def test_accuracy_classes_and_confusion_of_an_example_counted_by_hand():
    y = torch.tensor([0, 0, 1, 1, 1, 2])
    read_as = torch.tensor([0, 1, 1, 1, 0, 2])
    p = torch.nn.functional.one_hot(read_as, 4) * 0.6 + 0.1
    found = Classification(4).metrics(p, y, ("a", "b", "c", "d"))
    assert (found["correct"], found["total"], found["accuracy"]) == (4, 6, 4 / 6)
    assert found["confusion"] == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert found["per_class"]["b"] == {"correct": 2, "total": 3, "accuracy": 2 / 3}
    assert found["per_class"]["d"] == {"correct": 0, "total": 0, "accuracy": None}
    assert found["loss"] == pytest.approx(-(4 * math.log(0.7) + 2 * math.log(0.1)) / 6)


def test_confusion_has_the_true_classes_as_rows_and_what_they_were_read_as_as_columns():
    p = torch.tensor([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.7, 0.2]])
    found = Classification(3).metrics(p, torch.tensor([0, 0, 0, 2]), ("a", "b", "c"))
    assert found["confusion"] == [[1, 2, 0], [0, 0, 0], [0, 1, 0]]
    assert [found["per_class"][name]["total"] for name in "abc"] == [3, 0, 1]
    assert [found["per_class"][name]["accuracy"] for name in "abc"] == [1 / 3, None, 0.0]


@pytest.mark.parametrize(("correct", "total"), [(9814, 10000), (0, 10), (10, 10), (5, 7)])
def test_the_interval_is_wilsons(correct, total):
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_balanced_weights_of_a_class_that_is_absent_are_finite():
    head = Classification(3, balanced=True)
    head.fit_to(torch.tensor([0, 0, 0, 1]))
    assert head.class_weights.tolist() == pytest.approx([4 / 9, 4 / 3, 4 / 3])
    assert head.weight(torch.tensor([0, 1])) == pytest.approx(4 / 9 + 4 / 3)
    plain = Classification(3)
    plain.fit_to(torch.tensor([0, 1]))
    assert plain.class_weights is None
    assert plain.weight(torch.tensor([0, 1])) == 2.0
