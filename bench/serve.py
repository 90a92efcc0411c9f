"""`headstart serve` under load, over loopback: against the engine alone, beyond what it can do, for long, and beside a tutorial.

    python bench/serve.py rate [--seconds 20] [--turns 3]      concurrent single photos against the engine's own rate on the same photos
    python bench/serve.py overload [--seconds 20]              three times the photos it can answer: p99 of the accepted, 429 for the rest
    python bench/serve.py soak [--seconds 1800]                memory while 40 photos a second, some damaged, and a reload a minute come in
    python bench/serve.py tutorial [--seconds 20] [--turns 3]  beside FastAPI + PyTorch as tutorials write it, on the same network

The load comes from bench/load.py, in a process of its own on the same cores. Engine, server and tutorial take turns, so that a busy machine
slows all of them; CPU milliseconds a photo hardly depend on what else runs. Weights and photos: shared/. mobilenetv2_100 with its 1,001
ImageNet classes (`--model embedded`: the small one in the package), 200 ImageNet photos of about 500 x 375 px.

PyTorch takes all cores by itself, and comes to a standstill where others want them, too: set OMP_NUM_THREADS=1 there for `tutorial`.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.bundle.format import load_bundle
from headstart.bundle.own_classes import open_model
from headstart.bundle.predict import stream
from machine import machine, shared

HERE = Path(__file__).parent
CONNECTIONS = 32
TUTORIAL = """
import io, sys, timm, torch, uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform

