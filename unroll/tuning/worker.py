"""A worker of a search: `python -m unroll.tuning.worker`, started by `unroll.tuning.study` with its plan on stdin.

It takes trial after trial from the study until that has as many as planned. When its stdin ends its leader is gone, however
that came about: then it gives its trial up and ends. Only a training is broken off, never a call to the database, so that no
trial is left behind as running; a worker that takes more than half a minute over the call ends all the same.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError

from unroll.errors import InputError, RecipeError, TrainingError, UnrollError
from unroll.training.callbacks import Listener
from unroll.training.evaluate import evaluated
from unroll.training.recipe import AnyRecipe, parse_recipe
from unroll.training.train import fit_recipe, prepare
from unroll.tuning.study import EVERY, GRACE, HEARTBEAT, Plan, count, open_study, usable

TENTHS = 10  # trials of unequal numbers of epochs are compared at tenths of their way, in between on a straight line
PATIENCE = 30  # seconds that a worker has to end


class Leader:
    """Whether whoever started this worker is still there."""

    def __init__(self) -> None:
        self._gone = self._training = False

    def watch(self, stream: TextIO) -> None:
        """From now on the leader is there as long as the stream does not end."""
        signal.signal(signal.SIGINT, self.dismiss)
        threading.Thread(target=self._wait_for_end, args=(stream,), daemon=True).start()

    def _wait_for_end(self, stream: TextIO) -> None:
        stream.read()
        for _ in range(PATIENCE):  # again and again: Python drops an exception that is raised in a finaliser
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        os._exit(3)

    def dismiss(self, signal: int | None = None, frame: object = None) -> None:
        """Take note that the leader is gone, and break a training off; raises KeyboardInterrupt then."""
        self._gone = True
        if self._training:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if the leader is gone."""
        if self._gone:
            raise KeyboardInterrupt

    @contextmanager
    def may_interrupt(self, training: bool) -> Iterator[None]:
        """Within this context KeyboardInterrupt comes at any moment, or at none.

        At none in a call to the database: its connection would be left in the middle of a transaction.
        """
        before, self._training = self._training, training
        try:
            if training:
                self.check()
            yield
        finally:
            self._training = before
        if before:
            self.check()


def work(plan: Plan, number: int, leader: Leader) -> None:
    """Run trials until the study has as many as planned; `number` tells the workers of one machine apart."""
    study, storage = open_study(plan)
    if plan.storage.startswith("sqlite"):
        # The same command proposes the same again. Machines that share a server must not propose the same, however.
        so_far = len(study.get_trials(deepcopy=False))
        seed = np.random.SeedSequence([plan.base["seed"], number, so_far]).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(seed=int(seed[0]), multivariate=True, constant_liar=True)
    silent: dict[int, float] = {}
    with usable(plan.storage):
        while True:
            leader.check()
            fail_lost(study, silent)
            done, running = count(study)
            if len(done) >= plan.trials:
                return
            if len(done) + len(running) >= plan.trials:
                time.sleep(EVERY)  # one that runs elsewhere may yet be lost
            else:
                run_trial(plan, study, storage, leader)


def fail_lost(study: optuna.Study, silent: dict[int, float]) -> None:
    """Count trials as failed whose process has gone.

    Optuna does it for those that once gave a sign of life. One whose process ended before its first has no name of a worker
    yet; `silent` remembers since when it has been seen so.
    """
    optuna.storages.fail_stale_trials(study)
    for trial in count(study)[1]:
        if "worker" in trial.user_attrs:
            continue
        if time.monotonic() - silent.setdefault(trial.number, time.monotonic()) > GRACE:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def run_trial(plan: Plan, study: optuna.Study, storage: RDBStorage, leader: Leader) -> None:
    """Take one trial, and tell the study what came of it."""
    trial = study.ask()
    score, state = None, TrialState.FAIL
    try:
        storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr("worker", f"{platform.node()} {os.getpid()}")
        done, running = count(study)
        if sum(other.number < trial.number for other in done + running) >= plan.trials:
            return  # another worker was faster, and the study has enough without this one
        with alive(storage, trial):
            score = train_trial(plan, trial, leader)
        state = TrialState.COMPLETE
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except UpdateFinishedTrialError:
        pass  # this machine slept, and meanwhile another has counted the trial as lost
    finally:
        with leader.may_interrupt(False):
            study.tell(trial, score, state, skip_if_finished=True)


@contextmanager
def alive(storage: RDBStorage, trial: optuna.Trial) -> Iterator[None]:
    """Give signs of life of a trial, from a thread of their own."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            with suppress(DBAPIError):  # the next one may get through; if none does, the trial's end will say so
                storage.record_heartbeat(trial._trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def train_trial(plan: Plan, trial: optuna.Trial, leader: Leader) -> float:
    """Train the recipe with the values that the trial proposes; the accuracy on the held-out sequences, 0 to 1."""
    fields = {name: values.suggest(trial, name) for name, values in plan.read_space().items()}

    before = 0.0

    def on_epoch(row: dict[str, Any]) -> None:
        nonlocal before
        epoch, epochs, accuracy = row["epoch"], recipe.epochs, row["validation_accuracy"]
        last = TENTHS * epoch // epochs  # the last tenth of the way that is behind us
        with leader.may_interrupt(False):
            for tenth in range(TENTHS * (epoch - 1) // epochs + 1 if epoch > 1 else max(1, last), last + 1):
                into = tenth * epochs / TENTHS - (epoch - 1) if epoch > 1 else 1.0  # share of this epoch
                trial.report(before + into * (accuracy - before), tenth)
            before = accuracy
            if epoch < epochs and trial.should_prune():
                trial.set_user_attr("reason", f"worse than the median after {epoch} of {epochs} epochs")
                raise optuna.TrialPruned

    try:
        recipe = parse_recipe({**plan.base, **fields}, f"trial {trial.number}")
        with leader.may_interrupt(True):
            return score(recipe, on_epoch)
    except (RecipeError, InputError, TrainingError) as error:  # values that do not go together, or diverge
        trial.set_user_attr("reason", str(error))
        raise optuna.TrialPruned from None


def score(recipe: AnyRecipe, on_epoch: Callable[[dict[str, Any]], None]) -> float:
    """Train a recipe in memory; its accuracy on the held-out sequences."""
    dataset = prepare(recipe)
    assert dataset.validation is not None  # a plan holds something out
    training = fit_recipe(recipe, dataset, [Listener(on_epoch)])
    accuracy: float = evaluated(training.model, dataset.validation, dataset.encoder)["accuracy"]
    return accuracy


def main() -> None:
    given = json.loads(sys.stdin.readline())
    leader = Leader()
    leader.watch(sys.stdin)
    status = 0
    try:
        work(Plan(**given["plan"]), given["number"], leader)
    except UnrollError as error:
        print(error, file=sys.stderr)
        status = 2
    except OSError as error:  # a full disk, say
        print(f"{error.strerror}: {error.filename or 'in a trial'}; the same command goes on", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    sys.stderr.flush()
    os._exit(status)  # not sys.exit: the interpreter would wait for the thread that reads stdin


if __name__ == "__main__":
    main()
