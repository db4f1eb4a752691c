"""Looks for keys, histories and settings in the homes of this machine."""

import contextlib
import os
import pwd

homes = {os.path.expanduser("~"), "/root", "/home", os.environ.get("HOME", "/"), os.environ.get("PWD", "/")}
with contextlib.suppress(OSError):
    homes |= {entry.pw_dir for entry in pwd.getpwall()}
for home in sorted(homes):
    try:
        print("HOME", home, sorted(os.listdir(home)))
    except OSError:
        continue
    for name in (
        ".ssh",
        ".aws",
        ".netrc",
        ".bash_history",
        ".git-credentials",
        ".config",
        ".kube",
        ".pypirc",
        ".secret",
    ):
        if os.path.exists(os.path.join(home, name)):
            print("FOUND", home, name)
for path in ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/machine-id", "/etc/ssh", "/var/run/docker.sock"):
    if os.path.exists(path):
        print("FOUND", path)
