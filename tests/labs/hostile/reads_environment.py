"""Prints the environment: its own, and that of every process that it can see."""

import glob
import os

print(dict(os.environ))
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        with open(path, "rb") as file:
            print("ENVIRON", path, file.read())
    except OSError as error:
        print(path, error.strerror)
