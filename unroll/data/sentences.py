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
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from unroll.data import notes, parts
from unroll.data.batches import Dataset, Sequences, as_sequences, ragged
from unroll.data.tables import read_records
from unroll.errors import DataError, InputError

UNKNOWN = "<unknown>"  # no word of a text can be this: the tokenizer parts brackets from letters

RULES = 2  # of how a text is parted into words: see `tokenize`

LAB_WORDS = ("The", "movie", "is", "good", "bad")
LAB_SENTENCES = (("The movie is good", "1"), ("The movie is bad", "0"))


# ------------------------------------------------------------------------------------------------------------- words


@cache
def _token(rules: int) -> re.Pattern[str]:
    """What counts as one word, in the order in which it is tried."""
    # Python's \w leaves out combining marks, and would cut Devanagari, Tamil or pointed Hebrew within syllables.
    marks = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c).startswith("M"))
    alone = "\u3040-\u30fa\u30fd-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana and Han
    letter, inner = rf"(?:(?![{alone}])[^\W_]|[{marks}])", "(?:['\u2019]|[\u200c\u200d]+)"
    # Emoji: a flag is two letters; skin tones and marks belong to what they follow, and joiners make one of several.
    symbol = rf"[^\w\s\u200c\u200d][{marks}\U0001f3fb-\U0001f3ff]*"
    other = rf"[\U0001f1e6-\U0001f1ff]{{2}} | {symbol}(?:\u200d{symbol})*"
    if rules == 1:
        unseen = "".join(c for c in map(chr, range(0x80, 0x10000)) if unicodedata.category(c) == "Cf")
        unseen = unseen.replace("\u200c", "").replace("\u200d", "") + "\U000e0001-\U000e007f"
        letter, inner = rf"(?:(?![{alone}])[^\W_]|[{marks}\u200c\u200d])", "['\u2019]"
        other = rf"[^\w\s{unseen}]"
    return re.compile(
        rf"""
          [{alone}]                             # scripts that put no space between words: each character
        | \d+(?:[.,:/]\d+)+                     # 3.5, 10,000, 20:15, 9/11
        | {letter}+(?:{inner}{letter}+)*        # words, with the apostrophes inside them: don't, l'heure
        | {other} | _                           # every other character that is not a space: ! ? , " #
        """,
        re.VERBOSE,
    )


# The common case at several times the speed: nothing but ASCII.
_ASCII_TOKEN = re.compile(r"\d+(?:[.,:/]\d+)+|[^\W_]+(?:'[^\W_]+)*|[^\w\s]|_")


