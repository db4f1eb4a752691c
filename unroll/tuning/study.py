"""Search: many trainings of one recipe with other hyperparameters, each scored on held-out training sequences.

Optuna proposes the values (its tree-structured Parzen estimator: Bergstra, Bardenet, Bengio, Kegl: Algorithms for
hyper-parameter optimization. NIPS 2011) and keeps the trials in a database: SQLite's embedded one, a file in the study's
folder, or a PostgreSQL server that any number of machines share. Everything that is known stands in that database, so
the same command goes on after any interruption, and the same command on another machine helps.

One process leads (`tune`): it checks everything, starts the workers, and shows how far they are. The trainings run in
the workers (`unroll.tuning.worker`), which end when the leader does.

What it does not do: look at the test set, or search over the data.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, ProgrammingError

from unroll.errors import InputError, RunError, UnrollError
from unroll.training.recipe import AnyRecipe, parse_recipe, value_text
from unroll.training.run import write_atomically
from unroll.tuning.space import Space, read_space

HELD_OUT = 1 / 6  # of the training sequences, where the recipe does not say; 10,000 of MNIST's 60,000
PATIENCE_CONNECT = 10  # seconds that a server has to answer
HEARTBEAT, GRACE = 5, 30  # seconds between signs of life of a trial, and without one until it counts as lost
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
RESAMPLED = 20  # times that the trials are drawn anew for their hyperparameters' importance
EVERY = 0.5  # seconds between looks at the database


@dataclass(frozen=True)
class Plan:
    """What leader and workers must agree on; travels as JSON.

    storage     URL of the database
    name        the study's name in it
    base        the recipe's fields
    space       its space, as it would be written in the recipe's file
    trials      how many trials the study shall have in all, complete or pruned
    """

    storage: str
    name: str
    base: dict[str, Any]
    space: dict[str, str | list[Any]]
    trials: int

    @property
    def recipe(self) -> AnyRecipe:
        return parse_recipe(self.base, self.name)

    def read_space(self) -> Space:
        return read_space(self.space, self.recipe, [], set(), self.name)

    @property
    def identity(self) -> dict[str, Any]:
        """What a study must have in common with its later visits: everything but names."""
        return {"recipe": {k: v for k, v in self.base.items() if k not in ("name", "about")}, "space": self.space}


# ------------------------------------------------------------------------------------------------------- storage


def storage_url(given: str | None, folder: Path) -> str:
    """The URL that SQLAlchemy takes: of the server given, or of the file study.db in the folder.

    Raises:
        InputError: the address is none of PostgreSQL, or its driver is not installed.
    """
    if given is None:
        return URL.create("sqlite", database=str(folder.resolve() / "study.db")).render_as_string()
    try:
        url = make_url(given)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql" or not url.database:
        raise InputError(
            f"--storage is {_shown(given)!r}; expected postgresql://USER:PASSWORD@HOST/DATABASE, or nothing for a file"
        )
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise InputError("psycopg is not installed; install it with: pip install 'unroll-rnn[postgresql]'") from None
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def connect(storage: str) -> optuna.storages.RDBStorage:
    """Open the database, and make its tables where it is new.

    Raises:
        InputError: it cannot be reached within 10 seconds, or refuses.
    """
    server = storage.startswith("postgresql")
    options = {"connect_timeout": PATIENCE_CONNECT} if server else {"timeout": 60}  # seconds; SQLite's is for a lock
    engine: dict[str, Any] = {"connect_args": options, "pool_pre_ping": server}
    for attempt in range(10):
        try:
            return optuna.storages.RDBStorage(
                storage, engine_kwargs=engine, heartbeat_interval=HEARTBEAT, grace_period=GRACE
            )
        except (IntegrityError, ProgrammingError):
            # Another machine is making the same tables at this moment; they will be there at the next look.
            if attempt == 9:
                raise
            time.sleep(0.2)
        except DBAPIError as error:
            place = f"storage {_shown(storage)}"
            if not server:
                raise RunError(f"{place} is damaged or cannot be written: {error.orig}") from None
            reason = " ".join(str(error.orig).split())
            raise InputError(f"{place} cannot be reached (waited for at most {PATIENCE_CONNECT} s): {reason}") from None
    raise AssertionError("unreachable")


def _shown(storage: str) -> str:
    """An address without its password."""
    try:
        url = make_url(storage)
    except ArgumentError:
        return storage
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def open_study(plan: Plan, seed: int | None = None) -> optuna.Study:
    """The study, made where there is none; with a seed its proposals can be had again.

    Raises:
        InputError: the storage cannot be reached, or the study there belongs to another recipe or space.
    """
    # Heartbeats, and proposals that mind the trials which still run, are experimental for Optuna; they are tested here.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(
        storage=connect(plan.storage),
        study_name=plan.name,
        direction="maximize",
        load_if_exists=True,
        sampler=sampler,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=30, n_min_trials=3),
    )
    there = study.user_attrs.get("identity")
    if there is None:
        study.set_user_attr("identity", plan.identity)
        begin = {name: plan.base[name] for name, values in plan.read_space().items() if plan.base[name] in values}
        study.enqueue_trial(begin, skip_if_exists=True)  # the recipe as it is, to be beaten
    elif there != plan.identity:
        raise InputError(
            f"study {plan.name} in {_shown(plan.storage)} belongs to another recipe: "
            f"{_difference(there, plan.identity)}; name another folder with --out"
        )
    return study


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    for part, which in (("recipe", ""), ("space", "the space of ")):
        for name in sorted(there[part].keys() | here[part].keys()):
            old, new = there[part].get(name, "absent"), here[part].get(name, "absent")
            if old != new:
                return f"{which}{name} is {old} there and {new} here"
    raise AssertionError("they are equal")


def count(study: optuna.Study) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """The study's finished trials (complete or pruned), and those that run."""
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state in FINISHED], [t for t in trials if t.state == TrialState.RUNNING]


