"""Ends at once and leaves a process that prints later (60 seconds at most)."""

import os
import posix
import time

if posix.fork() == 0:
    os.setsid()
    if posix.fork() == 0:
        for _ in range(60):
            time.sleep(1)
            posix.write(1, b"STILL HERE\n")
posix._exit(0)
