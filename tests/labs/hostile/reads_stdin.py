"""Looks for its task, and for what is handed to it besides: stdin, and every open file."""

import os

print("STDIN", os.read(0, 1000))
for handle in range(3, 100):
    try:
        name = os.readlink(f"/proc/self/fd/{handle}")
        os.set_blocking(handle, False)
        print("HANDLE", handle, name.split(":")[0], os.read(handle, 1000))
    except OSError:
        continue
