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
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from unroll.errors import InputError, RunError
from unroll.files import write_atomically
from unroll.training.recipe import INDIFFERENT, TITLES, parse_recipe, value_text
from unroll.tuning.space import Space, read_space

HELD_OUT = 1 / 6  # of the training sequences, where the recipe does not say; 10,000 of MNIST's 60,000
WAIT = 10  # seconds that a server has to answer
HEARTBEAT, GRACE = 5, 30  # seconds between signs of life of a trial, and without one until it counts as lost
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
EVERY = 0.5  # seconds between looks at the database
ADDRESS = "must be of the form postgresql://USER:PASSWORD@HOST/DATABASE; leave it out to keep the study in a file"


@dataclass(frozen=True)
class Plan:
    """What leader and workers must agree on; travels as JSON.

    storage     URL of the database
    name        the study's name in it
    base        the recipe's fields
    space       its space, as it would be written in the recipe's file
    trials      how many trials the study shall have in all, complete or pruned
    """

    storage: str = field(repr=False)  # it holds the password
    name: str
    base: dict[str, Any]
    space: dict[str, str | list[Any]]
    trials: int

    def read_space(self) -> Space:
        return read_space(self.space, parse_recipe(self.base, self.name), [], set(), self.name)

    @property
    def identity(self) -> dict[str, Any]:
        """What a study must have in common with its later visits: everything that a score depends on."""
        outside = {*TITLES, *INDIFFERENT} - {"seed"}
        return {"recipe": {k: v for k, v in self.base.items() if k not in outside}, "space": self.space}


# ------------------------------------------------------------------------------------------------------- storage


