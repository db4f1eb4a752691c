"""The cells: one file per set of equations, one time step each."""

from unroll.cells.lstm import LSTMCell, LSTMGates
from unroll.cells.rnn import RNNCell

Cell = RNNCell | LSTMCell

__all__ = ["Cell", "LSTMCell", "LSTMGates", "RNNCell"]