name, weights, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
network = timm.create_model(name, pad_type="same", num_classes=1001).eval()
network.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
transform = create_transform((3, 224, 224), crop_pct=0.875, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
app = FastAPI()

@app.post("/predict")
HANDLER predict(photos: UploadFile):
    image = Image.open(io.BytesIO(READ)).convert("RGB")
    with torch.inference_mode():
        probs = network(transform(image)[None]).softmax(1)[0]
    top = probs.topk(5)
    return [{"label": str(i), "probability": p} for p, i in zip(top.values.tolist(), top.indices.tolist())]

uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")
"""
# `async def` runs the network in the event loop, `def` in a pool of threads: tutorials do either.
HANDLERS = {"async def": ("async def", "await photos.read()"), "def": ("def", "photos.file.read()")}


class Server:
    """A process that listens on a port, and what it has cost so far."""

    def __init__(self, command: list[str], port: int | None, folder: Path) -> None:
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        environment.pop("HEADSTART_TOKEN", None)
        self._log = (folder / f"log-{time.monotonic_ns()}").open("w+b")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment)
        self.port = port if port is not None else self._announced()

    def _announced(self) -> int:
        found = re.search(r":(\d+)$", self.process.stdout.readline().strip())
        assert found is not None, "the server did not start"
        return int(found[1])

    def wait_for_port(self) -> None:
        import socket

        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, "the server has gone"
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0

    def close(self) -> int:
        self.process.terminate()
        status = self.process.wait(timeout=90)
        self._log.close()
        return status


@contextmanager
def serving(bundle: Path, folder: Path, *words: str) -> Iterator[Server]:
    command = [sys.executable, "-c", "from headstart.cli.main import main; main()", "serve", f"model={bundle}", "--port", "0", *words]
    server = Server(command, None, folder)
    try:
        yield server
    finally:
        assert server.close() == 0, "a server that was told to stop exits with 0"


def load(port: int, photos: Path, seconds: float, *words: str) -> dict:
    command = [sys.executable, str(HERE / "load.py"), str(port), str(photos), "--seconds", str(seconds), *words]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def engine(bundle: Path, photos: Path, seconds: float) -> tuple[float, float]:
    """Photos/s and CPU ms a photo of the engine alone, in a process of its own, photos in memory."""
    code = f"from serve import engine_here; engine_here({str(bundle)!r}, {str(photos)!r}, {seconds})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE)
    rate, cpu_ms = done.stdout.split()
    return float(rate), float(cpu_ms)


def engine_here(bundle: str, photos: str, seconds: float) -> None:
    model, data = load_bundle(bundle), [path.read_bytes() for path in sorted(Path(photos).iterdir())]
    list(stream(model, data[:64]))  # opened and warm
    n, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        n += sum(1 for _ in stream(model, data))
    print(n / (time.perf_counter() - wall), 1000 * (time.process_time() - cpu) / n)


def measured(server: Server, photos: Path, seconds: float, *words: str) -> tuple[float, float, dict]:
    """Photos/s, CPU ms a photo of server and load together, and the times of status 200; 32 connections that each wait for an answer."""
    before = server.cpu_s()
    found = load(server.port, photos, seconds, "--connections", str(CONNECTIONS), *words)
    cpu_s = server.cpu_s() - before + found["cpu_s"]
    good = found["statuses"].get("200", {"n": 0})
    others = {status: one["n"] for status, one in found["statuses"].items() if status != "200"}
    assert not others, f"answers other than 200: {others}"
    n_all = good["n"] * (seconds + 1) / seconds  # a second of warming up is not counted among the photos
    return good["n"] / found["wall_s"], 1000 * cpu_s / n_all, good


def rate(bundle: Path, photos: Path, folder: Path, seconds: float, turns: int) -> None:
    rows = []
    with serving(bundle, folder) as server:
        measured(server, photos, 2)
        for _ in range(turns):
            ours, theirs = measured(server, photos, seconds), engine(bundle, photos, seconds)
            rows.append((ours[0] / theirs[0], theirs[1] / ours[1]))
            print(
                f"serve {ours[0]:.0f} photos/s, {ours[1]:.2f} CPU ms a photo with its load, p50 {ours[2]['p50_ms']:.0f} ms, "
                f"p99 {ours[2]['p99_ms']:.0f} ms; engine {theirs[0]:.0f} photos/s, {theirs[1]:.2f} CPU ms; "
                f"ratio of rates {rows[-1][0]:.2f}, of CPU {rows[-1][1]:.2f}",
                flush=True,
            )
    print(
        f"median of {turns}: ratio of rates {statistics.median(r for r, _ in rows):.2f}, of CPU {statistics.median(c for _, c in rows):.2f}"
    )


def overload(bundle: Path, photos: Path, folder: Path, seconds: float) -> None:
    with serving(bundle, folder) as server:
        able, _, calm = measured(server, photos, max(3.0, seconds / 2))
        print(f"32 connections that wait: {able:.0f} photos/s, p99 {calm['p99_ms']:.0f} ms")
        found = load(server.port, photos, seconds, "--rate", str(3 * able))
        for status, one in found["statuses"].items():
            said = {"200": "answered", "429": "refused with 429", "0": "connection lost", "-1": "not sent: the load had no connection left"}
            times = f", p50 {one['p50_ms']:.0f} ms, p99 {one['p99_ms']:.0f} ms, slowest {one['max_ms']:.0f} ms" if status != "-1" else ""
            print(f"{3 * able:.0f} a second: {one['n']} {said.get(status, status)}{times}")
        good = found["statuses"]["200"]["n"]
        print(f"answered {good / found['wall_s']:.0f} photos/s meanwhile; memory {server.rss_mib():.0f} MiB")


def soak(bundle: Path, photos: Path, folder: Path, seconds: float, a_second: float) -> None:
    """Each minute: a steady stream of photos, one in 20 of them damaged, and a reload."""
    own, mixed = folder / "own", folder / "mixed"
    shutil.copytree(bundle, own)
    mixed.mkdir()
    for i, path in enumerate(sorted(photos.iterdir())):
        data = path.read_bytes()
        (mixed / path.name).write_bytes(data[: len(data) // 2] if i % 20 == 0 else data)
    sizes, end, statuses = [], time.monotonic() + seconds, {}
    with serving(own, folder) as server:
        while time.monotonic() < end:
            found = load(server.port, mixed, min(55.0, max(5.0, end - time.monotonic())), "--rate", str(a_second))
            for status, one in found["statuses"].items():
                statuses[status] = statuses.get(status, 0) + one["n"]
            sizes.append(server.rss_mib())
            os.utime(own / "bundle.json")  # loaded again within two seconds
            time.sleep(3)
            print(f"{sizes[-1]:.0f} MiB after {sum(statuses.values())} answers {statuses}", flush=True)
    fifth = max(1, len(sizes) // 5)
    first, last = statistics.median(sizes[fifth : 2 * fifth] or sizes), statistics.median(sizes[-fifth:])
    print(f"memory: {first:.0f} MiB in the second fifth, {last:.0f} in the last; peak {max(sizes):.0f}; answers {statuses}")


def tutorial(bundle: Path, photos: Path, folder: Path, seconds: float, turns: int) -> None:
    weights = shared() / "weights" / "mobilenetv2_100.imagenet1001.safetensors"
    with serving(bundle, folder) as server:
        for number, (words, (keyword, reading)) in enumerate(HANDLERS.items()):
            script = folder / f"tutorial{number}.py"
            script.write_text(TUTORIAL.replace("HANDLER", keyword).replace("READ", reading))
            port = 20_000 + os.getpid() % 10_000 + number
            peer = Server([sys.executable, str(script), "mobilenetv2_100", str(weights), str(port)], port, folder)
            try:
                peer.wait_for_port()
                path = ("--path", "/predict", "--kind", "form")
                load(peer.port, photos, 2, "--connections", "2", *path)  # warm
                rows = [(measured(server, photos, seconds, "--kind", "form"), measured(peer, photos, seconds, *path)) for _ in range(turns)]
            finally:
                peer.process.terminate()
                peer.process.wait()
            for (a, a_cpu, a_times), (b, b_cpu, b_times) in rows:
                print(
                    f"{words}: serve {a:.0f} photos/s, p99 {a_times['p99_ms']:.0f} ms, {a_cpu:.1f} CPU ms a photo; "
                    f"tutorial {b:.0f}, p99 {b_times['p99_ms']:.0f} ms, {b_cpu:.1f} CPU ms",
                    flush=True,
                )
            rates = statistics.median(ours[0] / theirs[0] for ours, theirs in rows)
            p99s = statistics.median(theirs[2]["p99_ms"] / ours[2]["p99_ms"] for ours, theirs in rows)
            print(f"{words}, median of {turns}: {rates:.1f} times its throughput, p99 {p99s:.1f} times shorter", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rate", "overload", "soak", "tutorial"))
    parser.add_argument("--seconds", type=float, help="of each turn; default 20, soak 1800")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rate", type=float, default=40, help="photos a second of a soak")
    parser.add_argument("--model", default="mobilenetv2_100", help="mobilenetv2_100, embedded, or a run folder")
    asked = parser.parse_args()
    weights = shared() / "weights" / "mobilenetv2_100.imagenet1001.safetensors"
    bundle = open_model(asked.model, weights if asked.model == "mobilenetv2_100" else None).folder
    seconds = asked.seconds if asked.seconds is not None else (1800 if asked.what == "soak" else 20)
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = folder / "photos"
        photos.mkdir()
        for path in sorted((shared() / "data" / "imagenet-samples").rglob("*.jp*g"))[:200]:
            shutil.copyfile(path, photos / path.name)
        arguments = (bundle, photos, folder, seconds)
        if asked.what == "overload":
            overload(*arguments)
        elif asked.what == "soak":
            soak(*arguments, asked.rate)
        else:
            {"rate": rate, "tutorial": tutorial}[asked.what](*arguments, asked.turns)


if __name__ == "__main__":
    main()
