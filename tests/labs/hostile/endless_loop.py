"""Computes without end (60 seconds at most)."""

import time

end = time.monotonic() + 60
while time.monotonic() < end:
    pass
print("DONE")