def storage_url(given: str | None, folder: Path) -> str:
    """The URL that SQLAlchemy takes: of the server given, or of the file study.db in the folder.

    Raises:
        InputError: the address is none of PostgreSQL, or its driver is not installed.
    """
    if given is None:
        return URL.create("sqlite", database=str(folder.resolve() / "study.db")).render_as_string()
    if given.count("@") > 1:  # where the password ends, nobody knows, so that it could not be hidden
        raise InputError("--storage holds @ more than once; write that of a password as %40")
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise InputError(f"--storage {ADDRESS}") from None
    if url.get_backend_name() != "postgresql" or not url.database:
        raise InputError(f"--storage is {_shown(given)!r}; it {ADDRESS}")
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise InputError("psycopg is not installed; install it with: pip install 'unroll-rnn[postgresql]'") from None
    password = url.query.get("password")
    if isinstance(password, tuple):
        raise InputError("--storage holds a password more than once; expected one")
    if password is not None:
        url = url.set(password=password).difference_update_query(["password"])
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def connect(storage: str) -> optuna.storages.RDBStorage:
    """Open the database, and make its tables where it is new.

    Raises:
        InputError: it cannot be reached within 10 seconds, or refuses.
    """
    engine: dict[str, Any] = {"connect_args": {"timeout": 60}}  # seconds that SQLite waits for another process' lock
    if storage.startswith("postgresql"):  # seconds, milliseconds
        engine = {"connect_args": {"connect_timeout": WAIT, "tcp_user_timeout": 1000 * GRACE}, "pool_pre_ping": True}
    with usable(storage):
        attempts = 10
        while True:
            try:
                return optuna.storages.RDBStorage(storage, engine, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
            except DBAPIError as error:
                # Another process makes the same tables at this moment: they will be there at the next look.
                attempts -= 1
                if not attempts or not (isinstance(error, IntegrityError) or "already exists" in str(error.orig)):
                    raise
                time.sleep(0.2)


@contextmanager
def usable(storage: str) -> Iterator[None]:
    """Within this context a database that fails is one line.

    Raises:
        InputError: it cannot be reached, refuses, or was lost.
    """
    try:
        yield
    except (DBAPIError, optuna.exceptions.StorageInternalError) as error:
        cause = error if isinstance(error, DBAPIError) else error.__cause__
        reason = " ".join(str(getattr(cause, "orig", None) or error).split())
        for secret in _secrets(storage):  # a driver may repeat what it was given
            reason = reason.replace(secret, "***")
        waited = f" (waited for up to {WAIT} s)" if storage.startswith("postgresql") else ""
        raise InputError(
            f"storage {_shown(storage)} cannot be used{waited}: {reason}; put that right, and the same command goes on"
        ) from None


def hide_in_process_list(storage: str) -> None:
    """Take an address that holds a password out of the command line that the system shows of this process to everybody.

    It was there for a moment: the password is better kept in ``~/.pgpass`` or ``PGPASSWORD``.
    """
    try:
        from setproctitle import setproctitle
    except ImportError:
        return  # it comes with psycopg's extra
    setproctitle(shlex.join(arg.replace(storage, "***") for arg in (Path(sys.argv[0]).name, *sys.argv[1:])))


def _shown(storage: str) -> str:
    """An address without its password, and without what else may be secret in it."""
    url = make_url(storage)
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    query = {name: value for name, value in url.query.items() if name in ("host", "port", "user")}
    return url.set(drivername=url.get_backend_name(), query=query).render_as_string(hide_password=True)


def _secrets(storage: str) -> list[str]:
    """The words of an address that no message may hold."""
    url = make_url(storage)
    return [str(word) for word in (url.password, url.query.get("sslpassword")) if word]


def open_study(plan: Plan) -> tuple[optuna.Study, optuna.storages.RDBStorage]:
    """The study, made where there is none, and where it is kept.

    Raises:
        InputError: the storage cannot be used, or the study there belongs to another recipe or space.
    """
    # Signs of life, and proposals that mind the trials which still run, are experimental for Optuna; they are tested here.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with")  # the worker sees to them
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = connect(plan.storage)
    with usable(plan.storage):
        try:
            study = optuna.create_study(storage=storage, study_name=plan.name, direction="maximize")
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=plan.name)
            until = time.monotonic() + 2
            while "identity" not in study.user_attrs and time.monotonic() < until:
                time.sleep(0.2)  # whoever made it is about to say what it is
        there = study.user_attrs.get("identity")
        place = f"study {plan.name} in {_shown(plan.storage)}"
        if there is None:  # it is new, or whoever made it came no further
            if any(t.state != TrialState.WAITING for t in study.get_trials(deepcopy=False)):
                raise InputError(f"{place} belongs to another program; name another folder with --out")
            # The first trial is the recipe as it is, to be beaten. With its identity the study is complete.
            first = {name: plan.base[name] for name, values in plan.read_space().items() if plan.base[name] in values}
            study.enqueue_trial(first, skip_if_exists=True)
            study.set_user_attr("identity", plan.identity)
        elif there != plan.identity:
            other = _difference(there, plan.identity)
            raise InputError(f"{place} belongs to another recipe: {other}; name another folder with --out")
    study.sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3, n_min_trials=3)
    return study, storage


def _difference(*identities: dict[str, Any]) -> str:
    there, here = ({**it["recipe"], **{f"the space of {k}": v for k, v in it["space"].items()}} for it in identities)
    changes = ((name, there.get(name, "absent"), here.get(name, "absent")) for name in {**there, **here})
    return next(f"{name} is {old} there and {new} here" for name, old, new in changes if old != new)


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
    study, storage = open_study(plan)
    done, _ = count(study)
    if len(done) >= plan.trials:
        return study
    processes: dict[subprocess.Popen[str], IO[str]] = {}
    with ExitStack() as files, usable(plan.storage), progress(total=plan.trials, initial=len(done)) as bar:
        try:
            for number in range(workers):
                said: IO[str] = files.enter_context(tempfile.TemporaryFile("w+"))  # a pipe could fill up
                processes[_start(plan, number, workers, said)] = said
            while True:
                done, _ = count(study)
                values = [t.value for t in done if t.state == TrialState.COMPLETE and t.value is not None]
                bar.n = min(len(done), bar.total)
                bar.set_postfix_str(f"best {100 * max(values):.2f}%" if values else "")
                if not processes:
                    break
                time.sleep(EVERY)
                for process in [process for process in processes if process.poll() is not None]:
                    said, code = processes.pop(process), process.returncode
                    process.communicate()  # leaves nothing open
                    if code < 0:
                        lost = f"a worker was killed (signal {-code}); its trial is lost, the others go on"
                        bar.write(f"unroll: {lost}", file=sys.stderr)
                    elif code > 0:  # it could not go on; nor could the others
                        said.seek(0)
                        lines = said.read().strip().splitlines()
                        raise RunError(lines[-1] if lines else f"a worker ended with status {code} and without a word")
        finally:
            # Ctrl-C in the middle of a query leaves the database locked: no worker could say what became of its trial.
            storage.remove_session()
            for process in processes:
                process.stdin.close()  # type: ignore[union-attr] # a pipe; the worker gives its trial up and ends
            for process in processes:
                process.wait()
    if len(done) < plan.trials:
        raise RunError(
            f"all workers have ended with {len(done)} of {plan.trials} trials finished; the same command goes on"
        )
    return study


