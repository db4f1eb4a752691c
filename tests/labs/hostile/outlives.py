"""Leaves processes behind: by a double fork, in sessions of their own, with stdout held open, deaf to signals (60 seconds)."""

import os
import posix
import signal
import subprocess
import sys
import time

MARK = "unroll-left-behind"
if posix.fork() == 0:
    os.setsid()
    if posix.fork() != 0:
        posix._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    posix.execv(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(60)", MARK])
os.wait()
for new in (False, True):
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)", MARK], start_new_session=new)
time.sleep(0.5)
print("LEFT 3")
