"""Cells of one's own from the shell: run once, by train, and read from the run's files ever after."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import unroll
from unroll.cells.own import check_own, load_own, own_type
from unroll.cli import cli, main
from unroll.equations import read
from unroll.equations.cell import ProgramCell
from unroll.errors import InputError, RecipeError, RunError
from unroll.files import load_header, load_tensors, save_tensors
from unroll.options import with_places
from unroll.training import callbacks
from unroll.training.recipe import load_recipe, parse_recipe
from unroll.training.run import FIRST, RunFolder, before_training, evaluate, load
from unroll.training.tasks import first_model
from unroll.training.train import prepare, train

SOURCE = """\
import torch
from torch import nn

print("ran")

class Leaky(nn.Module):
    def __init__(self, D, H):
        super().__init__()
        self.hidden_size = H
        self.gates = nn.Linear(D + H, 2 * H)
        self.norm = nn.LayerNorm(H)

    def forward(self, x, h):
        z, n = self.gates(torch.cat([x, h], 1)).chunk(2, -1)
        z = torch.sigmoid(z)
        n = torch.tanh(self.norm(n))
        return (1 - z) * h + z * n


class Dropping(Leaky):
    def forward(self, x, h):
        return super().forward(x, nn.functional.dropout(h, 0.5, self.training))


class Noisy(Leaky):
    def forward(self, x, h):
        return super().forward(x, h) + 0 * torch.rand_like(h)


class Words(Leaky):
    def forward(self, x, h):
        return super().forward(nn.functional.one_hot(x, 3), h)


class Narrow(Leaky):
    def forward(self, x, h):
        return super().forward(x, h)[:, 1:]


class Choosy(Leaky):
    def __init__(self, D, H):
        raise ValueError(f"{D} features are too many")


class Sizeless(nn.Module):
    def forward(self, x, h):
        return h


class Stateless(nn.Module):
    hidden_size = 3

    def forward(self, x):
        return x


def leaky(D, H):
    return Leaky(D, H)


number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_cell.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    monkeypatch.setattr("unroll.cells.own._loaded", {})


@pytest.fixture
def ran(tiny_recipe, file, tmp_path, monkeypatch, capsys):
    """A function that trains a class of the file, and gives folder, printed lines and metrics."""

    def run(name="Leaky", kind="series", where="run", **changes):
        recipe = tiny_recipe(kind, cell=f"{file}:{name}", epochs=2, **changes)
        dataset, lines = prepare(recipe), []
        assert capsys.readouterr().out == "ran\n"
        folder = RunFolder.create(tmp_path / where, recipe, {})
        metrics = train(recipe, folder, echo=lines.append, dataset=dataset)
        assert capsys.readouterr().out == ""  # the file is run once
        return folder, lines, metrics

    return run


# --------------------------------------------------------------------------------------------------------- a whole run


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("series", {}),
        ("images", {"num_layers": 2, "bidirectional": True}),
        ("sentences", {"embedding_size": 4, "weight_average": 0.9}),
        ("series", {"engine": "reference"}),
    ],
)
def test_own_cell_predicts_the_same_when_its_file_is_gone(ran, file, kind, changes):
    folder, lines, metrics = ran(kind=kind, **changes)
    engine = changes.get("engine", "native")
    assert f"Cell Leaky: the {engine} engine runs its step program, 23 operations" in lines
    file.unlink()
    found = evaluate(folder.path)
    for name in ("accuracy", "loss", "confusion"):
        assert found[name] == metrics["test"][name]
    classifier = load(folder.path)
    assert unroll.load(folder.path / "model.safetensors").recipe == classifier.recipe
    assert {type(cell) for row in classifier.model.layers.cells for cell in row} == {ProgramCell}
    names = [name for name, _ in classifier.model.layers.cells[0][0].named_parameters()]
    assert names == ["module.gates.weight", "module.gates.bias", "module.norm.weight", "module.norm.bias"]
    assert str(read(classifier.model.layers.cells[0][0])).split("\n")[-1] == "h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ n_t"