# -------------------------------------------------------------------------------------------------------- leading


def tune(plan: Plan, workers: int, progress: Callable[..., Any]) -> optuna.Study:
    """Run trials until the study has as many as planned; the study.

    Args:
        workers: processes on this machine, which share its cores.
        progress: makes a progress bar of tqdm's kind.

    Raises:
        UnrollError: the study cannot begin, or a worker could not go on.
        KeyboardInterrupt: Ctrl-C; the running trials are given up, all others are kept.
    """
    study = open_study(plan)
    done, _ = count(study)
    if len(done) >= plan.trials:
        return study
    environment = dict(os.environ)
    if workers > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    processes = [_start(plan, number, environment) for number in range(workers)]
    try:
        with progress(total=plan.trials, initial=len(done)) as bar:
            while any(process.poll() is None for process in processes):
                _show(bar, study)
                time.sleep(EVERY)
                for process in [p for p in processes if p.poll() is not None]:
                    _ended(process, bar)
                    processes.remove(process)
            for process in processes:
                _ended(process, bar)
            _show(bar, study)
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)  # a worker gives its trial up and ends
        for process in processes:
            process.wait()
            process.communicate()
    done, _ = count(study)
    if len(done) < plan.trials:
        raise RunError(
            f"all workers have ended with {len(done)} of {plan.trials} trials finished; the same command goes on"
        )
    return study


def _start(plan: Plan, number: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "unroll.tuning.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches the leader alone, which then ends its workers
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({**asdict(plan), "worker": number}) + "\n")
    process.stdin.flush()  # and stays open: a worker whose input ends has lost its leader
    return process


def _ended(process: subprocess.Popen[str], bar: Any) -> None:
    """What to do about a worker that has ended: nothing, say that it was killed, or raise what stopped it."""
    _, said = process.communicate()
    if process.returncode == 0:
        return
    if process.returncode < 0:
        number = -process.returncode
        bar.write(
            f"unroll: a worker was killed (signal {number}); its trial is lost, the others go on", file=sys.stderr
        )
        return
    lines = said.strip().splitlines() or ["a worker ended without a word"]
    if process.returncode == 2:
        raise UnrollError(lines[-1])
    raise RuntimeError(f"a worker failed:\n{said}")


def _show(bar: Any, study: optuna.Study) -> None:
    done, _ = count(study)
    values = [t.value for t in done if t.state == TrialState.COMPLETE and t.value is not None]
    bar.n = min(len(done), bar.total)
    bar.set_postfix_str(f"best {100 * max(values):.2f}%" if values else "")


# -------------------------------------------------------------------------------------------------------- results


