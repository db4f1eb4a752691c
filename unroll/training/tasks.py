"""The tasks: which data a recipe reads, and which model it builds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unroll.cells.own import check_own, is_own, own_type
from unroll.data.augment import Augmentation
from unroll.data.batches import Dataset, Encoder, Sequences
from unroll.data.images import ImageEncoder, Reading, load_image_dataset, load_test_images
from unroll.data.sentences import LAB_SENTENCES, SentenceEncoder, load_sentence_dataset, load_test_sentences
from unroll.data.series import SeriesEncoder, load_series_dataset, load_test_series, read_series
from unroll.equations.carry import as_program
from unroll.equations.cell import ProgramCell
from unroll.equations.program import UnreadableError
from unroll.errors import DataError, RecipeError, RunError
from unroll.files import memory
from unroll.heads import Classification
from unroll.models import SequenceModel
from unroll.training.recipe import AnyRecipe, ImageRecipe, SentenceRecipe, SeriesRecipe, value_text

ENCODERS: dict[str, Any] = {"images": ImageEncoder, "sentences": SentenceEncoder, "series": SeriesEncoder}


def load_dataset(recipe: AnyRecipe, reading: Reading | None = None, encoder: Any = None) -> Dataset:
    """The data of a recipe, in memory; the reading of images may be under way.

    Args:
        encoder: of sentences or series, that a model was trained with; None: one is made for the training part.
    """
    if isinstance(recipe, ImageRecipe):
        augmentation = augmentation_of(recipe)
        return load_image_dataset(
            recipe.data, recipe.standardise, recipe.validation, augmentation, reading, recipe.pictures
        )
    parts: dict[str, Any] = {"test": recipe.test, "validation": recipe.validation, "seed": recipe.seed}
    if isinstance(recipe, SentenceRecipe):
        # A recipe whose batch is larger than the lab's two sentences is not about them: its file has been forgotten.
        if recipe.data is None:
            if recipe.batch_size > len(LAB_SENTENCES):
                raise DataError(
                    "say where your sentences are with --data FILE (CSV, TSV or JSON lines with columns text and label)"
                )
            for name, value in (("lowercase", recipe.lowercase), ("class_weights", recipe.class_weights != "none")):
                if value:  # the loader refuses the others
                    given = value_text(getattr(recipe, name))
                    raise DataError(f"{name} is {given}, but there is no data; say where it is with --data FILE")
        return load_sentence_dataset(
            recipe.data,
            recipe.test_data,
            **parts,
            **_columns(recipe),
            lowercase=recipe.lowercase,
            min_count=recipe.min_count,
            max_vocabulary=recipe.max_vocabulary,
            max_length=recipe.max_length,
            word_dropout=recipe.word_dropout,
            encoder=encoder,
        )
    return load_series_dataset(
        recipe.data, recipe.test_data, **parts, **_columns(recipe), fill_missing=recipe.fill_missing, encoder=encoder
    )


def _columns(recipe: SentenceRecipe | SeriesRecipe) -> dict[str, Any]:
    fields = recipe.model_dump()
    return {name: fields[name] for name in fields if name.endswith("_column") or name in ("features", "ignore")}


def augmentation_of(recipe: ImageRecipe) -> Augmentation:
    return Augmentation(recipe.rotation, recipe.scaling, recipe.shear, recipe.translation, recipe.elastic)


def build_model(
    recipe: AnyRecipe, encoder: Encoder, cell: Callable[[int, int], nn.Module] | None = None
) -> SequenceModel:
    """The model of a recipe, with its first weights drawn from torch's generator.

    Args:
        cell: makes the cells from D and H; None: as the recipe says.
    """
    kind: Any = cell or (own_type(recipe.cell) if is_own(recipe.cell) else recipe.cell)
    head = Classification(
        len(encoder.class_names),
        recipe.pooling,
        recipe.label_smoothing,
        balanced=getattr(recipe, "class_weights", "none") == "balanced",
    )
    return SequenceModel(
        kind,
        encoder.input_size,
        recipe.hidden_size,
        head,
        num_layers=recipe.num_layers,
        bidirectional=recipe.bidirectional,
        dropout=recipe.dropout,
        embedding_size=getattr(recipe, "embedding_size", None),
        nonlinearity=recipe.nonlinearity,
        engine=recipe.engine,
    )


def of_programs(recipe: AnyRecipe, rows: Sequence[Sequence[Any]]) -> Callable[[int, int], nn.Module]:
    """What makes the cells of a model from those that a file describes, layer by layer, direction by direction.

    Raises:
        InputError: one of them is no cell.
        RunError: there are more or fewer than the recipe has, or one does not fit where it stands.
    """
    shape = [2 if recipe.bidirectional else 1] * recipe.num_layers
    if [len(row) for row in rows] != shape:
        raise RunError(f"it has cells for {[len(row) for row in rows]} layers and directions; expected {shape}")
    data = iter([cell for row in rows for cell in row])

    def make(input_size: int, hidden_size: int) -> nn.Module:
        made = ProgramCell.from_data(next(data))
        if made.input_size not in (None, input_size):
            raise RunError(f"a cell of it reads {made.input_size} features; expected {input_size}")
        return made

    return make


def reads_words(recipe: AnyRecipe, layer: int = 0) -> bool:
    """Whether a layer reads word indices, each of which stands for a one-hot vector, and not features."""
    return layer == 0 and isinstance(recipe, SentenceRecipe) and recipe.embedding_size is None


def check_cell(recipe: AnyRecipe, encoder: Encoder) -> None:
    """Raise InputError where the recipe's cell is a class of one's own that makes no cells for its first two layers."""
    if not is_own(recipe.cell):
        return
    width, H = getattr(recipe, "embedding_size", None) or encoder.input_size, recipe.hidden_size
    with torch.random.fork_rng(devices=[]):
        check_own(recipe.cell, width, H, reads_words(recipe))
        if recipe.num_layers > 1:
            check_own(recipe.cell, H * (2 if recipe.bidirectional else 1), H, words=False)


def parameter_count(recipe: AnyRecipe, encoder: Encoder) -> int:
    """How many parameters the model of a recipe has; told without making it, however many layers it has."""

    def count(num_layers: int) -> int:
        return sum(
            p.numel() for p in build_model(recipe.model_copy(update={"num_layers": num_layers}), encoder).parameters()
        )

    with torch.device("meta"):
        one, two = count(1), count(2)  # all layers but the first are alike
    return one + (recipe.num_layers - 1) * (two - one)


def check_memory(recipe: AnyRecipe, encoder: Encoder) -> None:
    """Raise RecipeError where not even the parameters and what belongs to them fit into the machine's memory.

    Asked first, because a system that promises more memory than it has would try until it kills something.
    """
    # theta, the gradient as autograd leaves it and end to end, the optimiser's vectors, and the average
    if is_own(recipe.cell):  # only running it would tell
        return
    state = 2 if recipe.optimizer != "sgd" else 1 if recipe.momentum else 0
    vectors = 3 + state + (recipe.weight_average is not None)
    count, there = parameter_count(recipe, encoder), memory()
    needed = 4 * vectors * count
    if there is not None and needed > there:
        raise RecipeError(
            f"not enough memory: {count:,} parameters, with gradient and optimiser's state, take {needed // 10**9:,} GB, "
            f"and this machine has {there // 10**9:,} GB; choose a smaller hidden_size or fewer num_layers"
        )


def first_model(recipe: AnyRecipe, encoder: Encoder) -> SequenceModel:
    """The model as training begins with it: its weights follow from the recipe and its seed alone.

    The RNN lab's printed losses follow from seed 42 with W, U, b, W_out, b_out drawn in this order. Cells of one's own become
    their step programs, where they are readable: what is trained is then what the run's files carry.

    Raises:
        InputError: the cell is one's own, and `load_own` has not been asked to run its file.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # for parameters that a cell of one's own draws only when it is made
        model = build_model(recipe, encoder)
        torch.manual_seed(recipe.seed)
        model.initialise(recipe.initialisation, recipe.forget_bias)
        if is_own(recipe.cell):
            for layer, cells in enumerate(model.layers.cells):
                for direction, cell in enumerate(cells):
                    cells[direction] = _trainable(cell, words=reads_words(recipe, layer))  # type: ignore[index]
    return model


