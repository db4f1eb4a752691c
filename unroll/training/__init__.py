"""Training: a recipe goes in, a run folder comes out."""

from typing import Literal

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
