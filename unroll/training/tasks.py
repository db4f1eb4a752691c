"""The tasks: which data a recipe reads, and which model it builds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unroll.data.augment import Augmentation
from unroll.data.batches import Dataset, Encoder, Sequences
from unroll.data.images import ImageEncoder, load_image_dataset, load_test_images
from unroll.models import SequenceClassifier
from unroll.training.recipe import AnyRecipe, ImageRecipe

ENCODERS: dict[str, Any] = {"images": ImageEncoder}


def load_dataset(recipe: AnyRecipe) -> Dataset:
    """The data of a recipe, in memory."""
    assert isinstance(recipe, ImageRecipe)
    return load_image_dataset(recipe.data, recipe.standardise, recipe.validation, augmentation_of(recipe))


def augmentation_of(recipe: ImageRecipe) -> Augmentation:
    return Augmentation(recipe.rotation, recipe.scaling, recipe.shear, recipe.translation, recipe.elastic)


def build_model(recipe: AnyRecipe, encoder: Encoder) -> SequenceClassifier:
    """The model of a recipe, with its first weights drawn from torch's generator."""
    model = SequenceClassifier(
        recipe.cell,
        encoder.input_size,
        recipe.hidden_size,
        len(encoder.class_names),
        num_layers=recipe.num_layers,
        bidirectional=recipe.bidirectional,
        dropout=recipe.dropout,
        embedding_size=getattr(recipe, "embedding_size", None),
        pooling=recipe.pooling,
        nonlinearity=recipe.nonlinearity,
        engine=recipe.engine,
    )
    return model


def class_weights(recipe: AnyRecipe, dataset: Dataset) -> Tensor | None:
    """(C,) N / (C · N_c), so that each class weighs the same in the loss; None where all sequences count alike."""
    if getattr(recipe, "class_weights", "none") == "none":
        return None
    counts = torch.bincount(dataset.train.y, minlength=len(dataset.encoder.class_names)).clamp(min=1)
    return len(dataset.train) / (len(counts) * counts.float())


def test_lines(recipe: AnyRecipe, dataset: Dataset, p: Tensor) -> list[str]:
    """What the labs print about the test set; p (N, C) are its class probabilities."""
    assert dataset.test is not None
    correct = int((p.argmax(1) == dataset.test.y).sum())
    return [f"Test Accuracy: {100 * correct / len(p):.2f}%"]


def load_test_part(recipe: AnyRecipe, encoder: Encoder, data: str | None) -> Sequences:
    """The test part of `data` (None: of the recipe's own data), its labels numbered as the encoder's."""
    assert isinstance(encoder, ImageEncoder)
    return load_test_images(data or recipe.data, encoder)
