"""Takes memory in many processes, each of which stays below the limit (16 times 400 MB, for 20 seconds)."""

import posix
import time

for _ in range(16):
    if posix.fork() == 0:
        held = b"x" * (400 << 20)
        time.sleep(20)
        posix._exit(0)
time.sleep(20)
print("HELD", 16 * 400, "MB")
