"""Leaves threads, hooks and finalizers that go on after its end (60 seconds at most)."""

import atexit
import threading
import time


class Last:
    def __del__(self):
        time.sleep(60)


atexit.register(time.sleep, 60)
for _ in range(4):
    threading.Thread(target=time.sleep, args=(60,)).start()
last = Last()
print("END OF THE FILE")