def tokenize(text: str, lowercase: bool = True, rules: int = RULES) -> list[str]:
    """The words, numbers and punctuation marks of a text, in order.

    Composed and decomposed letters count as the same (Unicode NFC), and so do ' and ’. What is not seen, such as
    U+FE0F, is left out, and an emoji of several characters is one word, as Unicode's text segmentation (UAX 29) says.

    Args:
        rules: 1 as in version 0.1, where such characters were words; 2 as described.

    >>> tokenize("It's not bad: 3.5 stars!")
    ["it's", 'not', 'bad', ':', '3.5', 'stars', '!']
    """
    if lowercase:
        text = text.lower()
    if text.isascii():
        return _ASCII_TOKEN.findall(text)
    text = unicodedata.normalize("NFC", text) if rules == 1 else parts.visible(text)
    return [word.replace("\u2019", "'") for word in _token(rules).findall(text)]


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
        rules: see `tokenize`; runs of version 0.1 do not name them.
    """

    task: ClassVar[str] = "sentences"

    words: tuple[str, ...]
    class_names: tuple[str, ...]
    unknown: bool = True
    lowercase: bool = True
    max_length: int | None = None
    word_dropout: float = 0.0
    rules: int = RULES

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        return super().from_json({"rules": 1, **saved})

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
        return tokenize(text, self.lowercase, self.rules)[: self.max_length]

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
        return self._indices(words, place, InputError, text)

    def stored(self, found: parts.Labelled) -> tuple[Tensor, Tensor | None]:
        """Sentences as lists of words, in the form of `Sequences`.

        Raises:
            DataError: a sentence holds no word that is known, and unknown ones are left out.
        """
        sentences = zip(found.series, found.places, strict=True)
        return _ragged([self._indices(words, f"{place}: the sentence", DataError) for words, place in sentences])

    def _indices(
        self, words: Sequence[str], what: str, error: type[DataError | InputError], text: str | None = None
    ) -> list[int]:
        other = 0 if self.unknown else None
        indices = [k for word in words if (k := self.index.get(word, other)) is not None]
        if not indices:
            known = parts.listed(self.words, 12)
            raise error(
                f"{what} holds no word of the vocabulary: {(text or ' '.join(words))[:40]!r} (the vocabulary: {known})"
            )
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
    rules: int = RULES,
) -> parts.Labelled:
    """A CSV, TSV or JSON-lines file of labelled sentences; see `unroll.data.tables.read_records`.

    Raises:
        DataError: the file or one of its lines is not as expected.
    """
    records, others, doubts = read_records(path, (text_column, label_column))
    found = parts.Labelled(path, dropped=others, doubts=doubts)
    intern = sys.intern  # each word once in memory, and the dictionary look-ups later compare addresses
    for line, (text, label) in records:
        place = f"{path}, line {line}"
        name = parts.label_text(label, f"{place}: the label ({label_column})")
        if not isinstance(text, str):
            what = repr(text) if isinstance(text, int | float | None) else f"of type {type(text).__name__}"
            raise DataError(f"{place}: the sentence ({text_column}) is {what}; expected text")
        words = tokenize(text, lowercase, rules)[:max_length]
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
    encoder: SentenceEncoder | None = None,
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
        encoder: of a trained model; None: made for the training part.

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
            ("validation", validation, 0.0),
        ):
            if value != usual:  # it would be ignored without a word
                raise DataError(f"{name} is {value!r}, but there is no data; say where it is with --data FILE")
        return lab_dataset()
    path = Path(data)
    options = text_column, label_column, lowercase, max_length, encoder.rules if encoder else RULES
    files = [read_sentences(Path(file), *options) for file in (data, test_data) if file is not None]
    train, *others = files[0].divide(files[1] if test_data is not None else None, test, validation, seed)
    encoder = encoder or SentenceEncoder(
        (UNKNOWN, *_vocabulary(train, min_count, max_vocabulary)),
        parts.class_names(train.labels, path),
        True,
        lowercase,
        max_length,
        word_dropout,
    )
    made = Dataset.of(encoder, train, *others)
    said = [notes.summary(found, "sentences", [len(words) for words in found.series]) for found in files]
    for part, sequences in (("validation", made.validation), ("test", made.test)):
        if sequences is not None and encoder.unknown:
            said.append(notes.unknown_words(part, sequences.values))
    return replace(made, notes=list(chain(*said)))


def _vocabulary(train: parts.Labelled, min_count: int, max_vocabulary: int | None) -> tuple[str, ...]:
    words = build_vocabulary(train.series, min_count, max_vocabulary)
    if len(words) < 2:
        if len(set(chain.from_iterable(train.series))) < 2:
            remedy = "its sentences have no two different words, so that there is nothing to learn from"
        elif max_vocabulary == 1:
            remedy = "raise max_vocabulary, which is 1"
        else:
            remedy = f"lower min_count, which is {min_count}"
        raise DataError(
            f"the vocabulary of {train.where} has {len(words)} of the 2 words that it needs at least; {remedy}"
        )
    return words


def load_test_sentences(
    data: str, encoder: SentenceEncoder, text_column: str = "text", label_column: str = "label"
) -> Sequences:
    """A file of labelled sentences to test a trained model with.

    Raises:
        DataError: the file is not as expected, or holds a label that the model does not know.
    """
    options = encoder.lowercase, encoder.max_length, encoder.rules
    found = read_sentences(Path(data), text_column, label_column, *options)
    return as_sequences(encoder, found)
