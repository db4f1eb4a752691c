"""Searches: from the command to the best recipe, interrupted, extended, refused; on pictures made here."""

import io
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from unroll.errors import InputError
from unroll.training.recipe import load_recipe
from unroll.tuning import worker
from unroll.tuning.study import (
    GRACE,
    Plan,
    best_recipe,
    importance,
    open_study,
    storage_url,
    summary,
    text_summary,
    usable,
)

FIELDS = {
    "name": "bars",
    "task": "images",
    "hidden_size": 8,
    "learning_rate": 0.02,
    "batch_size": 20,
    "epochs": 3,
    "validation": 0.25,
    "space": {"learning_rate": "0.001..0.05 log", "hidden_size": "4..12 step 4", "optimizer": ["sgd", "adamw"]},
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory, bars_folder):
    path = tmp_path_factory.mktemp("recipe") / "bars.yaml"
    path.write_text(yaml.safe_dump({**FIELDS, "data": str(bars_folder)}))
    return path


def command(*arguments):
    return [sys.executable, "-m", "unroll", "tune", *map(str, arguments)]


def tune(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=ENVIRONMENT)


def trials_of(folder):
    """The study's trials as another program sees them."""
    path = f"sqlite:///{folder / 'study.db'}"
    return optuna.load_study(study_name=folder.name, storage=path).get_trials(deepcopy=False)


def states(folder):
    return [trial.state.name for trial in trials_of(folder)]


