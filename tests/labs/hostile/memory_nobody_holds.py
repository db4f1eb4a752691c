"""Takes memory that belongs to no process: memfd, and System V's shared memory (64 MB each)."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
try:
    handle = os.memfd_create("mine")
    os.ftruncate(handle, 64 << 20)
    print("TAKEN memfd")
except OSError as error:
    print("memfd", error)
number = libc.shmget(0, 64 << 20, 0o1600)
if number >= 0:
    print("TAKEN shmget")
    libc.shmctl(number, 0, None)  # IPC_RMID
