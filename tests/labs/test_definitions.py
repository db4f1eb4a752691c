"""What a file defines, without what it does, and a model made anew from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unroll.labs.child.definitions import calls_of, definitions
from unroll.labs.child.predict import made
from unroll.labs.source import Source

TEXT = """
from __future__ import annotations
import torch, nothing_of_this_name
from torch import nn
try:
    import seaborn_of_no_such_name
except ImportError:
    pass
a, b = 28, 4 * 8
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
torch.Tensor.__eq__ = None
data = open('x')
class Net(nn.Module):
    def __init__(self, a, wide, deep=2):
        super().__init__()
        self.inner = nn.ModuleList(nn.Linear(a, wide) for _ in range(deep))
def help(): return b
print('runs')
net = Net(a, wide=b)
if __name__ == '__main__':
    late = 3
    print('runs')
for i in range(3):
    c = i
"""


def source(text: str) -> Source:
    return Source(Path("lab.py"), text.encode(), text, text)


def test_definitions_are_run_without_what_the_file_does(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    before = torch.Tensor.__eq__
    exec(definitions(source(TEXT)).text, names)
    assert {"torch", "nn", "a", "b", "device", "Net", "help", "late"} <= names.keys()
    assert not {"data", "net", "c", "i", "nothing_of_this_name"} & names.keys()
    assert torch.Tensor.__eq__ is before
    assert capsys.readouterr().out == ""
    assert calls_of(source(TEXT), "Net") == [(["a"], {"wide": "b"})]


def test_model_is_made_with_the_file_s_arguments_or_by_the_shapes_of_its_weights() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(definitions(source(TEXT)).text, names)
    weights = {name: torch.rand_like(value) for name, value in names["Net"](28, 32).state_dict().items()}
    model = made(source(TEXT), names, "Net", weights)
    assert torch.equal(model.inner[0].weight, weights["inner.0.weight"])  # type: ignore[index,union-attr]
    text = (
        TEXT.replace("Net(a, wide=b)", "Net(*sizes)")
        .replace("wide", "hidden")
        .replace("(self, a,", "(self, input_size,")
    )
    text = text.replace("nn.Linear(a", "nn.Linear(input_size")
    exec(definitions(source(text)).text, names)
    model = made(source(text), names, "Net", weights)
    assert torch.equal(model.inner[1].bias, weights["inner.1.bias"])  # type: ignore[index,union-attr]
    with pytest.raises(ValueError, match="could not be made with the weights"):
        made(source(TEXT), names, "Net", {"inner.0.weight": torch.zeros(7, 7)})
    with pytest.raises(ValueError, match="has no class Other"):
        made(source(TEXT), names, "Other", weights)
