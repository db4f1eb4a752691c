"""Starts threads without end (200 at most, for 5 seconds)."""

import _thread
import time

count, why = 0, ""
for _ in range(200):
    try:
        _thread.start_new_thread(time.sleep, (5,))
        count += 1
    except RuntimeError as error:
        why = str(error)
        break
print(f"THREADS {count} {why}")
