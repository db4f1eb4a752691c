"""Connects to the world, by address and by name, and looks for devices of the network."""

import _socket
import os

for address in (("1.1.1.1", 443), ("8.8.8.8", 53), ("169.254.169.254", 80), ("10.0.0.1", 22), ("192.168.0.1", 80)):
    for kind in (_socket.SOCK_STREAM, _socket.SOCK_DGRAM):
        one = _socket.socket(_socket.AF_INET, kind)
        one.settimeout(2)
        try:
            one.connect(address)
            one.send(b"secret")
            print("CONNECTED", address, kind)
        except OSError as error:
            print(address, error.strerror)
        one.close()
try:
    print("RESOLVED", _socket.getaddrinfo("example.org", 443))
except OSError as error:
    print(error)
print("DEVICES", sorted(name for _, name in _socket.if_nameindex()), os.path.exists("/sys/class/net"))
