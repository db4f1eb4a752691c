"""Waits for something that never comes (60 seconds at most)."""

import time

time.sleep(60)
print("DONE")
