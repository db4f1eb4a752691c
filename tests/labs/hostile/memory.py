"""Takes memory without end (8 GB at most), and goes on where it gets none."""

import time

held, end = [], time.monotonic() + 20
while len(held) < 128 and time.monotonic() < end:
    try:
        held.append(b"x" * (64 << 20))
    except MemoryError:
        break
print(f"HELD {len(held) * 64} MB")
