"""Labelled sentences: tokenizer, vocabulary, files, parts, and every kind of bad input."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unroll.data.batches import batches
from unroll.data.parts import visible
from unroll.data.sentences import (
    RULES,
    UNKNOWN,
    SentenceEncoder,
    _token,
    build_vocabulary,
    lab_dataset,
    load_sentence_dataset,
    load_test_sentences,
    read_sentences,
    tokenize,
)
from unroll.errors import DataError, InputError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reviews(folder: Path, count: int = 40, name: str = "reviews.csv") -> Path:
    """Sorted by label, as files often are: first all good ones, then all bad ones, four times as many."""
    good = [f"a good film number {n},1" for n in range(count // 5)]
    bad = [f"a bad film number {n},0" for n in range(count - count // 5)]
    return write(folder, name, "\n".join(["text,label", *good, *bad]) + "\n")


# --------------------------------------------------------------------------------------------------------- tokenizer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The movie is good", ["the", "movie", "is", "good"]),
        ("It's NOT bad: 3.5 stars!!", ["it's", "not", "bad", ":", "3.5", "stars", "!", "!"]),
        ("'quoted' movies'", ["'", "quoted", "'", "movies", "'"]),
        ("10,000 of 9/11. 1.", ["10,000", "of", "9/11", ".", "1", "."]),
        ("snake_case #tag", ["snake", "_", "case", "#", "tag"]),
        ("l’heure d’été", ["l'heure", "d'été"]),
        ("cafe\u0301", ["caf\u00e9"]),
        ("हिन्दी फ़िल्म", ["हिन्दी", "\u092b\u093c\u093f\u0932\u094d\u092e"]),
        ("Привет, мир", ["привет", ",", "мир"]),
        ("这部电影 good", ["这", "部", "电", "影", "good"]),
        ("한국어 영화", ["한국어", "영화"]),
        ("so 😀!", ["so", "😀", "!"]),
        ("", []),
        (" \t\n\u2028", []),
        ("\u200bgood\u200bfilm\ufeff\u200e", ["good", "film"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("I \u2764\ufe0f it, \u2764", ["i", "\u2764", "it", ",", "\u2764"]),
        ("\ufe0f \u200d \ufeff \u3164 \U000e0041", []),
        ("x\u200d \u200dx \u200d\u2764\u200d", ["x", "x", "\u2764"]),
        ("co\u00adoperate a\ufeffb", ["cooperate", "ab"]),
        ("👨\u200d👩\u200d👧👍🏽👍", ["👨\u200d👩\u200d👧", "👍🏽", "👍"]),
        ("🇩🇪🇫🇷 1\ufe0f\u20e3 #\ufe0f\u20e3", ["🇩🇪", "🇫🇷", "1\u20e3", "#\u20e3"]),
    ],
)
def test_a_text_is_parted_into_words_numbers_and_marks_in_any_script(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


def test_case_is_kept_when_asked_for() -> None:
    assert tokenize("The movie", lowercase=False) == ["The", "movie"]


@given(st.text(alphabet=st.characters(max_codepoint=126, min_codepoint=9)))
def test_the_fast_way_for_ascii_agrees_with_the_general_one(text: str) -> None:
    for rules in (1, RULES):
        assert tokenize(text, lowercase=False) == _token(rules).findall(text)


def letters(text: str) -> str:
    return text.replace("\u2019", "'").replace("\u200c", "").replace("\u200d", "")


@given(st.text())
def test_no_character_that_can_be_seen_is_lost(text: str) -> None:
    kept = "".join(letters(visible(text)).split())
    assert letters("".join(tokenize(text, lowercase=False))) == kept
    lost = set(unicodedata.normalize("NFC", text)) - set(unicodedata.normalize("NFC", visible(text)))
    assert all(unicodedata.category(c) in ("Cf", "Mn", "Lo", "Cn") for c in lost - {"\u200b"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I \u2764\ufe0f it", ["i", "\u2764", "\ufe0f", "it"]),
        ("👨\u200d👩 👍🏽", ["👨", "\u200d", "👩", "👍", "🏽"]),
        ("co\u00adoperate a\ufeffb", ["co", "operate", "a", "b"]),
    ],
)
def test_models_of_version_0_1_read_as_they_learnt_to(tmp_path: Path, text: str, words: list[str]) -> None:
    assert tokenize(text, rules=1) == words
    saved = {**encoder_of(*sorted(set(words))).to_json(), "max_length": None}
    assert saved.pop("rules") == RULES
    old = SentenceEncoder.from_json(saved)
    assert old.tokens(text) == words
    assert old.unknown_words([text]) == [[]]
    path = write(tmp_path, "a.csv", f"text,label\n{text},n\n{text},y\n")
    assert load_test_sentences(str(path), old).values.shape == (2, len(words))
    again = load_sentence_dataset(str(path), str(path), encoder=old)
    assert again.encoder is old
    assert again.test is not None
    assert again.test.values.shape == (2, len(words))


@given(st.text())
def test_no_text_can_hold_the_unknown_word(text: str) -> None:
    assert UNKNOWN not in tokenize(text + UNKNOWN)


# -------------------------------------------------------------------------------------------------------- vocabulary


def test_the_vocabulary_is_ordered_by_frequency_then_alphabet_and_cut_by_both_limits() -> None:
    sentences = [["b", "a", "c"], ["c", "b", "a"], ["c", "d"]]
    assert build_vocabulary(sentences) == ("c", "a", "b", "d")
    assert build_vocabulary(sentences, min_count=2) == ("c", "a", "b")
    assert build_vocabulary(sentences, max_vocabulary=2) == ("c", "a")


def test_words_outside_the_training_part_are_unknown(tmp_path: Path) -> None:
    train = write(tmp_path, "train.csv", "text,label\nfine film,1\npoor film,0\n")
    test = write(tmp_path, "test.csv", "text,label\nfine movie,1\n")
    data = load_sentence_dataset(str(train), str(test))
    encoder = data.encoder
    assert isinstance(encoder, SentenceEncoder)
    assert encoder.words == (UNKNOWN, "film", "fine", "poor")
    assert data.test is not None
    assert encoder.words_of(data.test.values[0]) == ["fine", UNKNOWN]
    assert encoder.unknown_words(["Fine movie movie, fine"]) == [["movie", ","]]


def test_rare_words_are_unknown(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\nfine film,1\npoor film,0\nfine one,1\n")
    encoder = load_sentence_dataset(str(path), min_count=2).encoder
    assert isinstance(encoder, SentenceEncoder)
    assert encoder.words == (UNKNOWN, "film", "fine")


# ----------------------------------------------------------------------------------------------------------- the lab


def test_the_lab_has_its_five_words_in_order_and_no_unknown_one() -> None:
    data = lab_dataset()
    assert isinstance(data.encoder, SentenceEncoder)
    assert data.encoder.words == ("The", "movie", "is", "good", "bad")
    assert data.train.values.tolist() == [[0, 1, 2, 3], [0, 1, 2, 4]]
    assert data.train.y.tolist() == [1, 0]
    assert data.encoder.class_names == ("0", "1")
    assert data.test is not None
    assert data.test.values.tolist() == [[0, 1, 2, 4], [0, 1, 2, 3]]
    assert data.test.y.tolist() == [0, 1]


def test_without_an_unknown_word_others_are_left_out_but_something_must_remain() -> None:
    encoder = lab_dataset().encoder
    assert isinstance(encoder, SentenceEncoder)
    values, lengths = encoder.encode(["The new movie is good", "bad"])
    assert lengths is not None
    assert values.tolist() == [0, 1, 2, 3, 4]
    assert lengths.tolist() == [4, 1]
    with pytest.raises(InputError, match=r"sentence 2 holds no word .*'the new'.*The, movie, is, good, bad"):
        encoder.encode(["bad", "the new"])


# ----------------------------------------------------------------------------------------------------------- encoder


def encoder_of(*words: str, **options: object) -> SentenceEncoder:
    return SentenceEncoder((UNKNOWN, *words), ("n", "y"), **options)  # type: ignore[arg-type]


def test_encoded_sentences_follow_each_other_with_their_lengths() -> None:
    encoder = encoder_of("a", "b")
    values, lengths = encoder.encode(["a b a", "c"])
    assert values.tolist() == [1, 2, 1, 0]
    assert lengths is not None
    assert lengths.tolist() == [3, 1]
    values, lengths = encoder.encode(["a b", "b a"])
    assert values.tolist() == [[1, 2], [2, 1]]
    assert lengths is None


def test_only_the_first_words_are_read_when_a_maximum_is_set() -> None:
    values, _ = encoder_of("a", "b", max_length=2).encode(["a b b b"])
    assert values.tolist() == [[1, 2]]
    assert encoder_of("a", max_length=2).unknown_words(["a x y"]) == [["x"]]


def test_an_encoder_survives_json() -> None:
    encoder = encoder_of("a", "ß", lowercase=False, max_length=7, word_dropout=0.25)
    assert SentenceEncoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder


def test_features_are_time_first() -> None:
    assert encoder_of("a").features(torch.tensor([[0, 1, 1]])).tolist() == [[0], [1], [1]]


def test_word_dropout_replaces_the_share_of_words_asked_for_and_only_with_a_generator() -> None:
    encoder = encoder_of("a", word_dropout=0.25)
    values = torch.ones(200, 200, dtype=torch.int64)
    assert encoder.features(values).min() == 1
    dropped = encoder.features(values, torch.Generator().manual_seed(1))
    assert 0.24 < float((dropped == 0).double().mean()) < 0.26
    assert values.min() == 1, "the stored words must not change"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a b", "expected a list of sentences, got one string"),
        (["a", ""], "sentence 2 holds no word: ''"),
        (["a", 5], "sentence 2 is of type int; expected text"),
    ],
)
def test_what_is_no_list_of_sentences_is_named(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder_of("a").encode(texts)


# ------------------------------------------------------------------------------------------------------------- files

CSV = 'text,label\n"good, really\ngood",yes\n"a ""bad"" one",no\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv", CSV.encode("utf-8-sig")),
        ("a.csv", CSV.replace("\n", "\r\n")),
        ("a.csv", CSV.replace("\n", "\n\n").replace("really\n\n", "really\n")),
        ("a.csv", 'label;id;text\nyes;1;"good, really\ngood"\nno;2;"a ""bad"" one"\n'),
        ("a.tsv", 'text\tlabel\n"good, really\ngood"\tyes\n"a ""bad"" one"\tno\n'),
        ("a.txt", 'text\tlabel\n"good, really\ngood"\tyes\n"a ""bad"" one"\tno\n'),
        ("a.tsv", 'text\tlabel\ngood, really good\tyes\na "bad" one\tno\n'),
        ("a.jsonl", '{"text": "good, really\\ngood", "label": "yes"}\n\n{"label": "no", "text": "a \\"bad\\" one"}\n'),
        ("a", '{"text": "good, really\\ngood", "label": "yes"}\n{"label": "no", "text": "a \\"bad\\" one"}'),
    ],
)
def test_one_content_is_read_alike_from_every_format(tmp_path: Path, name: str, content: str | bytes) -> None:
    found = read_sentences(write(tmp_path, name, content))
    assert found.series == [["good", ",", "really", "good"], ["a", '"', "bad", '"', "one"]]
    assert found.labels == ["yes", "no"]


def test_quotes_that_do_not_balance_are_plain_characters_in_tsv(tmp_path: Path) -> None:
    found = read_sentences(write(tmp_path, "a.tsv", 'text\tlabel\n"So good\t1\n"Bad\t0\n'))
    assert found.series == [['"', "so", "good"], ['"', "bad"]]


def test_a_line_ends_only_where_the_file_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\rone\u2028two\x0bthree,1\rfour\u0085five,0\r")
    assert read_sentences(path).series == [["one", "two", "three"], ["four", "five"]]


def test_columns_can_be_named_or_counted(tmp_path: Path) -> None:
    named = write(tmp_path, "a.csv", "stars,review\n5,good\n1,bad\n")
    assert read_sentences(named, "review", "stars").labels == ["5", "1"]
    counted = write(tmp_path, "b.csv", "5,good\n1,bad\n")
    assert read_sentences(counted, "2", "1").series == [["good"], ["bad"]]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["2", "10", "1"], ("1", "2", "10")),
        (["b", "a", "10"], ("10", "a", "b")),
        (["0.5", "-1", "3"], ("-1", "0.5", "3")),
    ],
)
def test_labels_of_any_kind_become_classes_in_a_sensible_order(
    tmp_path: Path, labels: list[str], names: tuple[str, ...]
) -> None:
    path = write(tmp_path, "a.csv", "text,label\n" + "".join(f"word w{k},{label}\n" for k, label in enumerate(labels)))
    data = load_sentence_dataset(str(path))
    assert data.encoder.class_names == names
    assert [names[k] for k in data.train.y.tolist()] == labels


def test_labels_in_json_may_be_numbers_or_truth_values(tmp_path: Path) -> None:
    lines = ['{"text": "a", "label": 1}', '{"text": "b", "label": 1.0}', '{"text": "c", "label": true}']
    assert read_sentences(write(tmp_path, "a.jsonl", "\n".join(lines))).labels == ["1", "1", "true"]


def test_the_parts_have_the_classes_in_proportion_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    data = load_sentence_dataset(str(reviews(tmp_path, 100)), test=0.2, validation=10, seed=3)
    assert data.test is not None
    assert data.validation is not None
    assert [len(part) for part in (data.train, data.validation, data.test)] == [70, 10, 20]
    assert [int(part.y.sum()) for part in (data.train, data.validation, data.test)] == [14, 2, 4]
    texts = [
        tuple(data.encoder.words_of(words))  # type: ignore[attr-defined]
        for part in (data.train, data.validation)
        for words in part.values
    ]
    assert len(set(texts)) > 60, "training and held-out sentences must differ"


def test_the_split_follows_from_the_seed(tmp_path: Path) -> None:
    path = str(reviews(tmp_path))
    first, again, other = (load_sentence_dataset(path, test=0.25, seed=seed) for seed in (1, 1, 2))
    assert first.encoder == again.encoder
    assert torch.equal(first.train.values, again.train.values)
    assert first.encoder != other.encoder


def test_the_vocabulary_never_sees_the_held_out_parts(tmp_path: Path) -> None:
    data = load_sentence_dataset(str(reviews(tmp_path, 50)), test=0.2, validation=0.2)
    encoder = data.encoder
    assert isinstance(encoder, SentenceEncoder)
    used = {word for k in data.train.values.unique().tolist() for word in [encoder.words[k]]}
    assert used == set(encoder.words) - {UNKNOWN}
    assert data.test is not None
    assert 0 in data.test.values, "some number occurs in the test part alone"


def test_sentences_of_a_batch_do_not_change_each_other(tmp_path: Path) -> None:
    from unroll.models import SequenceClassifier

    path = write(tmp_path, "a.csv", "text,label\nshort one,1\na very much longer second sentence,0\nmid size here,1\n")
    data = load_sentence_dataset(str(path))
    model = SequenceClassifier("lstm", data.encoder.input_size, 3, 2, bidirectional=True, engine="reference").double()
    (together,) = batches(data.train, data.encoder, 3)
    p = model(together.x, together.lengths)
    for n, alone in enumerate(batches(data.train, data.encoder, 1)):
        torch.testing.assert_close(model(alone.x, alone.lengths)[0], p[n], rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", " \n\n", "is empty"),
        ("a.csv", "text,label\n", "holds no record"),
        ("a.csv", "review,stars\ngood,1\n", "no column 'text'; its first line names 'review', 'stars'"),
        ("a.csv", "text,text,label\na,b,1\n", "2 columns are named 'text'"),
        ("a.csv", "text,label\nok,1\nwell, hello,1\n", "line 3: found 3 fields, expected 2"),
        ("a.csv", "text,label\nok,1\nhello\n", "line 3: found 1 field, expected 2"),
        ("a.csv", 'text,label\nok,1\n"never\nending,1\nb,0\n', "line 3: a quoted field begins here and does not end"),
        ("a.csv", 'text,label\n"a\nb",1\n"x" y,1\n', "line 4: after a quoted field"),
        ("a.csv", "text,label\nok,1\n ,0\n", "line 3: the sentence holds no word"),
        ("a.csv", "text,label\nok,1\nhello,\n", "line 3: the label .label. is missing"),
        ("a.csv", b"text,label\nok,1\ncaf\xe9,0\n", "line 3: byte 0xe9 is not UTF-8"),
        ("a.csv", "text,label\na b,1\n".encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"\n', "line 2: not valid JSON"),
        ("a.jsonl", '{"text": "a", "label": 1}\n["b", 1]\n', "line 2: expected an object"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b", "stars": 1}\n',
            "has no 'label'; it holds 'text', 'stars'",
        ),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": 7, "label": 1}\n',
            "line 2: the sentence .text. is 7",
        ),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b", "label": null}\n',
            "line 2: the label .label. is missing",
        ),
        ("a.csv", "text,label\na b,1\nb a,1\n", "all 2 sequences of .*a.csv have the label '1'"),
        ("a.csv", "text,label\na,1\na,0\n", "vocabulary of .*a.csv has 1 of the 2 words"),
    ],
)
def test_bad_files_are_refused_in_one_line_that_names_the_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as caught:
        load_sentence_dataset(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"text": "b", "label": 1' + "0" * 5_000 + "}", "too many digits"),
        (r'{"text": "x\ud83da", "label": 1}', r"'text' holds \\ud83d, which is half of a character"),
        (r'{"text": "b", "label": "\udc00"}', r"'label' holds \\udc00, which is half of a character"),
    ],
)
def test_json_that_python_cannot_hold_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a", "label": 0}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"^{path}, line 2: .*{message}"):
        read_sentences(path)


def test_whole_characters_in_two_escapes_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", r'{"text": "x \ud83d\ude00", "label": 0}')
    assert read_sentences(path).series == [["x", "😀"]]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv does not exist"):
        load_sentence_dataset(str(tmp_path / "absent.csv"))


def test_a_column_beyond_the_last_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no column 3; its lines have 2 fields"):
        load_sentence_dataset(str(write(tmp_path, "a.csv", "a b,1\nc,0\n")), text_column="1", label_column="3")


def test_a_label_that_the_training_part_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    train = write(tmp_path, "train.csv", "text,label\na,x\nb,y\n")
    test = write(tmp_path, "test.csv", "text,label\na,x\nb,z\n")
    with pytest.raises(DataError, match=r"test\.csv, line 3: label 'z' does not occur in the training part.* x, y"):
        load_sentence_dataset(str(train), str(test))


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ("a b,1\nc d,0\n", {"min_count": 2}, "lower min_count, which is 2"),
        ("a b,1\nc d,0\n", {"max_vocabulary": 1}, "raise max_vocabulary, which is 1"),
        ("a,1\na,0\n", {"min_count": 2}, "no two different words, so that there is nothing to learn from"),
    ],
)
def test_a_vocabulary_too_small_names_what_made_it_so(
    tmp_path: Path, lines: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_sentence_dataset(str(write(tmp_path, "a.csv", "text,label\n" + lines)), **options)  # type: ignore[arg-type]


def test_a_field_of_any_length_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\n"' + "good " * 100_000 + '",1\n')
    assert read_sentences(path).series == [["good"] * 100_000]


def test_a_label_of_no_kind_that_can_be_a_class_is_not_called_missing(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a", "label": ["x"]}')
    with pytest.raises(DataError, match=r"line 1: the label \(label\) is of type list; expected text or a number"):
        read_sentences(path)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(InputError, match=r"^sentence 2 holds \\udcff, which is half of a character"):
        encoder_of("a", "b").encode(["a", "b \udcff"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text_column", "foo"),
        ("label_column", "2"),
        ("min_count", 2),
        ("max_vocabulary", 3),
        ("max_length", 2),
        ("validation", 0.5),
    ],
)
def test_how_to_read_a_file_is_refused_where_there_is_none(name: str, value: object) -> None:
    with pytest.raises(DataError, match=f"{name} is {value!r}, but there is no data; say where it is with --data FILE"):
        load_sentence_dataset(None, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("test", "validation"), [(40, 0.0), (0.01, 0.0), (0.0, 0.999)])
def test_a_split_that_leaves_nothing_is_refused(tmp_path: Path, test: float, validation: float) -> None:
    with pytest.raises(DataError, match="leaves nothing on one side"):
        load_sentence_dataset(str(reviews(tmp_path, 40)), test=test, validation=validation)
