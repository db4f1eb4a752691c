"""Lets a process of its own print without end, past everything that Python knows of (256 MB at most)."""

import posix
import time

if posix.fork() == 0:
    for _ in range(4096):
        posix.write(1, b"x" * (1 << 16))
    posix._exit(0)
time.sleep(30)
print("DONE")
