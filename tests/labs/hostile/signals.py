"""Kills its parent, the first process, and the grader, if it can find them by their commands."""

import glob
import os
import signal

for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        with open(path, "rb") as file:
            command = file.read()
    except OSError:
        continue
    if b"unroll-victim" in command:
        os.kill(int(path.split("/")[2]), signal.SIGTERM)
        print("KILLED", command)
for number in (1, os.getppid()):
    try:
        os.kill(number, signal.SIGKILL)
        print("sent to", number)
    except OSError as error:
        print(number, error.strerror)
print("HERE")