@pytest.mark.slow
def test_own_cell_from_the_shell(file, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", "lstm-series", "--data", tiny.series, "--cell", "my_cell.py:Leaky", "--epochs", "1"]
    command += [
        "--hidden-size",
        "3",
        "--fill-missing",
        "mean",
        "--batch-size",
        "5",
        "--patience",
        "none",
        "--out",
        "run",
    ]
    cli.main(args=[*command, "--bidirectional", "false"], standalone_mode=False)
    assert "Cell Leaky: the native engine runs its step program, 23 operations\n" in capsys.readouterr().out
    assert RunFolder("run").recipe.cell == f"{file}:Leaky"  # found again from any folder
    file.write_text("raise SystemExit('nobody asked for this')")
    for words in (["evaluate", "run"], ["look", "run", "--number", "0"], ["gradients", "run"], ["report", "run"]):
        cli.main(args=words, standalone_mode=False)
        assert "nobody" not in capsys.readouterr().out
    with pytest.raises(InputError, match="only the LSTM has gates to remove, and the cell is Leaky"):
        cli.main(args=["ablate", "run"], standalone_mode=False)


def test_own_cell_may_be_a_function_and_follows_the_seed(tiny_recipe, file):
    def weights(**changes):
        recipe = tiny_recipe("series", **{"cell": f"{file}:leaky"} | changes)
        dataset = prepare(recipe)
        torch.rand(3)  # what was drawn before does not matter
        return first_model(recipe, dataset.encoder).state_dict()

    one, two, other = weights(), weights(cell=f"{file}:Leaky"), weights(seed=1)
    assert all(torch.equal(one[name], two[name]) for name in one)
    name = "layers.cells.0.0.module.gates.weight"
    assert not torch.equal(one[name], other[name])


def test_own_cell_reads_words_only_if_it_can(tiny_recipe, file):
    with pytest.raises(InputError, match=r"Leaky computes no step: .*my_cell.py:14\).*give --embedding-size"):
        prepare(tiny_recipe("sentences", cell=f"{file}:Leaky"))


# ------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("epoch", [1, 2])
def test_own_cell_goes_on_from_its_program(ran, file, tmp_path, monkeypatch, capsys, engine, epoch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_SAVES", 0.0 if epoch == 2 else 1e9)
    whole, _, _ = ran(engine=engine, where="whole")
    recipe = whole.recipe

    def interrupt(row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    folder = RunFolder.create(tmp_path / "parted", recipe, {})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, echo=str, dataset=prepare(recipe), on_epoch=interrupt)
    assert (folder.path / "resume.safetensors").is_file() == (epoch == 2)
    capsys.readouterr()
    monkeypatch.setattr("unroll.cells.own._loaded", {})
    file.write_text("raise SystemExit('nobody asked for this')")
    lines = []
    train(folder.recipe, RunFolder(folder.path), echo=lines.append, resume=True)
    assert "Cell Leaky: the native engine runs its step program, 23 operations" in lines or engine == "reference"
    for name in ("model.safetensors", FIRST, "predictions.npz"):
        assert (folder.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Dropping", "its cell has a step program for evaluation only"),
        ("Noisy", r"its cell is no step program \(.*my_cell.py:27: rand_like draws random numbers of its own\)"),
    ],
)
def test_own_cell_without_a_program_is_not_gone_on_with(ran, file, name, why):
    folder, _, _ = ran(name)
    (folder.path / "metrics.json").unlink()
    with pytest.raises(RunError, match=f"cannot be resumed: {why}"):
        train(folder.recipe, folder, echo=str, resume=True)
    (folder.path / FIRST).unlink()
    with pytest.raises(RunError, match=f"{FIRST} does not exist, so that the cell is known by its source alone"):
        train(folder.recipe, folder, echo=str, resume=True)


def test_own_cell_before_training_is_in_the_folder(ran, file):
    folder, _, _ = ran()
    expected = first_model(folder.recipe, load(folder.path).encoder).state_dict()
    file.unlink()
    found = before_training(folder.path, load(folder.path)).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not torch.equal(found["W_out"], load(folder.path).model.state_dict()["W_out"])


# ----------------------------------------------------------------------------------- cells that are no step program


def test_own_cell_with_random_numbers_is_trained_by_its_own_step(ran, file):
    folder, lines, metrics = ran("Dropping")
    said = next(line for line in lines if line.startswith("Cell"))
    place = f"{file}:22: dropout draws random numbers of its own"
    assert said == f"Cell Dropping: the reference engine runs its own step: {place}"
    file.unlink()
    assert evaluate(folder.path)["accuracy"] == metrics["test"]["accuracy"]  # evaluation drops nothing


def test_own_cell_that_cannot_be_read_is_loaded_with_its_class_alone(ran, file):
    folder, lines, _ = ran("Noisy")
    assert f"Cell Noisy: the reference engine runs its own step: {file}:27: rand_like draws" in "\n".join(lines)
    with pytest.raises(RunError, match=r"does not hold its cell, which is no step program .*cell=Noisy\)"):
        load(folder.path)
    kind = own_type(folder.recipe.cell)
    made = load(folder.path, cell=kind)
    saved = load_tensors(folder.path / "model.safetensors")[0]
    assert all(torch.equal(saved[name], value) for name, value in made.model.state_dict().items())


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            "nowhere.py:Leaky",
            "the cell's file .*nowhere.py cannot be read: No such file or directory; expected FILE.py:CLASS",
        ),
        ("my_cell.py:Leeky", "my_cell.py has no class or function 'Leeky'; did you mean 'Leaky'?"),
        ("my_cell.py:number", "my_cell.py has no class or function 'number'; known: .*Choosy.*Words"),
        ("my_cell.py:Choosy", r"Choosy\(\d+, 5\) fails: ValueError: \d+ features are too many \(.*my_cell.py:42\)"),
        (
            "my_cell.py:Narrow",
            r"Narrow.forward \(\S*my_cell.py:36\) returned \[\(2, 4\)\]; expected the new state, \[\(2, 5\)\]",
        ),
        ("my_cell.py:Words", r"Words computes no step: .*my_cell.py:32\)"),
        ("my_cell.py:Sizeless", r"Sizeless\(\d+, 5\) fails: TypeError: "),
        ("my_cell.py:Stateless", r"Stateless\(\d+, 5\) fails: TypeError: "),
    ],
)
def test_own_cell_that_does_not_fit_is_refused_before_there_is_a_run(tiny_recipe, file, cell, message):
    recipe = tiny_recipe("series", cell=f"{file.parent}/{cell}")
    with pytest.raises(InputError, match=message) as raised:
        prepare(recipe)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def __init__(self, D, H): raise SystemExit(4)", r"A\(\d+, 5\) fails: SystemExit: 4 \(.*my_cell.py:5\)"),
        ("def forward(self, x, h): raise SystemExit(4)", r"A computes no step: SystemExit: 4 \(.*my_cell.py:5\)"),
        (
            "def forward(self, x, h): return h.half()",
            r"A goes from a state of \['torch.float32'\] to \['torch.float16'\]",
        ),
    ],
)
def test_own_cell_that_leaves_or_changes_the_type_is_refused(tiny_recipe, file, body, message):
    file.write_text(
        "from torch import nn\n\nclass A(nn.Module):\n"
        "    def __new__(cls, D, H): made = super().__new__(cls); made.__dict__['hidden_size'] = H; return made\n"
        f"    {body}\n" + ("" if "__init__" in body else "    def __init__(self, D, H): super().__init__()\n")
    )
    with pytest.raises(InputError, match=message):
        prepare(tiny_recipe("series", cell=f"{file.parent}/my_cell.py:A"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class A(:\n", r"cannot be run: SyntaxError: invalid syntax \(.*my_cell.py:1\)"),
        ("\n1 / 0\n", r"cannot be run: ZeroDivisionError: division by zero \(.*my_cell.py:2\)"),
        ("raise SystemExit(3)", "cannot be run: SystemExit: 3"),
        ("import no_such_module", "cannot be run: ModuleNotFoundError"),
        ("x = 1", "has no class or function 'A'; it defines no class at all"),
        (b"\xff\xfe\x00", "cannot be run: "),
        ("A = lambda D, H: 3", "the cell is 3; expected a module that computes one time step"),
        (
            "from torch import nn\nclass A(nn.Module):\n  def __init__(self, D, H): super().__init__()\n"
            "  def forward(self, x, h): return h\n",
            r"A has no hidden_size; .*my_cell.py:4\)",
        ),
        (
            "import torch\nfrom unroll.cells import Cell\nclass A(Cell):\n"
            "  input_size, state_sizes, state_names = 5, (5,), ('h',)\n"
            "  def __init__(self, D, H): super().__init__()\n  def forward(self, x, h): return h[:, :2]\n",
            r"A goes from a state of shapes \[\(2, 5\)\] to \[\(2, 2\)\]; expected \[\(2, 5\)\] \(.*my_cell.py:6\)",
        ),
    ],
)
def test_own_cell_file_that_cannot_be_used_is_refused(file, source, message):
    file.write_bytes(source if isinstance(source, bytes) else source.encode())

    def use():
        load_own(f"{file}:A")
        check_own(f"{file}:A", 5, 5, words=False)

    with pytest.raises(InputError, match=message):
        use()


def test_own_cell_file_is_read_anew(file):
    load_own(f"{file}:Leaky")
    before = own_type(f"{file}:Leaky")
    file.write_text("def Leaky(D, H): pass")
    load_own(f"{file}:Leaky")
    assert own_type(f"{file}:Leaky") is not before


def test_own_cell_imports_what_stands_beside_it(file):
    (file.parent / "helper_of_my_cell.py").write_text("size = 5")
    file.write_text("import helper_of_my_cell\ndef A(D, H): return helper_of_my_cell.size")
    load_own(f"{file}:A")
    assert own_type(f"{file}:A")(1, 1) == 5


def test_own_cell_error_is_one_line_and_status_2(file, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["train", "lstm-mnist", "--cell", f"{file}:Leeky", "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"unroll: {file} has no class or function 'Leeky'; did you mean 'Leaky'?\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("cell", ["my_cell.py", "my_cell.txt:A", "my_cell.py:", "my_cell.py:1A", ":A", ".py:A", 3])
def test_own_cell_has_one_form(cell):
    with pytest.raises(RecipeError, match=r"cell is .*; expected "):
        parse_recipe({"task": "images", "cell": cell}, "tiny")


def test_own_cell_in_a_recipe_runs_nothing(file, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(f"task: images\ncell: {file}:Leaky\n")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert with_places(recipe) == recipe
    with pytest.raises(InputError, match="is code in a file, which only training a recipe runs"):
        own_type(recipe.cell)
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["cells"].pop(), r"is damaged: it has cells for \[\] layers and directions; expected \[1\]"),
        (lambda data: data["cells"][0].append(data["cells"][0][0]), r"it has cells for \[2\]"),
        (lambda data: data.pop("cells"), r"it has cells for \[\]"),
        (lambda data: data.update(cells={"a": 1}), "cells"),
        (lambda data: data["cells"][0][0]["evaluation"].update(version=2), "is of version 2; expected 1"),
        (lambda data: data["cells"][0][0]["evaluation"].update(new=[999]), "the step program is damaged"),
        (lambda data: data["cells"][0][0]["parameters"].pop("module.norm.bias"), "has no parameter 'module.norm.bias'"),
        (lambda data: data["cells"][0][0]["parameters"].update(more=[3]), "belongs to another architecture"),
        (lambda data: data["recipe"].update(cell="lstm"), "belongs to another run|holds cells beside the cell lstm"),
    ],
)
def test_hostile_own_cells_are_one_line(ran, tmp_path, change, message):
    folder, _, _ = ran()
    path = folder.path / "model.safetensors"
    tensors, metadata = load_tensors(path)
    changed = json.loads(json.dumps(metadata))
    change(changed)
    shutil.copy(path, alone := tmp_path / "alone.safetensors")
    save_tensors(alone, tensors, changed)
    with pytest.raises((RunError, InputError), match=message) as raised:
        load(alone)
    assert "\n" not in str(raised.value)


def test_hostile_own_cell_reads_other_features_than_the_data_have(ran, tmp_path):
    folder, _, _ = ran()
    other, _, _ = ran(where="other", ignore="a")
    tensors, metadata = load_tensors(folder.path / "model.safetensors")
    metadata["cells"] = load_header(other.path / "model.safetensors")[1]["cells"]
    save_tensors(tmp_path / "mixed.safetensors", tensors, metadata)
    with pytest.raises(RunError, match="a cell of it reads 4 features; expected 5"):
        load(tmp_path / "mixed.safetensors")


def test_cells_of_this_package_leave_no_program_behind(tiny_recipe, tmp_path):
    recipe = tiny_recipe("series", cell="gru", epochs=1)
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    train(recipe, folder, echo=str)
    assert "cells" not in load_header(folder.path / "model.safetensors")[1]
    assert not (folder.path / FIRST).exists()
