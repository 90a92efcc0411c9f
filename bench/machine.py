"""What machine a benchmark ran on, for the line above its numbers."""

import os
import platform
import subprocess
from pathlib import Path


def machine() -> str:
    """Processor, cores, commit: enough to know whether two results compare."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith(("model name", "flags"))]
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
        model += " with AVX-512 bf16" if any("avx512_bf16" in line for line in lines) else ""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, commit {commit}"


def shared() -> Path:
    """The folder with real photos and weights: $HEADSTART_SHARED, else ../shared beside the checkout."""
    return Path(os.environ.get("HEADSTART_SHARED", Path(__file__).resolve().parents[2] / "shared"))
