"""The figures of a search say what they show, however few the trials are."""

import pytest

from unroll.report.study import draw_history, draw_parallel
from unroll.training.recipe import load_recipe


def found(count):
    fields = [{"hidden_size": 64 + 32 * (n % 3), "learning_rate": 0.001 * (n + 1)} for n in range(count)]
    return {
        "study": "mine",
        "recipe": load_recipe("lstm-mnist").model_dump(),
        "space": {"hidden_size": "64..128 step 32", "learning_rate": "0.001..0.01 log"},
        "importance": {},
        "trials": [
            {"number": n, "state": "complete", "accuracy": 0.9 + 0.01 * n, "fields": values}
            for n, values in enumerate(fields)
        ],
    }


@pytest.mark.parametrize(
    ("count", "title"),
    [
        (1, "mine: 1 complete trial; orange: the best"),
        (3, "mine: 3 complete trials; orange: the best, blue: the 2 after it"),
        (8, "mine: 8 complete trials; orange: the best, blue: the 4 after it"),
    ],
)
def test_the_title_counts_the_lines_that_are_there(count, title):
    axes = draw_parallel(found(count)).axes[0]
    assert axes.get_title() == title
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(lines) == count
    widths = [line.get_linewidth() for line in lines]
    assert widths.count(1.6) == min(5, count)


def test_trials_are_counted_in_whole_numbers():
    figure = draw_history(found(3))
    figure.canvas.draw()
    assert all(float(place).is_integer() for place in figure.axes[0].get_xticks())
