"""Sentences with labels: files on disk -> words -> indices into the vocabulary.

Not here: stemming, subwords, and the segmentation of languages that are written without spaces (Chinese and Japanese
are read character by character; Thai, Lao, Khmer and Burmese want spaces between words put in beforehand).
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from unroll.data import parts
from unroll.data.batches import Dataset, Sequences, as_sequences, ragged
from unroll.data.tables import read_records
from unroll.errors import DataError, InputError

UNKNOWN = "<unknown>"  # no word of a text can be this: the tokenizer parts brackets from letters

LAB_WORDS = ("The", "movie", "is", "good", "bad")
LAB_SENTENCES = (("The movie is good", "1"), ("The movie is bad", "0"))


# ------------------------------------------------------------------------------------------------------------- words


@cache
def _token() -> re.Pattern[str]:
    """What counts as one word, in the order in which it is tried."""
    # Python's \w leaves out combining marks, and would cut Devanagari, Tamil or pointed Hebrew within syllables.
    marks = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c).startswith("M"))
    alone = "\u3040-\u30fa\u30fd-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana and Han
    # Characters that are not seen, such as the zero-width space, part words and are none; joiners belong to words.
    unseen = "".join(c for c in map(chr, range(0x80, 0x10000)) if unicodedata.category(c) == "Cf")
    unseen = unseen.replace("\u200c", "").replace("\u200d", "") + "\U000e0001-\U000e007f"
    letter = rf"(?:(?![{alone}])[^\W_]|[{marks}\u200c\u200d])"
    return re.compile(
        rf"""
          [{alone}]                             # scripts that put no space between words: each character
        | \d+(?:[.,:/]\d+)+                     # 3.5, 10,000, 20:15, 9/11
        | {letter}+(?:['\u2019]{letter}+)*      # words, with the apostrophes inside them: don't, l'heure
        | [^\w\s{unseen}] | _                   # every other character that is not a space: ! ? , " #
        """,
        re.VERBOSE,
    )


# The common case at several times the speed: nothing but ASCII.
_ASCII_TOKEN = re.compile(r"\d+(?:[.,:/]\d+)+|[^\W_]+(?:'[^\W_]+)*|[^\w\s]|_")


def tokenize(text: str, lowercase: bool = True) -> list[str]:
    """The words, numbers and punctuation marks of a text, in order.

    Composed and decomposed letters count as the same (Unicode NFC), and so do ' and ’.

    >>> tokenize("It's not bad: 3.5 stars!")
    ["it's", 'not', 'bad', ':', '3.5', 'stars', '!']
    """
    if lowercase:
        text = text.lower()
    if text.isascii():
        return _ASCII_TOKEN.findall(text)
    return [word.replace("\u2019", "'") for word in _token().findall(unicodedata.normalize("NFC", text))]


def build_vocabulary(
    sentences: Iterable[Sequence[str]], min_count: int = 1, max_vocabulary: int | None = None
) -> tuple[str, ...]:
    """The words that occur at least `min_count` times, the most frequent first, equally frequent ones by alphabet."""
    counts = Counter(chain.from_iterable(sentences))
    words = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
    return tuple(words[:max_vocabulary])


# ----------------------------------------------------------------------------------------------------------- encoder


@dataclass(frozen=True)
class SentenceEncoder(parts.Saved):
    """Sentences as word indices; each index stands for a one-hot vector of length V.

    Attributes:
        words: the vocabulary; index k stands for `words[k]`.
        class_names: what the classes are called.
        unknown: index 0 is `UNKNOWN` and stands for every word that the vocabulary lacks. Without it, as in the lab,
            such words are left out.
        lowercase: The and the are one word.
        max_length: read only so many words of a sentence; None all.
        word_dropout: share of words that `features` replaces by the unknown word in training, so that the model learns
            to do without any single one, and what to make of unknown ones (Iyyer et al. 2015, section 3).
    """

    task: ClassVar[str] = "sentences"

    words: tuple[str, ...]
    class_names: tuple[str, ...]
    unknown: bool = True
    lowercase: bool = True
    max_length: int | None = None
    word_dropout: float = 0.0

    @property
    def input_size(self) -> int:
        """V, the number of entries."""
        return len(self.words)

    @cached_property
    def index(self) -> dict[str, int]:
        """word -> its index."""
        return {word: k for k, word in enumerate(self.words)}

    def tokens(self, text: str) -> list[str]:
        """The words of a text that the model reads, known or not."""
        return tokenize(text, self.lowercase)[: self.max_length]

    def words_of(self, indices: Tensor) -> list[str]:
        """Word indices (T,) -> the words."""
        return [self.words[k] for k in indices.tolist()]

    def unknown_words(self, texts: Sequence[str]) -> list[list[str]]:
        """For each text the words that the vocabulary lacks, in order, each once."""
        return [[word for word in dict.fromkeys(self.tokens(text)) if word not in self.index] for text in texts]

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Texts -> word indices, in the form of `Sequences`: (N, T) and None, or (ΣT,) and lengths (N,).

        Raises:
            InputError: a text holds no word (or, without an unknown word, none that is known).
        """
        if isinstance(texts, str):
            raise InputError(f"expected a list of sentences, got one string; write [{texts[:20]!r}]")
        return _ragged([self.check(text, f"sentence {n}") for n, text in enumerate(texts, start=1)])

    def check(self, text: str, place: str) -> list[int]:
        """The word indices of one text; `place` begins the message where it cannot be read.

        Raises:
            InputError: as `encode`.
        """
        if not isinstance(text, str):
            raise InputError(f"{place} is of type {type(text).__name__}; expected text")
        parts.refuse_surrogates(text, place, InputError)
        words = self.tokens(text)
        if not words:
            raise InputError(f"{place} holds no word: {text[:40]!r}")
        return self._indices(words, place, InputError)

    def stored(self, found: parts.Labelled) -> tuple[Tensor, Tensor | None]:
        """Sentences as lists of words, in the form of `Sequences`.

        Raises:
            DataError: a sentence holds no word that is known, and unknown ones are left out.
        """
        sentences = zip(found.series, found.places, strict=True)
        return _ragged([self._indices(words, f"{place}: the sentence", DataError) for words, place in sentences])

    def _indices(self, words: Sequence[str], what: str, error: type[DataError | InputError]) -> list[int]:
        other = 0 if self.unknown else None
        indices = [k for word in words if (k := self.index.get(word, other)) is not None]
        if not indices:
            known = parts.listed(self.words, 12)
            raise error(f"{what} holds no word of the vocabulary: {' '.join(words)[:40]!r} (the vocabulary: {known})")
        return indices

    def features(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """values (B, T) -> model inputs (T, B); with a generator, some words become the unknown word."""
        if generator is not None and self.word_dropout > 0 and self.unknown:
            values = values.masked_fill(torch.rand(values.shape, generator=generator) < self.word_dropout, 0)
        return values.T


def _ragged(rows: list[list[int]]) -> tuple[Tensor, Tensor | None]:
    values = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int64)
    return ragged(values, [len(row) for row in rows])


# -------------------------------------------------------------------------------------------------------------- files


def read_sentences(
    path: Path,
    text_column: str = "text",
    label_column: str = "label",
    lowercase: bool = True,
    max_length: int | None = None,
) -> parts.Labelled:
    """A CSV, TSV or JSON-lines file of labelled sentences; see `unroll.data.tables.read_records`.

    Raises:
        DataError: the file or one of its lines is not as expected.
    """
    found = parts.Labelled(path)
    intern = sys.intern  # each word once in memory, and the dictionary look-ups later compare addresses
    for line, (text, label) in read_records(path, (text_column, label_column)):
        place = f"{path}, line {line}"
        name = parts.label_text(label, f"{place}: the label ({label_column})")
        if not isinstance(text, str):
            what = repr(text) if isinstance(text, int | float | None) else f"of type {type(text).__name__}"
            raise DataError(f"{place}: the sentence ({text_column}) is {what}; expected text")
        words = tokenize(text, lowercase)[:max_length]
        if not words:
            raise DataError(f"{place}: the sentence holds no word: {text[:40]!r}; remove the line or give it a text")
        found.series.append([intern(word) for word in words])
        found.labels.append(name)
        found.places.append(place)
    return found


def lab_dataset() -> Dataset:
    """The lab's own two sentences, to train on and to test with: a vocabulary of five words, no unknown word."""
    encoder = SentenceEncoder(LAB_WORDS, ("0", "1"), unknown=False, lowercase=False)
    texts, labels = zip(*LAB_SENTENCES, strict=True)
    both = as_sequences(encoder, parts.Labelled(Path(), [], [text.split() for text in texts], [*labels], [*texts]))
    return Dataset(encoder, both, None, both.subset(torch.tensor([1, 0])))  # the lab tests the bad movie first


def load_sentence_dataset(
    data: str | None = None,
    test_data: str | None = None,
    *,
    text_column: str = "text",
    label_column: str = "label",
    test: float = 0.0,
    validation: float = 0.0,
    seed: int = 0,
    lowercase: bool = True,
    min_count: int = 1,
    max_vocabulary: int | None = None,
    max_length: int | None = None,
    word_dropout: float = 0.0,
) -> Dataset:
    """Labelled sentences, ready to train on.

    Args:
        data: file to train on; None for the lab's own two sentences, which take none of the other arguments.
        test_data: file to test with; None to split off `test` of the sentences (below 1 a share, else a number).
        text_column, label_column: which columns to read: names, or numbers from 1 in a file without header line.
        validation: how much of what is left to hold out for choosing.
        seed: of the split; see `unroll.data.parts.split`.
        lowercase, min_count, max_vocabulary, max_length, word_dropout: see `build_vocabulary` and `SentenceEncoder`.
            The vocabulary is built on the training part alone.

    Raises:
        DataError: the files are not as expected, or the parts do not fit together.
    """
    if data is None:
        if test_data is not None:
            raise DataError(f"test_data is {test_data}, but there is no data to train on; give both files")
        for name, value, usual in (
            ("text_column", text_column, "text"),
            ("label_column", label_column, "label"),
            ("min_count", min_count, 1),
            ("max_vocabulary", max_vocabulary, None),
            ("max_length", max_length, None),
            ("word_dropout", word_dropout, 0.0),
        ):
            if value != usual:  # it would be ignored without a word
                raise DataError(f"{name} is {value!r}, but there is no data; say where it is with --data FILE")
        return lab_dataset()
    path = Path(data)
    options = text_column, label_column, lowercase, max_length
    everything = read_sentences(path, *options)
    own_test = None if test_data is None else read_sentences(Path(test_data), *options)
    train, *others = everything.divide(own_test, test, validation, seed)
    words = build_vocabulary(train.series, min_count, max_vocabulary)
    if len(words) < 2:
        if len(set(chain.from_iterable(train.series))) < 2:
            remedy = "its sentences have no two different words, so that there is nothing to learn from"
        elif max_vocabulary == 1:
            remedy = "raise max_vocabulary, which is 1"
        else:
            remedy = f"lower min_count, which is {min_count}"
        raise DataError(f"the vocabulary of {path} has {len(words)} of the 2 words that it needs at least; {remedy}")
    names = parts.class_names(train.labels, path)
    encoder = SentenceEncoder((UNKNOWN, *words), names, True, lowercase, max_length, word_dropout)
    return Dataset.of(encoder, train, *others)


def load_test_sentences(
    data: str, encoder: SentenceEncoder, text_column: str = "text", label_column: str = "label"
) -> Sequences:
    """A file of labelled sentences to test a trained model with.

    Raises:
        DataError: the file is not as expected, or holds a label that the model does not know.
    """
    found = read_sentences(Path(data), text_column, label_column, encoder.lowercase, encoder.max_length)
    return as_sequences(encoder, found)
