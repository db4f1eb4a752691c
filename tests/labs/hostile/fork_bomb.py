"""Starts processes without end (200 at most, for 5 seconds)."""

import posix
import time

count, why = 0, ""
for _ in range(200):
    try:
        if posix.fork() == 0:
            time.sleep(5)
            posix._exit(0)
        count += 1
    except OSError as error:
        why = type(error).__name__
        break
print(f"FORKS {count} {why}")
