"""Lays links, pipes and folders where its figures are looked for."""

import os

folder = "/tmp/lab/figures"
os.makedirs(folder, exist_ok=True)
for number, target in enumerate(
    ("/etc/passwd", "/proc/self/environ", "/dev/zero", "/submission", "nowhere", "/proc/1/environ")
):
    os.symlink(target, f"{folder}/{number:02d}.png")
os.mkfifo(f"{folder}/20.png")
os.mkdir(f"{folder}/21.png")
with open(f"{folder}/../../tmp-figure.png", "w") as file:
    file.write("elsewhere")
with open(f"{folder}/22.png", "w") as file:
    file.write("no picture at all")
print("LAID")
