"""Tries to become root: by calls, by programs with root's rights, by a namespace of its own, by tracing its parent."""

import ctypes
import os
import subprocess

libc = ctypes.CDLL(None, use_errno=True)
for name in ("setuid", "setgid", "seteuid"):
    try:
        getattr(os, name)(0)
        print("BECAME", name)
    except OSError:
        pass
for flags, name in ((0x10000000, "user"), (0x00020000, "mount"), (0x40000000, "net"), (0x20000000, "pid")):
    if libc.unshare(flags) == 0:
        print("NAMESPACE", name)
if libc.ptrace(16, os.getppid(), 0, 0) == 0:  # PTRACE_ATTACH
    print("TRACED")
    libc.ptrace(17, os.getppid(), 0, 0)
for command in (["su", "-c", "id -u"], ["sudo", "-n", "id", "-u"], ["unshare", "-Ur", "id", "-u"], ["mount"]):
    try:
        ran = subprocess.run(command, capture_output=True, timeout=5, stdin=subprocess.DEVNULL)
        if ran.stdout.strip() == b"0":
            print("ROOT", command)
    except (OSError, subprocess.TimeoutExpired):
        pass
print("USER", os.getresuid(), os.getgroups())
with open("/proc/self/status") as file:
    print(*(line.strip() for line in file if line.startswith(("Cap", "NoNewPrivs", "Seccomp:"))))