def _trainable(cell: Any, words: bool) -> Any:
    """The cell as its step programs; itself where training cannot do with those."""
    try:
        found = as_program(cell, words)
    except UnreadableError:
        return cell
    return cell if found.training_program is None else found


def test_lines(recipe: AnyRecipe, dataset: Dataset, p: Tensor) -> list[str]:
    """What the RNN lab prints about its two sentences, of class probabilities p (2, C); nothing of other data."""
    if not isinstance(recipe, SentenceRecipe) or recipe.data is not None:
        return []
    assert dataset.test is not None and isinstance(dataset.encoder, SentenceEncoder)  # noqa: PT018
    lines = ["=== Testing ==="]
    for words, k in zip(dataset.test.values, p.argmax(1).tolist(), strict=True):
        sentence = dataset.encoder.words_of(words)
        lines.append(f"Sentence: {sentence} -> Prediction: {dataset.encoder.class_names[k]}")
    return lines


def load_test_part(recipe: AnyRecipe, encoder: Encoder, data: str | None) -> Sequences:
    """The test part of `data` (None: of the recipe's own data), its labels numbered as the encoder's.

    Files of sentences and series are test data as a whole.

    Raises:
        DataError: the data do not fit the model, or the recipe's own have no test part.
    """
    if isinstance(encoder, ImageEncoder):
        return load_test_images(data or recipe.data, encoder)
    assert not isinstance(recipe, ImageRecipe)
    if data is None:
        test = load_dataset(recipe, encoder=encoder).test  # read by the rules that the model was trained with
        if test is None:
            raise DataError("the run set no test part aside; give a file with --data FILE")
        return test
    if isinstance(encoder, SentenceEncoder):
        return load_test_sentences(data, encoder, **_columns(recipe))
    assert isinstance(encoder, SeriesEncoder)
    return load_test_series(data, encoder, **_columns(recipe))


