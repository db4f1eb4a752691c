"""The command `unroll`: parse, call, print.

Nothing heavy is imported until a command needs it. Bad input ends with one line on stderr and exit status 2.
"""

from __future__ import annotations

import atexit
import codecs
import gc
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

import unroll
from unroll import commands_lab, commands_report, commands_tuning
from unroll.errors import InputError, UnrollError, nearest, shortened
from unroll.files import made_folder
from unroll.options import SEEDS, Command, RecipeCommand, given_fields, output, progress, with_places
from unroll.terminal import open_closed, printable, say
from unroll.training import DeviceName, distributed

if TYPE_CHECKING:
    from unroll.training.run import RunFolder


class TrainCommand(RecipeCommand):
    """`train`, which several processes may run together."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        distributed.join()  # before anything can fail, so that all processes fail alike
        return super().parse_args(ctx, args)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(unroll.__version__, message="unroll %(version)s")
def cli() -> None:
    """Recurrent networks written out from their equations: train, test, predict, look inside.

    Begin with: unroll train lstm-mnist
    """


@cli.command(cls=TrainCommand, short_help="Train a recipe and test it.")
@click.argument("recipe", required=False)
@output("run folder to make; runs/RECIPE if left out", metavar="RUN")
@click.option("--resume", metavar="RUN", help="go on with an interrupted run")
@click.option("--no-test", is_flag=True, help="do not look at the test set (while choosing between recipes)")
@click.option("--no-figures", is_flag=True, help="do not draw")
@click.option("--tensorboard", is_flag=True, help="write TensorBoard event files into the run folder too")
def train(
    recipe: str | None,
    out: Path | None,
    resume: str | None,
    no_test: bool,
    no_figures: bool,
    tensorboard: bool,
    **fields: str | None,
) -> None:
    """Train the RECIPE (a name from `unroll recipes`, or a YAML file) and test it.

    Every field of a recipe can be given as an option, for instance --hidden-size 64 --seed 3.
    """
    changes = given_fields(fields)
    if resume is not None and (recipe or out or changes):
        raise InputError("--resume takes the run folder alone: recipe and fields are those that the run began with")
    if resume is None and recipe is None:
        raise InputError("name a recipe, as in: unroll train lstm-mnist (unroll recipes lists them)")
    if tensorboard and distributed.lead(lambda: find_spec("tensorboard") is None):
        raise InputError("tensorboard is not installed; install it with: pip install 'unroll-rnn[tensorboard]'")
    reading = None
    with _without_gc():
        from unroll.training.recipe import load_recipe

        if resume is None:
            assert recipe is not None
            # Before torch is imported: a misspelt name is answered at once.
            chosen = distributed.lead(lambda: load_recipe(recipe, changes))
            if chosen.task == "images":
                from unroll.data.images import begin_loading

                reading = begin_loading(chosen.data)
        from unroll.training.facts import facts
        from unroll.training.run import RunFolder
        from unroll.training.train import prepare
        from unroll.training.train import train as run_training

    hold = click.get_current_context().with_resource
    if resume is not None:
        folder = distributed.lead(lambda: RunFolder(resume))  # no other process needs to have the folder
        hold(folder.alone())
        chosen = distributed.lead(lambda: folder.recipe)
        dataset = None if distributed.lead(lambda: folder.finished) else prepare(chosen, begun=True)
    else:
        dataset = prepare(chosen, reading)  # before the folder is made: bad data leave nothing behind
        chosen = with_places(chosen)
        folder = distributed.lead(lambda: RunFolder.create(out or _free_folder(chosen.name), chosen, facts()))
        hold(folder.alone())
    try:
        if dataset is None:
            metrics = distributed.lead(lambda: _finished(folder, no_figures))
        else:
            with distributed.connected():
                metrics = run_training(
                    chosen,
                    folder,
                    echo=say,
                    test=not no_test,
                    tensorboard=tensorboard,
                    resume=resume is not None,
                    dataset=dataset,
                )
    except KeyboardInterrupt:
        if distributed.leads():
            say(f"interrupted; go on with: unroll train --resume {folder.path}", error=True)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if distributed.leads() and _is_no_memory(error) and not folder.history():
            folder.discard()  # not one epoch: there is nothing to go on with
        raise
    if not distributed.leads():
        return
    doubt = None if dataset is None else _no_better_than_guessing(folder.history(), len(dataset.encoder.class_names))
    if doubt is not None:
        say(f"unroll: {doubt}", error=True)
    if not no_figures and "test" in metrics:
        from unroll.report.figures import draw_figures

        try:
            draw_figures(folder)
        except Exception as error:  # whatever it is, the run itself is complete
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            say(f"unroll: the run is complete, but its figures could not be drawn ({reason})", error=True)
    say(f"Run folder: {folder.path}")


@cli.command(cls=Command, short_help="Test a trained model on a data set.")
@click.argument("run")
@click.option("--data", metavar="PATH", help="test on this data; the run's own test set if left out")
@click.option("--json", "as_json", is_flag=True, help="print everything measured, as JSON")
def evaluate(run: str, data: str | None, as_json: bool) -> None:
    """Test the trained model of RUN on a data set."""
    from unroll.training.run import evaluate as run_evaluation

    metrics = run_evaluation(run, data)
    if as_json:
        say(*json.dumps(metrics, indent=2).split("\n"))
        return
    low, high = metrics["interval95"]
    say(f"Test Accuracy: {100 * metrics['accuracy']:.2f}%")
    say(f"95% interval: {100 * low:.2f}% to {100 * high:.2f}% ({metrics['correct']} of {metrics['total']} correct)")
    for name, row in metrics["per_class"].items():
        if row["total"]:
            say(f"  {name}: {100 * row['accuracy']:.2f}% of {row['total']}")


@cli.command(cls=Command, short_help="Name the class of pictures, sentences or series.")
@click.argument("run")
@click.argument("inputs", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object a line")
def predict(run: str, inputs: tuple[str, ...], as_json: bool) -> None:
    """Name the class of each input.

    INPUTS are picture files, sentences, or files of series, as the run's data were; - reads them from stdin, one a
    line.
    """
    from unroll.data.sentences import SentenceEncoder
    from unroll.training.run import load
    from unroll.training.tasks import read_inputs, warnings_about

    classifier = load(run)
    given: list[tuple[str, str]] = []  # what errors call each input, and the input
    for item in inputs:
        if item == "-":
            given += _stdin_lines()
        elif isinstance(classifier.encoder, SentenceEncoder) and os.path.isfile(item):
            raise InputError(
                f"{item} is a file, and {run} reads sentences; to read it line by line: unroll predict {run} - < {item}"
            )
        else:
            given.append((f"sentence {len(given) + 1}", item))
    if not given:
        raise InputError("stdin held no line to predict")
    if isinstance(classifier.encoder, SentenceEncoder):
        for place, sentence in given:
            classifier.encoder.check(sentence, place)
    names, values = read_inputs(classifier.recipe, classifier.encoder, [item for _, item in given])
    predictions = classifier.predict(values)  # before any warning: where it fails, the error stands alone
    for warning in warnings_about(classifier.encoder, values):
        say(f"unroll: {warning}", error=True)
    for name, prediction in zip(names, predictions, strict=True):
        if as_json:
            row = {"input": name, "label": prediction.label, "probabilities": prediction.probabilities}
            say(json.dumps(row, ensure_ascii=False))
            continue
        ranked = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])
        listed = "  ".join(f"{label} {100 * p:.1f}%" for label, p in ranked[:3])
        say(f"{name}: {prediction.label}  ({listed})")


@cli.command(cls=Command, short_help="Backpropagation through time by hand, beside autograd.")
@click.argument("run", required=False)
def bptt(run: str | None) -> None:
    """Show backpropagation through time by hand, beside autograd.

    Two sentences of the RNN lab: hidden states, every gradient both ways, and the loss after p -= lr * p.grad. It
    begins with the lab's first weights, or with those of RUN.
    """
    from unroll.insight.bptt import demonstrate

    say(*demonstrate(run))


@cli.command(cls=Command, short_help="Draw every gate and state while an input is read.")
@click.argument("run")
@click.argument("given", metavar="[INPUT]", required=False)
@click.option("--number", type=int, metavar="N", help="look at test sequence N, counted from 0")
@click.option("--layer", type=click.IntRange(min=0), metavar="L", help="layer to draw, from 0; the top one if left out")
@click.option(
    "--direction",
    type=click.Choice(["forward", "backward"]),
    default="forward",
    metavar="WAY",
    help="of two directions: forward or backward",
)
@output("where to put the figure and the numbers; RUN/figures if left out")
def look(run: str, given: str | None, number: int | None, layer: int | None, direction: str, out: Path | None) -> None:
    """Draw what every gate and state of RUN does while it reads INPUT, a picture file or a sentence.

    Without INPUT it reads a sequence of the test set. The numbers behind the figure go to look.npz.
    """
    from unroll.files import refuse_foreign
    from unroll.insight.look import look as run_look
    from unroll.insight.trace import decided
    from unroll.report.figures import figure_files, save_figure
    from unroll.report.insight import draw_look

    folder = made_folder(out) if out else Path(run) / "figures"
    refuse_foreign(*figure_files(folder / "look"), folder / "look.npz")
    seen = run_look(run, given, number)
    trace = seen.trace
    figure = draw_look(*seen[:4], layer=-1 if layer is None else layer, direction=direction, meanings=seen.meanings)
    png = save_figure(figure, folder / "look")
    trace.save(folder / "look.npz")
    for warning in seen.warnings:
        say(f"unroll: {warning}", error=True)
    if trace.p is not None:
        p, T = trace.p[:, 0], int(trace.lengths[0])
        step, best = decided(p[:T]), int(p[T - 1].argmax())
        truth = "" if seen.truth is None else f" (it is {seen.truth})"
        say(
            f"It says {trace.class_names[best]} with probability {p[T - 1, best]:.4f}{truth}; "
            f"from step {step} of {T} on it never says anything else"
        )
    say(f"Figure: {png}", f"Numbers: {folder / 'look.npz'}")


@cli.command(cls=Command, short_help="Measure how far gradients reach back in time.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--inputs", type=int, default=200, metavar="N", help="test sequences to measure on; 200 if left out")
@click.option("--no-pixels", is_flag=True, help="do not read pictures pixel by pixel as well")
@output("where to put figure and numbers; the first RUN's figures if left out")
def gradients(runs: tuple[str, ...], inputs: int, no_pixels: bool, out: Path | None) -> None:
    """Measure how much of the loss's gradient reaches every time step: each RUN untrained and trained.

    Beside them stand untrained RNNs and LSTMs of the same size: recurrent weights small and large, forget biases 0, 1, 3.
    """
    from unroll.files import refuse_foreign, write_atomically
    from unroll.insight.gradients import measure_runs, text_table
    from unroll.report.figures import figure_files, save_figure
    from unroll.report.insight import draw_gradients

    folder = made_folder(out) if out else Path(runs[0]) / "figures"
    refuse_foreign(*figure_files(folder / "gradients"), folder / "gradients.json")
    curves = measure_runs(runs, inputs, not no_pixels, progress("models"))
    png = save_figure(draw_gradients(curves), folder / "gradients")
    write_atomically(folder / "gradients.json", json.dumps(curves) + "\n")
    found = min(curve["inputs"] for curve in curves)
    if found < inputs:
        say(f"unroll: measured on {found} test sequences, as there are no more of one length", error=True)
    _table(text_table(curves))
    say(f"Figure: {png}")
    say(f"Numbers: {folder / 'gradients.json'}")


@cli.command(cls=Command, short_help="Take one gate away at a time, and train again.")
@click.argument("run")
@click.option("--gate", "gates", multiple=True, metavar="NAME", help="f, i, o, c_tilde or coupled; all if left out")
@click.option("--seeds", type=SEEDS, default=3, metavar="N", help="trainings of each variant; 3 if left out")
@click.option("--epochs", type=int, metavar="N", help="epochs of each training; the run's own if left out")
@output("where to put the numbers; RUN if left out")
def ablate(run: str, gates: tuple[str, ...], seeds: int, epochs: int | None, out: Path | None) -> None:
    """Take one gate at a time away from the LSTM of RUN, train again, and see what it was worth."""
    from unroll.insight.ablate import ablate as run_ablation
    from unroll.insight.ablate import plan, text_table
    from unroll.training.fit import find_device
    from unroll.training.recipe import parse_recipe
    from unroll.training.run import RunFolder
    from unroll.training.trials import alone

    recipe = RunFolder(run).recipe
    if epochs is not None:
        recipe = parse_recipe({**recipe.model_dump(), "epochs": epochs}, run)
    plan(gates, seeds)  # a wrong name shall not wait for the data
    find_device(recipe.device, recipe.engine)
    folder = out or Path(run)
    with alone(folder, "unroll ablate"):
        rows = run_ablation(recipe, folder / "ablate.json", gates, seeds, progress("trainings"))
    _table(text_table(rows))
    say(f"Numbers: {folder / 'ablate.json'}")


@cli.command(cls=Command, short_help="Find out how long RNN and LSTM can remember.")
@click.argument("tasks", metavar="[TASK]...", nargs=-1)
@click.option(
    "--length",
    "lengths",
    type=click.IntRange(max=100_000),
    multiple=True,
    metavar="T",
    help="steps to remember; growing ones if left out",
)
@click.option("--seeds", type=SEEDS, default=3, metavar="N", help="trainings of each kind; 3 if left out")
@click.option(
    "--device", type=click.Choice(get_args(DeviceName)), default="cpu", help="where to train; cpu if left out"
)
@output("where to put figure and numbers; memory if left out", default="memory")
def memory(tasks: tuple[str, ...], lengths: tuple[int, ...], seeds: int, device: DeviceName, out: Path) -> None:
    """Find out for how many steps RNN and LSTM can keep something.

    The tasks: order (temporal order), adding, copy, rows (MNIST rows, then blank ones); all if left out. What FOLDER
    already holds is not trained again.
    """
    from unroll.files import refuse_foreign
    from unroll.insight.memory import measure, plan, summary, text_table
    from unroll.report.figures import figure_files, save_figure
    from unroll.report.insight import draw_memory
    from unroll.training.fit import find_device
    from unroll.training.trials import alone

    todo, folder = plan(tasks, lengths, seeds), out
    find_device(device)
    file = folder / "memory.json"
    refuse_foreign(*figure_files(folder / "memory"))
    with alone(folder, "unroll memory"):
        rows = summary(measure(todo, file, progress("trainings"), device))
    _table(text_table(rows))
    say(f"Figure: {save_figure(draw_memory(rows), folder / 'memory')}")
    say(f"Numbers: {file}")


@cli.command(cls=Command, short_help="List the recipes that come with the package.")
def recipes() -> None:
    """List the recipes that come with the package."""
    from unroll.training.recipe import known_recipes, load_recipe

    _table([[name, load_recipe(name).about] for name in known_recipes()])


@cli.command(cls=Command, short_help="List the cells that recipes can name, with their formulas.")
@click.argument("cells", nargs=-1, metavar="[CELLS]...")
@click.option("--input-size", type=click.IntRange(1, 4096), default=28, show_default=True, help="features D of x_t")
@click.option("--hidden-size", type=click.IntRange(1, 4096), default=128, show_default=True, help="hidden units H")
def cells(cells: tuple[str, ...], input_size: int, hidden_size: int) -> None:
    """List the cells that recipes can name (--cell NAME), with parameters, cost and formulas; all if CELLS are left out.

    Multiply-adds are those of one time step of one sequence, in products with weights. Names and formulas are those of the
    cells' sources, in unroll/cells; [0:128] are the first 128 entries.
    """
    from unroll.insight.cells import listed, text_formulas, text_table

    found = listed(cells, input_size, hidden_size)
    say(f"D = {input_size} features, H = {hidden_size} hidden units")
    _table(text_table(found))
    for cell in found:
        say("", *text_formulas(cell))


@cli.command(cls=Command, short_help="Name versions, machine and engine in use.")
def info() -> None:
    """Say which versions, which machine and which engine are in use."""
    from unroll.training.facts import facts

    for name, value in facts().items():
        say(f"{name}: {value}")


for command in (*commands_lab.COMMANDS, *commands_report.COMMANDS, *commands_tuning.COMMANDS):
    cli.add_command(command)


def _table(rows: list[list[str]]) -> None:
    from unroll.report.blocks import aligned

    say(*aligned(rows))


def _no_better_than_guessing(history: list[dict[str, Any]], classes: int) -> str | None:
    """What to say of a training that ended where guessing stands: the same probability, 1 / classes, for each class."""
    if not history or classes < 2:
        return None
    last, guessing = history[-1]["loss"], math.log(classes)
    if len(history) == 1:  # the mean over a first epoch holds the beginning too, which may be worse in any training
        last = min([last, *(loss for _, loss in history[0]["steps"][-1:])])
    if last < (0.99 if len(history) > 1 else 1) * guessing:
        return None
    return (
        f"the training loss ended at {last:.4g}, no better than guessing among {classes} classes ({guessing:.4g}); "
        "lower learning_rate, or train for more epochs"
    )


def _finished(folder: RunFolder, no_figures: bool) -> dict[str, Any]:
    """The metrics of a finished run, of which a killed process left something to be done: figures, or to tidy up.

    Raises:
        InputError: it left nothing.
    """
    metrics = folder.metrics()
    if not folder.tidy() and (no_figures or folder.drawn or "test" not in metrics):
        raise InputError(f"{folder.path} is finished; there is nothing to resume")
    return metrics


def _free_folder(name: str) -> Path:
    """runs/NAME, or runs/NAME-2 and so on where that is taken."""
    paths = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(path for path in paths if not path.exists())


def _stdin_lines() -> Iterator[tuple[str, str]]:
    """The lines of stdin that are not blank, each after its place; UTF-8, whatever the locale says."""
    content = b"" if sys.stdin is None else sys.stdin.buffer.read()  # None: closed by the shell
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        place = f"stdin, line {number}"
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            byte = line[error.start]
            raise InputError(f"{place}: byte 0x{byte:02x} is not UTF-8; give text in the encoding UTF-8") from None
        if text.strip():
            yield place, text


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 broken pipe, 2 bad input, 130 interrupted."""
    # Importing torch makes half a million objects; looking for garbage among them over and over takes 0.1 s, and once more at
    # the exit, which `freeze` spares us, 0.25 s. Nothing that follows makes much garbage.
    gc.set_threshold(100_000)
    open_closed()
    atexit.register(gc.freeze)
    try:
        if any("\0" in argument for argument in arguments or ()):
            raise InputError("an argument holds a NUL character; expected text")
        result = cli.main(args=arguments, prog_name="unroll", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        say(*error.format_message().split("\n"), error=True)
        sys.exit(2)
    except click.NoSuchOption as error:
        _fail(f"no such option {error.option_name!r}{nearest(error.option_name, error.possibilities or ['--help'])}")
    except (click.ClickException, UnrollError) as error:
        _fail(error.format_message() if isinstance(error, click.ClickException) else str(error))
    except (click.Abort, KeyboardInterrupt):
        if distributed.leads():
            say("interrupted", error=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it exits
        sys.exit(1)
    except OSError as error:
        place = error.filename or "while writing"
        _fail(f"{error.strerror or error}: {place}; free space or choose another place", alone=True)
    except UnicodeError as error:
        _fail(str(error), alone=True)
    except (MemoryError, RuntimeError) as error:
        if not _is_no_memory(error):
            raise
        _fail("not enough memory for a model or batch of this size; choose smaller sizes", alone=True)
    sys.exit(result or 0)


@contextmanager
def _without_gc() -> Iterator[None]:
    """Do without the garbage collector while torch is imported: 0.08 s less than with the threshold of `main`."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _is_no_memory(error: MemoryError | RuntimeError) -> bool:
    """torch raises a RuntimeError where it gets no memory."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def _fail(message: str, alone: bool = False) -> None:
    """One line and exit status 2; of a group of processes that all fail, the first has the word."""
    if alone or distributed.leads():
        say(f"unroll: {shortened(printable(' '.join(message.split())))}", error=True)
    if not alone:
        distributed.part()
    sys.exit(2)
