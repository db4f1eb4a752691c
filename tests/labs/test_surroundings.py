"""What a student's file finds around it: MNIST, transforms, no windows, no network, no keyboard, no GPU."""

from __future__ import annotations

import builtins
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unroll.data.images import read_part
from unroll.labs.child import execute as execute_module
from unroll.labs.child import transforms
from unroll.labs.child.execute import Outcome, execute
from unroll.labs.child.served import is_installed, make_grid
from unroll.labs.child.surroundings import Surroundings, surroundings
from unroll.labs.source import read_source


def ran(
    folder: Path, text: str, seconds: float | None = None, small: bool = True
) -> tuple[Outcome, dict[str, Any], Surroundings]:
    path = folder / "lab.py"
    path.write_text(text, encoding="utf-8")
    namespace: dict[str, Any] = {}
    with surroundings(path, small=small) as around:
        outcome = execute(read_source(path), namespace, seconds)
        around.keep_open()
    return outcome, namespace, around


def whole(folder: Path, text: str) -> dict[str, Any]:
    outcome, namespace, _ = ran(folder, text)
    assert outcome.error is None
    assert outcome.stopped is None
    return namespace


MNIST = """
import torchvision
from torchvision import datasets, transforms
train = datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test = torchvision.datasets.MNIST('./data', train=False, download=True)
"""


def test_served_mnist_is_the_packaged_one(tmp_path: Path) -> None:
    outcome, names, around = ran(tmp_path, MNIST + "image, label = train[5]\npicture, digit = test[149]", small=False)
    images, labels, _ = read_part(None, "train")
    assert outcome.error is None
    assert len(names["train"]) == 60_000
    assert names["label"] == labels[5]
    assert torch.equal(names["image"], torch.from_numpy(images[5]).float()[None] / 255)
    assert isinstance(names["picture"], Image.Image)
    assert names["picture"].mode == "L"
    assert [part.train for part in around.parts] == [True, False]


def test_served_mnist_is_small_for_a_check_and_has_all_digits(tmp_path: Path) -> None:
    names = whole(tmp_path, MNIST + "far = test[5000]")
    images, labels, _ = read_part(None, "test")
    assert (len(names["train"]), len(names["test"])) == (256, 150)
    assert set(names["test"].targets.tolist()) == set(range(10))
    assert len(list(names["test"])) == 150
    assert np.array_equal(np.asarray(names["far"][0]), images[5000])
    assert names["far"][1] == labels[5000]


def test_served_small_mnist_can_be_split_by_the_whole_one_s_numbers(tmp_path: Path) -> None:
    text = """
from torch.utils.data import DataLoader, Subset, random_split
a, b = random_split(train, [50000, 10000])
c = DataLoader(Subset(train, range(50000)), batch_size=64, num_workers=4, pin_memory=True)
count = sum(len(y) for x, y in c)
"""
    names = whole(tmp_path, MNIST + text)
    assert len(names["a"]) + len(names["b"]) == 256
    assert len(names["b"]) == 43
    assert names["count"] == 256


@pytest.mark.skipif(is_installed(), reason="torchvision itself is there")
def test_served_torchvision_says_what_it_has_not(tmp_path: Path) -> None:
    outcome, _, _ = ran(tmp_path, "import torchvision\ntorchvision.models.resnet18()")
    assert outcome.error is not None
    assert outcome.error["type"] == "AttributeError"
    assert "pip install torchvision" in outcome.error["message"]
    assert outcome.error["line"] == 2
    assert "torchvision" not in sys.modules


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8))


def test_transforms_to_tensor_and_back(picture: Image.Image) -> None:
    values = transforms.to_tensor(picture)
    assert values.shape == (1, 28, 28)
    assert torch.equal(values[0], torch.from_numpy(np.array(picture)).float() / 255)
    assert np.array_equal(np.asarray(transforms.to_pil_image(values)), np.asarray(picture))
    assert torch.equal(transforms.normalize(values, (0.1307,), (0.3081,)), (values - 0.1307) / 0.3081)
    assert torch.equal(transforms.convert_image_dtype(transforms.pil_to_tensor(picture)), values)


def test_transforms_crop_and_pad(picture: Image.Image) -> None:
    values = np.asarray(picture)
    assert np.array_equal(np.asarray(transforms.center_crop(picture, 20)), values[4:24, 4:24])
    assert np.array_equal(np.asarray(transforms.pad(picture, [1, 2, 3, 4])), np.pad(values, ((2, 4), (1, 3))))
    tensor = transforms.pil_to_tensor(picture)
    assert np.array_equal(transforms.pad(tensor, [1, 2, 3, 4])[0].numpy(), np.pad(values, ((2, 4), (1, 3))))
    assert np.array_equal(np.asarray(transforms.hflip(picture)), values[:, ::-1])
    padded = np.pad(values, 4)
    torch.manual_seed(1)
    top, left = int(torch.randint(0, 9, (1,))), int(torch.randint(0, 9, (1,)))
    torch.manual_seed(1)
    found = np.asarray(transforms.RandomCrop(28, padding=4)(picture))
    assert np.array_equal(found, padded[top : top + 28, left : left + 28])