def read_inputs(recipe: AnyRecipe, encoder: Encoder, given: list[str]) -> tuple[list[str], list[Any]]:
    """What the command line was given to predict -> what to call each input, and the inputs for `Classifier.predict`.

    A file of series may hold many; pictures and sentences are taken as they are.
    """
    if not isinstance(encoder, SeriesEncoder):
        return given, list(given)
    assert isinstance(recipe, SeriesRecipe)
    names: list[str] = []
    series: list[Any] = []
    for path in given:
        found = read_series(Path(path), **_columns(recipe), labelled=False).with_features(encoder.feature_names)
        names += found.places
        series += found.series
    return names, series


def test_inputs(recipe: AnyRecipe, encoder: Encoder, most: int) -> list[Any]:
    """The first `most` inputs of the run's own test part, raw, as `Classifier.predict` takes them; none without one.

    Raises:
        DataError: the data cannot be read any more, or do not fit the model.
    """
    if not isinstance(encoder, SeriesEncoder):
        part = load_test_part(recipe, encoder, None)
        if isinstance(encoder, ImageEncoder):
            return list(part.values[:most].numpy())
        assert isinstance(encoder, SentenceEncoder)
        few = part.subset(torch.arange(min(most, len(part))))
        rows = few.values.split([1] * len(few) if few.lengths is None else few.lengths.tolist())
        return [" ".join(encoder.words_of(row.flatten())) for row in rows]
    assert isinstance(recipe, SeriesRecipe)
    columns = _columns(recipe)
    if recipe.test_data is not None:
        test = read_series(Path(recipe.test_data), **columns)
    elif recipe.data is None:
        return []
    else:
        *_, test = read_series(Path(recipe.data), **columns).divide(None, recipe.test, recipe.validation, recipe.seed)
    return test.with_features(encoder.feature_names).series[:most] if test.series else []


def warnings_about(encoder: Encoder, inputs: list[Any]) -> list[str]:
    """What a person should know of these inputs: the words that the vocabulary lacks."""
    if not isinstance(encoder, SentenceEncoder):
        return []
    fate = "read as the unknown word" if encoder.unknown else "left out"
    unknown = dict.fromkeys(word for words in encoder.unknown_words(inputs) for word in words)
    if not unknown:
        return []
    shown = ", ".join(list(unknown)[:20]) + (f" and {len(unknown) - 20} more" if len(unknown) > 20 else "")
    return [f"not in the vocabulary, {fate}: {shown}"]
