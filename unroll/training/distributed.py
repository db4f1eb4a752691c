"""Several processes, on one machine or more, that train one model together.

torchrun starts the same command in every process and says in the environment who is who. Each process reads its share of
every batch; torch's DistributedDataParallel adds up the gradients, so that all make the same update and stay the same to
the bit. Process 0 alone prints and writes. Nobody may wait for a message that never comes, so that failing is a joint
matter too: inside a group an UnrollError is raised in every process, by `together` and `lead` or because all computed the
same. An error of another kind ends its own process; the others notice the lost connection.

With one process every function here is trivial, and none needs torch.

Source: Li et al.: PyTorch distributed: experiences on accelerating data parallel training. VLDB 2020.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from unroll.errors import InputError, TrainingError, UnrollError

if TYPE_CHECKING:
    from torch import Tensor

    from unroll.data.batches import Batch

T = TypeVar("T")

_rank, _size = 0, 1


def rank() -> int:
    """The number of this process, from 0."""
    return _rank


def size() -> int:
    """How many processes there are."""
    return _size


def leads() -> bool:
    """Whether this is process 0, the one that prints and writes."""
    return _rank == 0


def join() -> None:
    """Meet the other processes, where torchrun (or whatever sets the same four variables) has started several.

    Raises:
        InputError: they cannot be reached.
    """
    global _rank, _size
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys() or _size > 1:
        return
    if os.environ["WORLD_SIZE"] == "1":
        return
    import torch
    from torch import distributed

    try:
        # Each tensor goes by the way of its own device: gradients on CUDA by nccl, everything on the CPU by gloo.
        nccl = torch.cuda.is_available() and distributed.is_nccl_available()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo")
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot meet the other processes at {place} ({reason}); see docs/distributed.md") from None
    atexit.register(distributed.destroy_process_group)
    _rank, _size = distributed.get_rank(), distributed.get_world_size()


def part() -> None:
    """Wait, before a joint failure ends this process, until all have come as far.

    torchrun stops everyone as soon as one process has failed, and process 0 may not have printed why yet.
    """
    if _size == 1:
        return
    with suppress(UnrollError):  # whoever has left already needs nothing more
        gather(None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so that each ends with its own exit status, not torchrun's signal


@contextmanager
def connected() -> Iterator[None]:
    """Within this context the end of another process is an error of one line.

    Raises:
        TrainingError: the connection is lost.
    """
    try:
        yield
    except RuntimeError as error:
        if _size == 1 or not _about_the_connection(error):
            raise
        raise TrainingError(
            "lost another process: it ended, or its machine cannot be reached; go on with --resume and the run folder"
        ) from None


def _about_the_connection(error: RuntimeError) -> bool:
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)  # gloo's own errors are bare RuntimeErrors


def gather(value: T) -> list[T]:
    """What every process gave, in the order of their numbers."""
    if _size == 1:
        return [value]
    from torch.distributed import all_gather_object

    values: list[Any] = [None] * _size
    with connected():
        all_gather_object(values, value)
    return values


def together(work: Callable[[], T]) -> T:
    """Every process does the work, and gets its own outcome; where one fails, all raise the first one's UnrollError."""
    result, failure = None, None
    try:
        result = work()
    except UnrollError as error:
        failure = error
    for number, (found, host) in enumerate(gather((failure, socket.gethostname()))):
        if found is not None:
            raise found if number == 0 else type(found)(f"process {number} on {host}: {found}")
    return result  # type: ignore[return-value]


def lead(work: Callable[[], T]) -> T:
    """Process 0 does the work; all get its outcome, or raise its UnrollError."""
    if _size == 1:
        return work()
    from torch.distributed import broadcast_object_list

    outcome: list[Any] = [None, None]
    if leads():
        try:
            outcome[0] = work()
        except UnrollError as error:
            outcome[1] = error
    with connected():
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


class Replica:
    """This process's copy of the model.

    Its parameters take process 0's values. They have to stay where they are: build the optimiser before.
    """

    def __init__(self, model: Any) -> None:
        from torch.nn import Module
        from torch.nn.parallel import DistributedDataParallel

        class Loss(Module):
            """DistributedDataParallel sees to the gradients of whatever `forward` returns."""

            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, *arguments: Any) -> Tensor:
                loss: Tensor = self.model.loss(*arguments)
                return loss

        self._model = model
        self._loss = DistributedDataParallel(Loss(), gradient_as_bucket_view=True)

    def backward(self, batch: Batch) -> Tensor:
        """Leave the gradient of the whole batch's mean loss in the parameters of every process.

        Process r reads its share S_r of the batch. The denominator is the whole batch's, so that shares may be of
        unequal size, or empty:

            loss_r = sum over i in S_r of w_(y_i) CE_i / sum over the batch of w_(y_i)
            loss = sum over r of loss_r

        Returns:
            The loss of the whole batch, 0-dim, the same bits in every process.
        """
        from torch import distributed

        share = batch.share(_rank, _size)
        loss: Tensor = self._loss(share.x, share.y, share.lengths, self._model.head.weight(batch.y))
        total = loss.detach().clone()
        under_way = distributed.all_reduce(total, async_op=True)  # hidden behind the backward pass
        (loss * _size).backward()  # DistributedDataParallel takes the mean over the processes, not the sum
        under_way.wait()
        return total