def test_transforms_turn_and_move(picture: Image.Image) -> None:
    values, tensor = np.asarray(picture), transforms.pil_to_tensor(picture)
    for image in (picture, tensor):
        found = np.asarray(transforms.rotate(image, 90)).reshape(28, 28)
        assert np.array_equal(found, np.rot90(values))  # against the clock
        turned = np.asarray(transforms.affine(image, 90, [0, 0], 1.0, 0)).reshape(28, 28)
        assert np.array_equal(turned, np.rot90(values, -1))  # with it
        moved = np.asarray(transforms.affine(image, 0, [2, 3], 1.0, 0)).reshape(28, 28)
        assert np.array_equal(moved[3:, 2:], values[:-3, :-2])
        assert not moved[:3].any()
    assert transforms.Resize((14, 20))(picture).size == (20, 14)
    assert transforms.Resize(14)(tensor).shape == (1, 14, 14)


def test_transforms_random_ones_keep_to_their_ranges(picture: Image.Image) -> None:
    torch.manual_seed(0)
    assert transforms.RandomRotation(0)(picture).tobytes() == picture.tobytes()
    assert transforms.RandomAffine(0, translate=(0.0, 0.0))(picture).tobytes() == picture.tobytes()
    assert transforms.RandomHorizontalFlip(1.0)(picture).tobytes() == transforms.hflip(picture).tobytes()
    assert transforms.RandomHorizontalFlip(0.0)(picture) is picture


def test_transforms_make_grid() -> None:
    pictures = torch.arange(12.0).reshape(3, 1, 2, 2)
    grid = make_grid(pictures, nrow=2, padding=1, pad_value=-1)
    expected = torch.full((7, 7), -1.0)
    expected[1:3, 1:3], expected[1:3, 4:6], expected[4:6, 1:3] = pictures[:, 0]
    assert grid.shape == (3, 7, 7)
    assert torch.equal(grid[0], expected)


GPU = """
import torch
from torch import nn
device = torch.device('cuda')
x = torch.zeros(2, 3, device='cuda:0').to(device).cuda()
model = nn.Linear(3, 2, device=device).to('cuda').cuda()
model.to(device=device)
y = model(torch.randn(2, 3, device='mps').to('mps'))
g = torch.Generator(device='cuda')
model = torch.compile(model)
available = torch.cuda.is_available()
torch.cuda.synchronize()
where = (y.device.type, model.weight.device.type)
"""


def test_surroundings_lead_gpus_to_the_cpu(tmp_path: Path) -> None:
    names = whole(tmp_path, GPU)
    assert names["where"] == ("cpu", "cpu")
    assert names["available"] is False


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("x = 1\ninput('name? ')", "EOFError", "nobody types"),
        ("import urllib.request\nurllib.request.urlopen('http://localhost:9/')", "URLError", "no network"),
        ("import socket\nsocket.create_connection(('localhost', 9))", "RefusedError", "no network"),
    ],
)
def test_surroundings_refuse_in_words_with_the_line(tmp_path: Path, text: str, kind: str, words: str) -> None:
    outcome, _, _ = ran(tmp_path, text)
    assert outcome.error is not None
    assert outcome.error["type"] == kind
    assert words in outcome.error["message"]
    assert outcome.error["line"] == 2


FIGURES = """
import matplotlib
matplotlib.use('TkAgg')
import matplotlib.pyplot as plt
plt.plot([1, 2]); plt.title('losses'); plt.show()
plt.imshow([[1, 2]]); plt.title('digits'); plt.savefig('digits.png')
plt.close()
plt.figure(); plt.plot([1]); plt.title('open')
"""


def test_surroundings_keep_figures(tmp_path: Path) -> None:
    _, _, around = ran(tmp_path, FIGURES)
    assert [[axes.get_title() for axes in figure.axes] for figure in around.figures] == [
        ["losses"],
        ["digits"],
        ["open"],
    ]


def test_surroundings_know_notebooks(tmp_path: Path) -> None:
    text = """
from google.colab import drive
drive.mount('/content/drive')
import os
os.chdir('/content/drive/MyDrive')
get_ipython().run_line_magic('matplotlib', 'inline')
from IPython.display import display, clear_output
from tqdm.notebook import tqdm
count = sum(1 for _ in tqdm(range(3)))
"""
    assert whole(tmp_path, text)["count"] == 3


def test_surroundings_keep_figures_of_a_notebook_that_has_imported_ipython(tmp_path: Path) -> None:
    _, _, around = ran(tmp_path, f"from IPython.display import display\n{FIGURES}")
    assert len(around.figures) == 3


def test_surroundings_leave_scripted_and_traced_modules_as_they_are(tmp_path: Path) -> None:
    text = """
import torch
model = torch.nn.Linear(2, 2)
scripted, traced = torch.jit.script(model), torch.jit.trace(model, torch.zeros(1, 2))
print(torch.cuda.get_device_name(0)); torch.cuda.synchronize()
"""
    names = whole(tmp_path, text)
    assert names["scripted"] is names["traced"] is names["model"]