def _start(plan: Plan, number: int, workers: int, said: IO[str]) -> subprocess.Popen[str]:
    """A process that runs trials. It ends when the study is finished, or when its leader lets go of its stdin."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // workers))} if workers > 1 else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "unroll.tuning.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        text=True,
        env={**threads, **os.environ},
        start_new_session=True,  # Ctrl-C reaches the leader alone
    )
    assert process.stdin is not None
    print(json.dumps({"plan": asdict(plan), "number": number}), file=process.stdin, flush=True)
    return process


# -------------------------------------------------------------------------------------------------------- results


def summary(study: optuna.Study, plan: Plan) -> dict[str, Any]:
    """Everything worth knowing about a study, ready for JSON: its trials, the best, and what mattered."""
    with usable(plan.storage):
        done, _ = count(study)
    complete = [t for t in done if t.state == TrialState.COMPLETE]
    if not complete:
        raise RunError(
            f"none of the {len(done)} trials of study {plan.name} came to its end; go on with more --trials, or "
            "narrow the space with --space and name another folder with --out"
        )
    return {
        "study": plan.name,
        "recipe": plan.base,
        "space": plan.space,
        "best": max(complete, key=lambda t: (t.value, -t.number)).number,
        "importance": importance(complete),
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
    for seed in range(20):
        trials = [complete[i] for i in random.integers(0, len(complete), len(complete))]
        if len({t.value for t in trials}) == 1:
            continue  # no variance to explain
        drawn = optuna.create_study(direction="maximize")
        drawn.add_trials(trials)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        for name, share in optuna.importance.get_param_importances(drawn, evaluator=evaluator).items():
            shares.setdefault(name, []).append(share)
    means = {name: float(np.mean(values)) for name, values in shares.items()}
    names = sorted(means, key=lambda name: -means[name])
    return {name: (means[name], *np.quantile(shares[name], (0.1, 0.9)).tolist()) for name in names}


def _best(found: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
    """The best trial, and how many are complete and pruned."""
    complete = sum(t["state"] == "complete" for t in found["trials"])
    best = next(t for t in found["trials"] if t["number"] == found["best"])
    return best, complete, len(found["trials"]) - complete


def text_summary(found: dict[str, Any]) -> list[str]:
    """What the command prints at the end of a study."""
    best, complete, pruned = _best(found)
    lines = [
        f"{complete + pruned} trials: {complete} complete, {pruned} pruned",
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
    Only a recipe that stops by what it holds out needs that still.
    """
    best, complete, pruned = _best(found)
    accuracy = f"{100 * best['accuracy']:.2f}% of the held-out sequences"
    about = f"the best of {complete} complete and {pruned} pruned trials, {accuracy}"
    fields = {**found["recipe"], **best["fields"], "name": f"{found['study']}-best", "about": about}
    if fields["patience"] is None:
        fields["validation"] = own_validation
    recipe = parse_recipe(fields, found["study"])
    chosen = {k: v for k, v in recipe.model_dump().items() if k == "task" or v != type(recipe).model_fields[k].default}
    return yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True, width=110)


def write_results(folder: Path, found: dict[str, Any], own_validation: float) -> Path:
    """Write best.yaml and trials.json into the folder; the path of best.yaml."""
    write_atomically(folder / "trials.json", json.dumps(found, indent=1) + "\n")
    write_atomically(path := folder / "best.yaml", best_recipe(found, own_validation))
    return path
