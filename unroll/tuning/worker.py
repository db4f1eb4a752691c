"""A worker of a search: `python -m unroll.tuning.worker`, started by `unroll.tuning.study` with its plan on stdin.

It takes trial after trial from the study until that has as many as planned, and ends at once when its leader does.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError

from unroll.errors import InputError, RecipeError, TrainingError, UnrollError
from unroll.training.loop import prepare, train
from unroll.training.recipe import parse_recipe
from unroll.training.run import RunFolder
from unroll.tuning.study import EVERY, Plan, count, open_study


class _Surplus(Exception):  # noqa: N818 - no error
    """Another worker was faster: the study has as many trials as planned without this one."""


def work(plan: Plan, number: int) -> None:
    """Run trials until the study has as many as planned; `number` tells the workers of one machine apart."""
    study = open_study(plan)
    if not plan.storage.startswith("postgresql"):
        # The same command proposes the same again. Machines that share a server must not propose the same, however.
        so_far = len(study.get_trials(deepcopy=False))
        seed = np.random.SeedSequence([plan.base["seed"], number, so_far]).generate_state(1)
        study = open_study(plan, int(seed[0]))
    while True:
        optuna.storages.fail_stale_trials(study)
        done, running = count(study)
        if len(done) >= plan.trials:
            return
        if len(done) + len(running) >= plan.trials:
            time.sleep(EVERY)  # one that runs elsewhere may yet be lost
            continue
        with contextlib.suppress(UpdateFinishedTrialError):  # the machine slept, and its trial counts as lost meanwhile
            study.optimize(lambda trial: score(plan, study, trial), n_trials=1, catch=(_Surplus,))


def score(plan: Plan, study: optuna.Study, trial: optuna.Trial) -> float:
    """Train the recipe with the values that the trial proposes; the accuracy on the held-out sequences, 0 to 1."""
    done, running = count(study)
    if sum(other.number < trial.number for other in done + running) >= plan.trials:
        raise _Surplus
    trial.set_user_attr("worker", f"{platform.node()} {os.getpid()}")
    fields = {name: values.suggest(trial, name) for name, values in plan.read_space().items()}

    def on_epoch(row: dict[str, Any]) -> None:
        # Trials of unequal numbers of epochs are compared at the same share of their way.
        trial.report(row["validation_accuracy"], 100 * row["epoch"] // recipe.epochs)
        if row["epoch"] < recipe.epochs and trial.should_prune():
            trial.set_user_attr("reason", f"worse than the median after {row['epoch']} of {recipe.epochs} epochs")
            raise optuna.TrialPruned

    with tempfile.TemporaryDirectory(prefix="unroll-trial-") as place:
        try:
            recipe = parse_recipe({**plan.base, **fields}, f"trial {trial.number}")
            folder = RunFolder.create(Path(place) / "run", recipe, {})
            dataset = prepare(recipe)
            metrics = train(recipe, folder, lambda line: None, test=False, dataset=dataset, on_epoch=on_epoch)
        except (RecipeError, InputError, TrainingError) as error:  # values that do not go together, or diverge
            trial.set_user_attr("reason", str(error))
            raise optuna.TrialPruned from None
    accuracy: float = metrics["validation"]["accuracy"]
    return accuracy


def _end_with(stream: Any) -> None:
    """End this process as soon as the stream does: whoever held its other end is gone."""
    stream.read()
    os._exit(3)


def main() -> None:
    given = json.loads(sys.stdin.readline())
    number = given.pop("worker")
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    try:
        work(Plan(**given), number)
    except UnrollError as error:
        print(error, file=sys.stderr)
        sys.stderr.flush()
        os._exit(2)
    except KeyboardInterrupt:
        os._exit(130)
    # Not sys.exit: the interpreter would wait for the thread that reads stdin.
    os._exit(0)


if __name__ == "__main__":
    main()
