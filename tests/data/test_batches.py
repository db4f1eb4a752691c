"""Batches of sequences: each sequence once, padding, and the sorting by length."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unroll.data.batches import POOL, Batch, Sequences, batches


class Plain:
    """An encoder that only turns time to the front."""

    task = "plain"
    class_names = ("a", "b")
    input_size = 1

    def features(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return values.transpose(0, 1)

    def to_json(self) -> dict[str, object]:
        return {}


def ragged(N: int) -> Sequences:
    """Sequence n holds n + 1 over and over, of random length; its class is n, so that it can be told in a batch."""
    lengths = torch.randint(1, 60, (N,), generator=torch.Generator().manual_seed(5))
    return Sequences(torch.arange(1, N + 1).repeat_interleave(lengths), torch.arange(N), lengths)


@pytest.mark.parametrize("seed", [None, 3])
def test_every_sequence_comes_once_and_whole_with_zeros_after_it(seed: int | None) -> None:
    data = ragged(2 * POOL * 4 + 3)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    seen: list[int] = []
    for batch in batches(data, Plain(), 4, generator):
        assert batch.lengths is not None
        assert data.lengths is not None
        for k, n in enumerate(batch.y.tolist()):
            column = batch.x[:, k]
            assert int(batch.lengths[k]) == int(data.lengths[n])
            assert (column[: batch.lengths[k]] == n + 1).all()
            assert (column[batch.lengths[k] :] == 0).all()
            seen.append(n)
    assert sorted(seen) == list(range(len(data)))
    assert (seen == list(range(len(data)))) == (seed is None)


def test_only_one_batch_is_smaller_than_the_others() -> None:
    data = ragged(POOL * 4 + 9)
    sizes = sorted(len(batch.y) for batch in batches(data, Plain(), 4, torch.Generator().manual_seed(0)))
    assert sizes == [1, *[4] * (len(sizes) - 1)]
    assert len(sizes) == -(-len(data) // 4)


def test_shuffled_batches_hold_little_padding_but_change_from_epoch_to_epoch() -> None:
    data = ragged(1000)

    def epoch(seed: int) -> list[list[int]]:
        return [batch.y.tolist() for batch in batches(data, Plain(), 20, torch.Generator().manual_seed(seed))]

    def padding(found: list[list[int]]) -> float:
        assert data.lengths is not None
        steps = sum(len(batch) * int(data.lengths[batch].max()) for batch in found)
        return 1 - int(data.lengths.sum()) / steps

    first, second = epoch(1), epoch(2)
    assert padding(first) < 0.05 < 0.4 < padding([batch.y.tolist() for batch in batches(data, Plain(), 20)])
    assert epoch(1) == first
    together = {frozenset((a, b)) for batch in first for a in batch for b in batch if a != b}
    again = {frozenset((a, b)) for batch in second for a in batch for b in batch if a != b}
    assert len(together & again) < 0.7 * len(together), "who shares a batch with whom must change"
    lengths = [int(data.lengths[batch].max()) for batch in first]  # type: ignore[index]
    assert lengths != sorted(lengths), "short sentences must not all come first"


def test_sequences_of_equal_length_are_not_padded() -> None:
    data = Sequences(torch.arange(12).view(6, 2), torch.arange(6))
    found = list(batches(data, Plain(), 4, torch.Generator().manual_seed(1)))
    assert [batch.lengths for batch in found] == [None, None]
    assert sorted(n for batch in found for n in batch.y.tolist()) == list(range(6))
    assert [batch.x.shape for batch in found] == [(2, 4), (2, 2)]


def test_a_share_of_a_batch_ends_with_its_own_longest_sequence() -> None:
    x, y = torch.arange(24).view(6, 4), torch.arange(4)
    share = Batch(x, y, torch.tensor([6, 2, 1, 3])).share(1, 2)
    assert torch.equal(share.x, x[:3, 1::2])
    assert (share.y.tolist(), share.lengths.tolist()) == ([1, 3], [2, 3])
    share = Batch(x, y, None).share(0, 2)
    assert torch.equal(share.x, x[:, ::2])
    assert share.lengths is None


def test_batches_are_augmented_only_where_that_is_asked_for() -> None:
    class Augmenting(Plain):
        def features(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return super().features(values) + (generator is not None)

    data, generator = Sequences(torch.zeros(4, 2, 1), torch.arange(4)), torch.Generator()
    assert all(not batch.x.any() for batch in batches(data, Augmenting(), 2, generator))
    assert all(batch.x.all() for batch in batches(data, Augmenting(), 2, generator, augment=True))
