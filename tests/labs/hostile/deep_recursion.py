"""Calls itself until the stack is full."""

import ctypes
import sys

sys.setrecursionlimit(10**9)


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
def deeper(value):
    return deeper(value + 1)


deeper(0)
