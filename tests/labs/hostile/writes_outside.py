"""Writes wherever it can: the system, the package, its own hand-in, devices; makes devices; mounts."""

import ctypes
import os
import sys

import unroll

places = [
    "/",
    "/usr",
    "/usr/bin",
    "/usr/local/lib",
    "/etc",
    "/lib",
    "/root",
    "/home",
    "/var",
    "/dev",
    "/proc",
    "/submission",
]
places += [sys.prefix, sys.base_prefix, os.path.dirname(sys.executable), os.path.dirname(unroll.__file__), *sys.path]
for folder in filter(None, places):
    try:
        with open(os.path.join(folder, "unroll-was-here"), "w") as file:
            file.write("x")
        print("WROTE", folder)
    except OSError:
        pass
for path in (__file__, unroll.__file__, sys.executable, os.path.join(sys.prefix, "pyvenv.cfg")):
    for mode in ("r+b", "ab"):
        try:
            with open(path, mode):
                print("OPENED", path)
        except OSError:
            pass
    try:
        os.chmod(path, os.stat(path).st_mode)
        print("CHANGED", path)
    except OSError:
        pass
for path, text in (
    ("/proc/sys/kernel/hostname", ""),
    ("/proc/self/oom_score_adj", "-1000"),
    ("/proc/sysrq-trigger", ""),
):
    try:
        with open(path, "w") as file:
            file.write(text)
        print("WROTE", path)
    except OSError:
        pass
try:
    os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))
    print("MADE a device")
except OSError:
    pass
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"none", b"/tmp/lab", b"tmpfs", 0, None) == 0:
    print("MOUNTED")
    libc.umount(b"/tmp/lab")