def test_execute_awaits_at_the_top_of_a_notebook_alone(tmp_path: Path) -> None:
    text = "import asyncio\nasync def three(): return 3\nvalue = await three()"
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": text}
    path = tmp_path / "lab.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    namespace: dict[str, Any] = {}
    assert execute(read_source(path), namespace).error is None
    assert namespace["value"] == 3
    assert (ran(tmp_path, text)[0].error or {})["type"] == "SyntaxError"


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.set_grad_enabled(False)",
        "import torch\nkept = torch.no_grad()\nkept.__enter__()",
        "import torch\ntorch.set_default_dtype(torch.float64)",
    ],
)
def test_execute_restores_the_switches_of_torch(text: str, tmp_path: Path) -> None:
    ran(tmp_path, text)
    assert torch.is_grad_enabled()
    assert torch.zeros(1).dtype == torch.float32


def test_surroundings_fix_generators(tmp_path: Path) -> None:
    text = "import torch, random, numpy\nvalues = (torch.rand(1).item(), random.random(), numpy.random.rand())"
    assert whole(tmp_path, text)["values"] == whole(tmp_path, text)["values"]


def test_surroundings_run_in_an_empty_folder_and_find_modules_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "beside_the_lab.py").write_text("value = 3", encoding="utf-8")
    text = "import os\nfrom beside_the_lab import value\nthere = os.listdir()\nopen('made.txt', 'w').close()\nhere = os.getcwd()"
    names = whole(tmp_path, text)
    del sys.modules["beside_the_lab"]
    assert names["value"] == 3
    assert names["there"] == []
    assert not Path(names["here"]).exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix) == ["beside_the_lab.py", "lab.py"]


def test_surroundings_are_undone(tmp_path: Path) -> None:
    def state() -> list[Any]:
        things = (
            builtins.input,
            socket.socket.connect,
            torch.zeros,
            torch.Tensor.to,
            torch.nn.Module.cuda,
            torch.compile,
        )
        return [*things, os.getcwd(), list(sys.path), torch.get_default_dtype(), sys.modules["__main__"], sys.stdout]

    before = state()
    ran(
        tmp_path,
        "import torch, os, sys\ntorch.set_default_dtype(torch.float64)\nos.chdir('/')\nsys.path.append('x')\n1 / 0",
    )
    assert state() == before
    assert not hasattr(builtins, "get_ipython")


def test_execute_runs_as_a_script_does(tmp_path: Path) -> None:
    text = """
import inspect, pickle, sys
class A:
    pass
def f():
    return 1  # here
if __name__ == '__main__':
    source = inspect.getsource(f)
    whole = inspect.getsource(A)
    copy = pickle.loads(pickle.dumps(A()))
    print('done', file=sys.stderr)
    sys.exit(0)
late = 1
"""
    outcome, names, _ = ran(tmp_path, text)
    assert outcome.error is None
    assert "# here" in names["source"]
    assert names["whole"] == "class A:\n    pass\n"
    assert type(names["copy"]) is names["A"]
    assert outcome.printed == "done\n"
    assert "late" not in names


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("a = 1\ndef f():\n    raise NotImplementedError('gap')\nf()", "NotImplementedError", 3),
        ("a = 1\nif a:\nb = 2", "IndentationError", 3),
        ("import torch\ntorch.zeros(2) @ torch.zeros(3)", "RuntimeError", 2),
        ("class E(Exception):\n    def __str__(self):\n        1 / 0\nraise E", "E", 4),
    ],
)
def test_execute_tells_errors_with_their_lines(tmp_path: Path, text: str, kind: str, line: int) -> None:
    outcome, names, _ = ran(tmp_path, text)
    assert outcome.error is not None
    assert (outcome.error["type"], outcome.error["line"]) == (kind, line)
    assert names.get("a", 1) == 1


LOOPS = [
    "defined = 1\nwhile True:\n    pass",
    "defined = 1\nimport time\ntime.sleep(1000)",
    "defined = 1\nwhile True:\n    try:\n        while True:\n            try:\n                x = 1\n            except:\n"
    "                pass\n    except BaseException:\n        continue\n    finally:\n        x = 2",
]


@pytest.mark.parametrize("text", LOOPS)
def test_execute_stops_what_does_not_end(tmp_path: Path, text: str) -> None:
    outcome, names, _ = ran(tmp_path, text, seconds=0.3)
    assert outcome.stopped == "time"
    assert outcome.line is not None
    assert outcome.error is None
    assert names["defined"] == 1


def test_execute_stops_without_alarms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute_module, "SIGNAL", None)
    assert ran(tmp_path, LOOPS[2], seconds=0.3)[0].stopped == "time"


def test_execute_bounds_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute_module, "MOST_PRINTED", 1000)
    outcome, _, _ = ran(tmp_path, "print('first')\nfor i in range(10000):\n    print(i)")
    assert outcome.printed.startswith("first\n")
    assert outcome.printed.endswith("9999\n")
    assert len(outcome.printed) < 2000
