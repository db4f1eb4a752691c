"""Where and with what a run ran."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from typing import Any

import torch

import unroll
from unroll.engines import native
from unroll.training import distributed


def facts() -> dict[str, Any]:
    """Versions, machine, processes if more than one, threads of each, engine and time, as plain values."""
    return {
        "unroll": unroll.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        **({"processes": distributed.size()} if distributed.size() > 1 else {}),
        "threads": torch.get_num_threads(),
        "engine": native.describe(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