@pytest.fixture(scope="module")
def finished(recipe_file, tmp_path_factory):
    """A study of 10 trials by two workers: its folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("tuning") / "bars"
    done = tune(recipe_file, "--trials", 10, "--workers", 2, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout.splitlines()


@pytest.mark.slow
def test_a_study_has_as_many_trials_as_asked_for_and_says_which_was_best(finished):
    folder, lines = finished
    ended = [t for t in trials_of(folder) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(ended) == 10
    best = max((t for t in ended if t.state == TrialState.COMPLETE), key=lambda t: t.value)
    complete = sum(t.state == TrialState.COMPLETE for t in ended)
    assert lines[0] == f"10 trials: {complete} complete, {10 - complete} pruned"
    assert lines[1] == f"Best held-out accuracy: {100 * best.value:.2f}% (trial {best.number})"
    assert lines[-1] == f"Best recipe: {folder / 'best.yaml'}"


@pytest.mark.slow
def test_the_first_trial_is_the_recipe_itself(finished):
    first = trials_of(finished[0])[0]
    assert first.params == {"hidden_size": 8, "learning_rate": 0.02, "optimizer": "adamw"}


@pytest.mark.slow
def test_the_score_is_the_held_out_accuracy_of_a_training_with_these_values(finished, recipe_file, tmp_path):
    from unroll.training.run import RunFolder
    from unroll.training.train import train

    trial = next(t for t in trials_of(finished[0]) if t.state == TrialState.COMPLETE)
    recipe = load_recipe(str(recipe_file), trial.params)
    metrics = train(recipe, RunFolder.create(tmp_path / "run", recipe, {}), echo=lambda line: None, test=False)
    assert metrics["validation"]["accuracy"] == trial.value


@pytest.mark.slow
def test_the_best_recipe_is_one_that_train_takes_and_holds_out_what_the_recipe_did(finished):
    folder, _ = finished
    best = max((t for t in trials_of(folder) if t.state == TrialState.COMPLETE), key=lambda t: t.value)
    recipe = load_recipe(str(folder / "best.yaml"))
    assert {name: getattr(recipe, name) for name in best.params} == best.params
    assert (recipe.name, recipe.epochs, recipe.validation) == ("bars-best", 3, 0.25)


@pytest.mark.slow
def test_the_figures_are_drawn(finished):
    folder, lines = finished
    drawn = [line.removeprefix("Figure: ") for line in lines if line.startswith("Figure: ")]
    names = [os.path.basename(path) for path in drawn]
    values = [t.value for t in trials_of(folder) if t.state == TrialState.COMPLETE]
    enough = len(values) >= 8 and len(set(values)) > 1  # to say what mattered
    assert names == ["history.png", *(["importance.png"] if enough else []), "parallel.png"]
    for path in drawn:
        with open(path, "rb") as file:
            assert file.read(4) == b"\x89PNG"


@pytest.mark.slow
def test_the_same_command_again_trains_nothing_and_says_the_same(finished, recipe_file):
    folder, lines = finished
    before = states(folder)
    again = tune(recipe_file, "--trials", 10, "--out", folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == lines
    assert states(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_study_goes_on_and_loses_the_running_trial_only(how, recipe_file, tmp_path):
    folder = tmp_path / "bars"
    arguments = (recipe_file, "--trials", 3, "--epochs", 400, "--space", "hidden_size=8,12", "--out", folder)
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while not (folder / "trials.json").exists() and "RUNNING" not in states_or_none(folder)[1:]:
        assert process.poll() is None
    workers = {int(t.user_attrs["worker"].split()[-1]) for t in trials_of(folder) if "worker" in t.user_attrs}
    process.send_signal(how)
    said = process.communicate()[1]
    while any(map(alive, workers)):  # no worker outlives its leader
        pass
    if how == signal.SIGINT:
        assert (process.returncode, said) == (130, "interrupted; the same command goes on\n")
        assert "RUNNING" not in states(folder)
    kept = [(t.number, t.params, t.value) for t in trials_of(folder) if t.state == TrialState.COMPLETE]
    assert kept
    with sqlite3.connect(folder / "study.db") as database:  # as if half a minute had passed without a sign of life
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-31 seconds')")
    database.close()

    done = tune(*arguments)
    assert done.returncode == 0, done.stderr
    assert [(t.number, t.params, t.value) for t in trials_of(folder) if t.state == TrialState.COMPLETE][
        : len(kept)
    ] == kept
    assert sum(state in ("COMPLETE", "PRUNED") for state in states(folder)) == 3
    assert states(folder).count("FAIL") <= 1


def alive(process):
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")


def states_or_none(folder):
    try:
        return states(folder)
    except (KeyError, SQLAlchemyError):  # the database is still being made
        return []


# ------------------------------------------------------------------------------------------- what is refused


def refused(*arguments):
    done = tune(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.rstrip()


@pytest.mark.slow
def test_a_study_of_another_recipe_is_left_alone(finished, recipe_file):
    folder, _ = finished
    before = states(folder)
    said = refused(recipe_file, "--trials", 12, "--epochs", 2, "--out", folder)
    assert said == (
        f"unroll: study bars in {folder / 'study.db'} belongs to another recipe: epochs is 3 there and 2 here; "
        "name another folder with --out"
    )
    said = refused(recipe_file, "--trials", 12, "--space", "hidden_size=4,8", "--out", folder)
    assert "the space of hidden_size is 4..12 step 4 there and [4, 8] here" in said
    assert states(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", 0], "unroll: Invalid value for '--trials': 0 is not in the range 1<=x<=1000000."),
        (["--space", "epochs=3..2"], "unroll: --space: epochs runs from 3 to 2; expected the smaller number first"),
        (
            ["--space", "hiden_size=3..5"],
            "unroll: --space: images have no hyperparameter 'hiden_size'; did you mean 'hidden_size'?",
        ),
        (
            ["--storage", "mysql://somewhere/studies"],
            "unroll: --storage is 'mysql://somewhere/studies'; it must be of the form "
            "postgresql://USER:PASSWORD@HOST/DATABASE; leave it out to keep the study in a file",
        ),
        (
            ["--storage", "postgresql://me:secret@host:port/studies"],
            "unroll: --storage must be of the form postgresql://USER:PASSWORD@HOST/DATABASE; leave it out to keep the "
            "study in a file",
        ),
        (
            ["--epochs", 3, "--space", "epochs=2..5"],
            "unroll: epochs is given one value and a --space; expected one of the two",
        ),
    ],
)
def test_wrong_arguments_are_one_line_and_make_nothing(arguments, message, recipe_file, tmp_path):
    assert refused(recipe_file, *arguments, "--out", tmp_path / "study") == message
    assert not (tmp_path / "study" / "study.db").exists()


def test_a_server_that_cannot_be_reached_is_named_without_its_password(recipe_file, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and nobody listens
        port = unused.getsockname()[1]
        url = f"postgresql://me:secret@127.0.0.1:{port}/studies"
        said = refused(recipe_file, "--storage", url, "--out", tmp_path / "study")
    assert said.startswith(
        f"unroll: storage postgresql://me:***@127.0.0.1:{port}/studies cannot be used (waited for up to 10 s): "
    )
    assert "secret" not in said
    assert not (tmp_path / "study").exists()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no list of processes in files")
@pytest.mark.parametrize("form", ["--storage {}", "--storage={}"])
def test_the_address_of_a_storage_leaves_the_list_of_processes(form):
    code = (
        "import sys; from pathlib import Path; from unroll.tuning.study import hide_in_process_list\n"
        "hide_in_process_list(sys.argv[1]); print(Path('/proc/self/cmdline').read_text())"
    )
    url = "postgresql://me:secret@127.0.0.1/studies"
    words = ["tune", *form.format(url).split(), "--trials", "3"]
    done = subprocess.run([sys.executable, "-c", code, url, *words], capture_output=True, text=True, check=True)
    assert "secret" not in done.stdout
    assert f"tune {form.format(chr(39) + '***' + chr(39))} --trials 3" in done.stdout.replace(
        "'--storage=***'", "--storage='***'"
    )


def test_a_damaged_study_file_is_one_line(recipe_file, tmp_path):
    (tmp_path / "bars").mkdir()
    (tmp_path / "bars" / "study.db").write_bytes(b"no database at all, but a text that is long enough" * 100)
    said = refused(recipe_file, "--out", tmp_path / "bars")
    assert said.startswith(f"unroll: storage {tmp_path / 'bars' / 'study.db'} cannot be used: ")


# ------------------------------------------------------------------------------------------ in this process


@pytest.fixture
def plan(recipe_file, tmp_path):
    base = load_recipe(str(recipe_file)).model_dump()
    return Plan(storage_url(None, tmp_path), "bars", base, FIELDS["space"], trials=4)


def test_one_worker_proposes_and_finds_the_same_twice(plan, tmp_path):
    both = []
    for name in "ab":
        (tmp_path / name).mkdir()
        same = replace(plan, storage=storage_url(None, tmp_path / name))
        worker.work(same, 0, worker.Leader())
        both.append([(t.params, t.value) for t in open_study(same)[0].trials])
    assert both[0] == both[1]
    assert len({str(params) for params, _ in both[0]}) == plan.trials


def test_values_that_do_not_go_together_are_pruned_with_their_reason(plan):
    plan = replace(plan, space={"optimizer": ["sgd"], "nesterov": [True]})
    study, storage = open_study(plan)
    worker.run_trial(plan, study, storage, worker.Leader())
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].user_attrs["reason"].startswith("recipe trial 0: nesterov is")


def test_a_trial_beyond_the_planned_ones_gives_itself_up(plan, monkeypatch):
    study, storage = open_study(plan)
    for _ in range(plan.trials - 1):  # begun by other machines at the same moment
        study.add_trial(create_trial(state=TrialState.RUNNING))
    monkeypatch.setattr(worker, "score", lambda recipe, on_epoch: 0.5)
    worker.run_trial(plan, study, storage, worker.Leader())
    worker.run_trial(plan, study, storage, worker.Leader())
    assert [t.state.name for t in study.trials] == ["COMPLETE", "RUNNING", "RUNNING", "RUNNING", "FAIL"]


def test_a_trial_whose_process_ended_before_its_first_sign_of_life_is_given_up(plan, monkeypatch):
    plan = replace(plan, trials=1)
    study, _ = open_study(plan)
    study.ask()  # and no more was heard of it
    assert "worker" not in study.trials[0].user_attrs
    clock = iter(range(0, 1000, GRACE // 2 + 1))
    monkeypatch.setattr(worker.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(worker.time, "sleep", lambda seconds: None)
    worker.work(plan, 0, worker.Leader())
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize("when", ["in an epoch", "at the end"])
def test_a_trial_that_others_gave_up_meanwhile_stays_so_and_the_worker_goes_on(when, plan, monkeypatch):
    """As on a machine that slept for an hour."""
    plan = replace(plan, trials=2)
    study, _ = open_study(plan)
    slept = []

    def training(recipe, on_epoch):
        if not slept:
            slept.append(True)
            study.tell(0, state=TrialState.FAIL)
        if when == "in an epoch":
            on_epoch({"epoch": 3, "validation_accuracy": 0.5})
        return 0.5

    monkeypatch.setattr(worker, "score", training)
    worker.work(plan, 0, worker.Leader())
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.parametrize(
    ("when", "state"),
    [("ask", TrialState.FAIL), ("train", TrialState.FAIL), ("report", TrialState.FAIL), ("tell", TrialState.COMPLETE)],
)
def test_a_trial_is_not_left_running_whenever_its_worker_is_dismissed(when, state, plan, monkeypatch):
    study, storage = open_study(plan)
    leader = worker.Leader()

    def training(recipe, on_epoch):
        if when == "train":
            leader.dismiss()
        on_epoch({"epoch": 1, "validation_accuracy": 0.5})
        return 0.5

    def dismissed(call):
        def wrapped(*arguments, **options):
            outcome = call(*arguments, **options)
            leader.dismiss()  # it is in the database, and nobody here knows yet
            return outcome

        return wrapped

    monkeypatch.setattr(worker, "score", training)
    if when == "report":
        monkeypatch.setattr(optuna.Trial, when, dismissed(optuna.Trial.report))
    elif when != "train":
        monkeypatch.setattr(study, when, dismissed(getattr(study, when)))

    def run():
        worker.run_trial(plan, study, storage, leader)
        leader.check()

    with pytest.raises(KeyboardInterrupt):
        run()
    assert study.trials[0].state == state
    assert study.trials[0].intermediate_values == ({3: 0.5} if when in ("report", "tell") else {})


def test_hopeless_trials_are_pruned_whatever_their_number_of_epochs(plan, monkeypatch):
    """Six trainings of 5, 7 or 8 epochs go up to 0.9; one of 5 and one of 8 stay below."""
    plan = replace(plan, trials=10, space={"epochs": [5, 7, 8]})
    study, storage = open_study(plan)
    epochs = [5, 7, 8, 5, 7, 8, 5, 8]
    for number in epochs[1:]:
        study.enqueue_trial({"epochs": number})
    study.tell(study.ask().number, state=TrialState.FAIL)  # the recipe itself, whose 3 epochs are not in the space
    study.enqueue_trial({"epochs": epochs[0]})
    told = []

    def training(recipe, on_epoch):
        top = 0.1 if len(told) >= 6 else 0.9
        told.append((recipe.epochs, 0))
        for epoch in range(1, recipe.epochs + 1):
            told[-1] = (recipe.epochs, epoch)
            on_epoch({"epoch": epoch, "validation_accuracy": top * epoch / recipe.epochs})
        return top

    monkeypatch.setattr(worker, "score", training)
    for _ in epochs:
        worker.run_trial(plan, study, storage, worker.Leader())
    states = [t.state.name for t in study.trials if t.state != TrialState.FAIL]
    assert states.count("PRUNED") == 2
    assert states.count("COMPLETE") == 6
    # Both end with the first epoch that brings them past three tenths.
    assert sorted(told[6:]) == [(5, 2), (8, 3)]
    reasons = {t.user_attrs["reason"] for t in study.trials if t.state == TrialState.PRUNED}
    assert reasons == {
        "worse than the median after 3 of 8 epochs",
        "worse than the median after 2 of 5 epochs",
    }


def test_what_mattered_is_found_and_what_did_not_is_near_zero():
    random = np.random.default_rng(1)
    kinds = {"optimizer": optuna.distributions.CategoricalDistribution(("sgd", "adam"))}
    kinds |= {name: optuna.distributions.FloatDistribution(0, 1) for name in ("rotation", "dropout")}
    trials = []
    for _ in range(40):
        params = {
            "optimizer": str(random.choice(["sgd", "adam"])),
            "rotation": random.random(),
            "dropout": random.random(),
        }
        value = 0.9 + 0.05 * (params["optimizer"] == "adam") + 0.01 * params["rotation"]
        trials.append(create_trial(params=params, distributions=kinds, value=value))
    found = importance(trials)
    assert next(iter(found)) == "optimizer"
    assert found["optimizer"][0] > 0.8
    assert found["dropout"][0] < 0.1
    for mean, low, high in found.values():
        assert 0 <= low <= mean <= high <= 1
    assert importance(trials[:7]) == {}
    assert importance([create_trial(params=t.params, distributions=kinds, value=0.9) for t in trials]) == {}


def test_a_recipe_that_stops_by_what_it_holds_out_still_holds_it_out_in_the_end(plan):
    plan = replace(plan, base={**plan.base, "patience": 3}, space={"patience": [3, 5]})
    study, _ = open_study(plan)
    kinds = {"patience": optuna.distributions.CategoricalDistribution((3, 5))}
    study.add_trial(create_trial(params={"patience": 5}, distributions=kinds, value=0.9))
    best = yaml.safe_load(best_recipe(summary(study, plan), own_validation=0.0))
    assert (best["patience"], best["validation"]) == (5, 0.25)


def test_more_trials_extend_a_study(plan):
    worker.work(replace(plan, trials=1), 0, worker.Leader())
    worker.work(replace(plan, trials=2), 0, worker.Leader())
    assert len(open_study(plan)[0].trials) == 2


def test_a_study_of_another_program_is_left_alone(plan):
    foreign = optuna.create_study(storage=plan.storage, study_name="bars", direction="maximize")
    foreign.add_trial(create_trial(value=1.0))
    with pytest.raises(InputError, match="belongs to another program; name another folder with --out"):
        open_study(plan)
    assert foreign.user_attrs == {}


def test_the_summary_names_every_value_and_its_importance(plan):
    study, _ = open_study(plan)
    kinds = {"learning_rate": optuna.distributions.FloatDistribution(0.001, 0.05, log=True)}
    study.add_trial(create_trial(params={"learning_rate": 0.0123456}, distributions=kinds, value=0.987))
    study.add_trial(create_trial(state=TrialState.PRUNED, params={"learning_rate": 0.03}, distributions=kinds))
    found = summary(study, plan)
    assert text_summary(found) == [
        "2 trials: 1 complete, 1 pruned",
        "Best held-out accuracy: 98.70% (trial 1)",
        "  learning_rate  0.01235",
    ]
    assert yaml.safe_load(best_recipe(found, own_validation=0.0)) == {
        "name": "bars-best",
        "about": "the best of 1 complete and 1 pruned trials, 98.70% of the held-out sequences",
        "task": "images",
        "hidden_size": 8,
        "learning_rate": 0.0123456,
        "batch_size": 20,
        "epochs": 3,
        "data": plan.base["data"],
    }


SECRETS = [
    "postgresql://me:hunter2@HOST/studies",
    "postgresql+psycopg://me:hunter2@HOST/studies",
    "postgresql://me:hunter%402@HOST/studies",
    "postgresql://me:x@HOST/studies?password=hunter2",
    "postgresql://HOST/studies?user=me&password=hunter2",
    "postgresql://HOST/studies?user=me&password=hunter2&password=hunter2",
    "postgresql:///studies?host=127.0.0.1&port=1&password=hunter2",
    "postgresql://me@HOST/studies?sslpassword=hunter2",
    "postgresql://me@HOST/studies?nonsense=hunter2",
    "postgresql://me:p@hunter2@HOST/studies",
    "postgresql://me:p@hunter2/studies@HOST/studies",
    "postgresql://me:p@@hunter2:2@HOST/studies",
    "postgresql://me:hunter2@host:port/studies",
    "postgresql://me:hunter2",
    "postgresql://me:hunter2@HOST",
    "mysql://me:hunter2@HOST/studies",
    "mysql://me@HOST/studies?password=hunter2",
    "sqlite:///me?password=hunter2",
]


@pytest.mark.parametrize("given", SECRETS)
def test_no_form_of_a_password_is_ever_printed(given, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and nobody listens
        given = given.replace("HOST", f"127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(InputError) as error:
            open_study(Plan(storage_url(given, tmp_path / "bars"), "bars", {}, {}, trials=1))
    assert "hunter" not in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_driver_repeats_of_a_password_is_hidden(tmp_path):
    url = storage_url("postgresql://me:hunter%402@host/studies?sslpassword=hunter3", tmp_path)
    assert "hunter" not in repr(Plan(url, "bars", {}, {}, trials=1))
    with pytest.raises(InputError) as error, usable(url):
        raise OperationalError("", None, Exception('invalid "hunter@2", "hunter3"'))
    assert 'cannot be used (waited for up to 10 s): invalid "***", "***"; put' in str(error.value)


@pytest.mark.parametrize("name", ["a|b", ".hidden", "x" * 100])
def test_a_study_is_called_by_a_name(recipe_file, tmp_path, name):
    said = refused(recipe_file, "--out", tmp_path / name)
    assert "like its folder; expected a name: at most 100 letters" in said
    assert not (tmp_path / name).exists()


def test_a_workers_command_line_does_not_show_the_password(monkeypatch, tmp_path):
    from unroll.tuning import study as module

    class Started:
        def __init__(self, words, *, env, **_):
            self.stdin = io.StringIO()
            assert "hunter2" not in " ".join([*words, *env.values()])

    monkeypatch.setattr(module.subprocess, "Popen", Started)
    plan = Plan("postgresql+psycopg://me:hunter2@host/studies", "bars", {}, {}, trials=1)
    assert "hunter2" in module._start(plan, 0, 1, io.StringIO()).stdin.getvalue()