def summary(study: optuna.Study, plan: Plan) -> dict[str, Any]:
    """Everything worth knowing about a study, ready for JSON: its trials, the best, and what mattered."""
    done, _ = count(study)
    if not any(t.state == TrialState.COMPLETE for t in done):
        raise RunError(
            f"none of the {len(done)} trials of study {plan.name} came to its end; narrow the space with --space"
        )
    best = study.best_trial
    return {
        "study": plan.name,
        "recipe": plan.base,
        "space": plan.space,
        "best": best.number,
        "importance": importance([t for t in done if t.state == TrialState.COMPLETE]),
        "trials": [
            {
                "number": t.number,
                "state": t.state.name.lower(),
                "accuracy": t.value if t.state == TrialState.COMPLETE else None,
                "seconds": None if t.duration is None else round(t.duration.total_seconds(), 3),
                "fields": t.params,
                **t.user_attrs,
            }
            for t in done
        ],
    }


def importance(complete: list[FrozenTrial]) -> dict[str, tuple[float, float, float]]:
    """How much of the trials' variance each hyperparameter explains by itself and with others; most important first.

    fANOVA (Hutter, Hoos, Leyton-Brown: An efficient approach for assessing hyperparameter importance. ICML 2014) on the
    trials drawn anew, with replacement, 20 times. A few dozen trials in many dimensions say little, and that must be
    seen: each hyperparameter gets the mean share (0 to 1) of the 20, and the shares that 2 of them lie below and above.
    Empty where fewer than 8 trials are complete, or where all did equally well.
    """
    if len(complete) < 8:
        return {}
    random = np.random.default_rng(0)
    shares: dict[str, list[float]] = {}
    for seed in range(RESAMPLED):
        trials = [complete[i] for i in random.integers(0, len(complete), len(complete))]
        if len({t.value for t in trials}) == 1:
            continue  # no variance to explain
        drawn = optuna.create_study(direction="maximize")
        drawn.add_trials(trials)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        for name, share in optuna.importance.get_param_importances(drawn, evaluator=evaluator).items():
            shares.setdefault(name, []).append(share)
    found = {}
    for name in sorted(shares, key=lambda name: -statistics.mean(shares[name])):
        low, high = np.quantile(shares[name], (0.1, 0.9))
        found[name] = (statistics.mean(shares[name]), float(low), float(high))
    return found


def text_summary(found: dict[str, Any]) -> list[str]:
    """What the command prints at the end of a study."""
    best = next(t for t in found["trials"] if t["number"] == found["best"])
    complete = sum(t["state"] == "complete" for t in found["trials"])
    lines = [
        f"{len(found['trials'])} trials: {complete} complete, {len(found['trials']) - complete} pruned",
        f"Best held-out accuracy: {100 * best['accuracy']:.2f}% (trial {best['number']})",
    ]
    width = max(map(len, best["fields"]))
    for name in found["importance"] or best["fields"]:
        value = best["fields"][name]
        line = f"  {name:{width}}  {f'{value:.4g}' if isinstance(value, float) else value_text(value):<10}"
        if found["importance"]:
            share, low, high = (100 * x for x in found["importance"][name])
            line += f"  importance {share:.0f}% ({low:.0f} to {high:.0f}%)"
        lines.append(line.rstrip())
    return lines


def best_recipe(found: dict[str, Any], own_validation: float) -> str:
    """The best trial's recipe as the text of a YAML file that `unroll train` takes.

    It holds out again what the recipe itself holds out: nothing, mostly, so that the final training sees everything.
    """
    best = next(t for t in found["trials"] if t["number"] == found["best"])
    complete = sum(t["state"] == "complete" for t in found["trials"])
    fields = {**found["recipe"], **best["fields"], "validation": own_validation}
    fields["name"] = f"{found['study']}-best"
    fields["about"] = (
        f"the best of {complete} complete and {len(found['trials']) - complete} pruned trials, "
        f"{100 * best['accuracy']:.2f}% of the held-out sequences"
    )
    recipe = parse_recipe(fields, found["study"])
    chosen = {k: v for k, v in recipe.model_dump().items() if k == "task" or v != type(recipe).model_fields[k].default}
    return yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True, width=110)


def write_results(folder: Path, found: dict[str, Any], own_validation: float) -> Path:
    """Write best.yaml and trials.json into the folder; the path of best.yaml."""
    write_atomically(folder / "trials.json", json.dumps(found, indent=1) + "\n")
    path = folder / "best.yaml"
    write_atomically(path, best_recipe(found, own_validation))
    return path
