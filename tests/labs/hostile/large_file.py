"""Writes one file that is too large (1 GB at most), and another of which nearly nothing is written."""

import os

path = os.path.expanduser("~/large")
size = 0
try:
    with open(path, "wb", buffering=0) as file:
        while size < 1 << 30:
            size += file.write(b"x" * (16 << 20))
except OSError as error:
    print(error.strerror)
print(f"SIZE {os.path.getsize(path)}")
os.remove(path)
try:
    with open(path, "wb") as file:
        file.seek(1 << 40)
        file.write(b"x")
    print(f"SPARSE {os.path.getsize(path)}")
except OSError as error:
    print("sparse", error.strerror)
