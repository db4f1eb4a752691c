"""Takes shared memory, which the usual limit of a process does not count (8 GB at most, for 20 seconds)."""

import mmap
import time

held = []
for _ in range(128):
    held.append(mmap.mmap(-1, 64 << 20))
    for page in range(0, 64 << 20, 4096):
        held[-1][page] = 1
print(f"HELD {len(held) * 64} MB")
time.sleep(20)
