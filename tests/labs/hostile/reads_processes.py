"""Looks at the other processes: their commands, folders, open files and memory."""

import glob
import os

own = str(os.getpid())
processes = [path for path in glob.glob("/proc/[0-9]*") if not path.endswith(f"/{own}")]
print(f"PROCESSES {len(processes)}")
for path in processes[:500]:
    try:
        with open(f"{path}/cmdline", "rb") as file:
            print("COMMAND", file.read())
    except OSError:
        continue
    for name in ("cwd", "root", "exe"):
        try:
            print("FOLDER", name, os.readlink(f"{path}/{name}"), os.listdir(f"{path}/{name}"))
        except OSError:
            continue
    for handle in filter(os.path.isfile, glob.glob(f"{path}/fd/*")):
        try:
            with open(handle, "rb") as file:
                print("OPEN", file.read(1000))
        except OSError:
            continue
    try:
        with open(f"{path}/mem", "rb") as file:
            print("MEMORY", file.readable())
    except OSError:
        continue
