"""Connects to every port of this machine, and to sockets without an address in the network (20 seconds at most)."""

import _socket
import time

end, tried = time.monotonic() + 20, 0
for port in range(1, 65536):
    one = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    one.settimeout(0.2)
    try:
        one.connect(("127.0.0.1", port))
        if one.getsockname() != one.getpeername():  # it can meet itself
            print("CONNECTED", port)
    except OSError:
        pass
    tried += 1
    one.close()
    if time.monotonic() > end:
        break
with open("/proc/net/unix") as file:
    names = [line.split()[-1] for line in file if "unroll-secret" in line]
for name in names:
    one = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    one.connect("\0" + name.lstrip("@"))
    print("CONNECTED", name)
print(f"TRIED {tried}")
