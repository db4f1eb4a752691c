"""Prints without end (256 MB at most)."""

for _ in range(256):
    print("x" * (1 << 20))
print("DONE")
