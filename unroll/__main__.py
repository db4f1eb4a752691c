"""Where the command `unroll` begins, and `python -m unroll`."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # what `signal` wraps, without its imports: so long Ctrl-C is a traceback
import os


def main() -> None:
    """Import and run the command. Ctrl-C while it is imported ends the process at once, with status 130 and no traceback."""
    handles = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if handles:  # not where a shell has put it into the background, with Ctrl-C for others
        _signal.signal(_signal.SIGINT, lambda number, frame: os._exit(130))
    from unroll.cli import main as run

    if handles:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
