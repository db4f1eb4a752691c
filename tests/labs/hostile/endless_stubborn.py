"""Does not want to be stopped: it catches everything, and every signal that can be caught (60 seconds at most)."""

import signal
import time

for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        continue
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        while time.monotonic() < end:
            pass
    except BaseException:
        continue
print("DONE")
