"""The equations of a cell as data: one step, read from plain PyTorch into a small program."""

from unroll.equations.program import Program as Program
from unroll.equations.program import UnreadableError as UnreadableError
from unroll.equations.read import read as read
