"""Predicting: how fast, in ratios that one run measures, and in how much memory.

    python bench/predict.py overlap [--photos 2000] [--runs 3] [--bundle FOLDER] [NETWORK ...]
    python bench/predict.py peers [--photos 500] [--runs 3] [--only torch|keras] [--bundle FOLDER] [NETWORK ...]
    python bench/predict.py large [--photos 100] [--runs 3]
    python bench/predict.py memory [--photos 200000] [--bundle FOLDER] [csv] [parquet]

overlap: files to answers (headstart's stream, as `predict --out FILE.csv` has it) as a share of the best that the cores can give,
1 / (1/inference + 1/decode), since each of the two takes all cores alone; and the same in CPU time, which other work on the machine
disturbs less. Both are measured bare, in the same run and in turn: inference is OpenVINO's own asynchronous loop (AsyncInferQueue
over the same file, at the same precision, one image a request), decode is the decoder in as many threads as there are cores. Bar: 0.85.

peers: the same photos with headstart, a plain PyTorch fp32 script with a DataLoader of as many workers as there are cores, and
`model.predict` of Keras over batches that such a loader reads (its backend is said; the network is Keras's own of that name, fp32).
Bars, for ResNet-50: 2.3 and 1.9 times; with `--bundle` of an int8 export of it (bench/export.py makes one) 4 and 3.3.

large: photos of 12 megapixels (shared/data/imagenet-samples enlarged to 4000 x 3000, quality 90, in a temporary folder), with
headstart's decoder and with a full decode: decoding alone, and mobilenetv2_100 from files to answers; and whether the answers
agree. Both pipelines are headstart's but for the decoder. Bars: 5 times, 4 times, 99 % (of 100 photos and more). Answers are counted in the
precision that is fastest here and in fp32, where nothing but the decoder can make a difference.

memory: CIFAR-10's photos over and over, through `predict --out FILE.csv` and `FILE.parquet` (with a resnet10t at 64 px, if no `--bundle`
is given), each length in a process of its own. Bar: the peak of resident memory within 300 MiB of that for 2,000 photos.

Networks: mobilenetv2_100, resnet50. The first has ImageNet weights (shared/weights); ResNet-50 has random ones: only its size
matters. Photos: shared/data/imagenet-samples, repeated. `--bundle FOLDER NETWORK` measures a model of any kind in its place.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from headstart import progress
from headstart.bundle import predict as engine
from headstart.bundle.format import Bundle, Label, load_bundle
from headstart.bundle.job import predict_to
from headstart.bundle.listing import Paths
from headstart.bundle.predict import Prediction, open_engine
from headstart.data import pixels
from headstart.data.opening import open_upright
from headstart.data.pixels import Preprocessing
from headstart.data.reading import read_ahead
from headstart.features import runtime
from machine import machine, shared
from memory import Peak

NETWORKS = ("mobilenetv2_100", "resnet50")
ARGUMENTS = {"mobilenetv2_100": {"pad_type": "same", "num_classes": 1001}, "resnet50": {}, "resnet10t": {}}
KERAS = {"mobilenetv2_100": "MobileNetV2", "resnet50": "ResNet50"}
PIXELS = Preprocessing(224, 0.875, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BARS = {
    "torch, int8": 4.0,
    "keras, int8": 3.3,
    "overlap": 0.85,
    "torch": 2.3,
    "keras": 1.9,
    "decode": 5.0,
    "large": 4.0,
    "same": 0.99,
}
LARGE = (4000, 3000)
FORMATS = ("csv", "parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overlap", "peers", "large", "memory", "one"))
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--photos", type=int)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("torch", "keras"))
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_intermixed_args()
    if given.what == "one":  # a process of `memory`
        one_length(given.bundle, Path(given.networks[0]), given.networks[1], given.photos)
        return
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name, progress.quiet():
        folder = Path(name)
        os.environ["HEADSTART_CACHE"] = str(folder / "cache")
        if given.what == "memory":
            formats = [name for name in given.networks if name in FORMATS] or list(FORMATS)
            memory(folder, 200_000 if given.photos is None else given.photos, given.bundle, formats)
        elif given.what == "large":
            large(folder, 100 if given.photos is None else given.photos, given.runs)
        else:
            models = {name: given.bundle or bundle(name, folder) for name in given.networks[: 1 if given.bundle else None]}
            {"overlap": overlap, "peers": peers}[given.what](models, folder, given)


def bundle(name: str, folder: Path, preprocessing: Preprocessing = PIXELS) -> Path:
    """The network as a bundle; its weights for timm lie beside it."""
    import timm
    import torch
    from safetensors.torch import load_file, save_file

    from headstart.bundle.export import build_bundle
    from predict_cold import Normalised

    torch.manual_seed(0)
    network = timm.create_model(name, **ARGUMENTS[name]).eval()
    if name == "mobilenetv2_100":
        weights = load_file(shared() / "weights" / "mobilenetv2_100.imagenet1001.safetensors")
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    save_file(network.state_dict(), folder / f"{name}.safetensors")
    labels = [Label(str(i)) for i in range(network.num_classes)]
    about = {"temperature": 1.0, "provenance": {}, "licence": None}
    build_bundle(folder / name, module=Normalised(network).eval(), labels=labels, preprocessing=preprocessing, **about)
    return folder / name


def samples(n: int) -> Paths:
    """`n` photos, ImageNet's over and over."""
    files = sorted(map(str, (shared() / "data" / "imagenet-samples").glob("*.jpg")))
    return Paths(itertools.islice(itertools.cycle(files), n))


def rate(n: int, work: Callable[[], None]) -> float:
    """Photos a second."""
    started = time.perf_counter()
    work()
    return n / (time.perf_counter() - started)


def costs(n: int, work: Callable[[], None]) -> tuple[float, float]:
    """Photos a second, and milliseconds of this process's CPU time a photo, which a busy machine hardly changes."""
    before = time.process_time()
    return rate(n, work), 1000 * (time.process_time() - before) / n


def shown(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def verdict(ratios: list[float], bar: str) -> str:
    return f"{shown(ratios, 2)}, the bar is {BARS[bar]}: {'passed' if statistics.median(ratios) >= BARS[bar] else 'MISSED'}"


def overlap(models: dict[str, Path], folder: Path, given: argparse.Namespace) -> None:
    n = 2000 if given.photos is None else given.photos
    photos = samples(n)
    for name, place in models.items():
        model = load_bundle(place)
        session = open_engine(model)  # opened and checked once, as before any long job
        print(f"\n{name}: {session.engine}, {session.precision}, {n} photos, photos/s, median (min to max) of {given.runs} runs")
        infer = bare_inference(model, session.precision)
        rows = []
        for _ in range(given.runs):
            inference, decode = costs(n // 2, partial(infer, n // 2)), costs(n, partial(bare_decode, photos, model.preprocessing))
            whole = costs(n, partial(answer, model, photos, folder))
            rows.append((inference, decode, whole))
        for side, name in enumerate(("inference, bare", "decode, bare", "files to answers")):
            print(f"  {name}: {shown([row[side][0] for row in rows])}; CPU {shown([row[side][1] for row in rows], 1)} ms a photo")
        share = [whole[0] * (1 / inference[0] + 1 / decode[0]) for inference, decode, whole in rows]
        cpu = [(inference[1] + decode[1]) / whole[1] for inference, decode, whole in rows]
        print(f"  share of the best: {verdict(share, 'overlap')}; in CPU time {shown(cpu, 2)}", flush=True)


def answer(model: Bundle, photos: Paths, folder: Path) -> None:
    out = folder / "answers.csv"
    predict_to(model, photos, out)
    out.unlink()


def bare_inference(model: Bundle, precision: str) -> Callable[[int], None]:
    """OpenVINO's own loop, as its benchmark_app has it: images that are in memory, answers that nobody reads."""
    openvino = runtime.import_openvino()
    core = openvino.Core()
    network = core.read_model(model.network_file)
    px = model.preprocessing.input_px
    network.reshape([1, px, px, 3])
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    compiled = core.compile_model(network, "CPU", hints)
    images = np.random.default_rng(0).integers(0, 256, (16, 1, px, px, 3), np.uint8)

    def run(n: int) -> None:
        queue = openvino.AsyncInferQueue(compiled)
        for i in range(n):
            queue.start_async({0: images[i % len(images)]})
        queue.wait_all()

    run(32)
    return run


def bare_decode(photos: Paths, preprocessing: Preprocessing, load: Callable[..., np.ndarray] = pixels.load) -> None:
    for _ in read_ahead(lambda path: load(path, preprocessing), photos, threads=runtime.cores(), ahead=64):
        pass


def peers(models: dict[str, Path], folder: Path, given: argparse.Namespace) -> None:
    n = 500 if given.photos is None else given.photos
    photos = samples(n)
    for name, place in models.items():
        model = load_bundle(place)
        session = open_engine(model)
        sides: dict[str, Callable[[], None]] = {"headstart": partial(answer, model, photos, folder)}
        if given.only != "keras":
            if given.bundle:
                bundle(name, folder)  # for the network's weights, random as they are
            sides["torch"] = torch_script(name, folder, list(photos))
        if given.only != "torch":
            sides["keras"] = keras_loop(name, list(photos))
        rows = [{side: rate(n, work) for side, work in sides.items()} for _ in range(given.runs + 1)][1:]  # the first warms up
        is_int8 = model.record.precision == "int8"
        precision = "int8" if is_int8 else session.precision
        print(f"\n{name}: headstart in {precision}, {n} photos, photos/s, median (min to max) of {given.runs} runs")
        for side in sides:
            ratios = [row["headstart"] / row[side] for row in rows]
            bar = f"{side}, int8" if is_int8 else side
            about = "" if side == "headstart" else f"; headstart is {verdict(ratios, bar)} (for ResNet-50)"
            print(f"  {side}: {shown([row[side] for row in rows], 1)}{about}", flush=True)


def loader(photos: list[str]):
    """A plain torchvision pipeline over the files: resize 256, centre crop 224, in worker processes."""
    import torch
    from PIL import Image
    from torchvision import transforms

    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    transform = transforms.Compose(steps)

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(photos)

        def __getitem__(self, i: int) -> torch.Tensor:
            return transform(Image.open(photos[i]).convert("RGB"))

    return torch.utils.data.DataLoader(Files(), batch_size=32, num_workers=runtime.cores())


def torch_script(name: str, folder: Path, photos: list[str]) -> Callable[[], None]:
    import timm
    import torch
    from safetensors.torch import load_file

    network = timm.create_model(name, **ARGUMENTS[name]).eval()
    network.load_state_dict(load_file(folder / f"{name}.safetensors"))
    batches = loader(photos)

    def run() -> None:
        with torch.inference_mode():
            for images in batches:
                network(images).softmax(1).topk(5)

    return run


def keras_loop(name: str, photos: list[str]) -> Callable[[], None]:
    import importlib.util

    if importlib.util.find_spec("tensorflow") is None:  # Keras's own default, which is not installed here
        os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    print(f"Keras {keras.__version__} on {keras.backend.backend()}")
    network = getattr(keras.applications, KERAS[name])(weights=None)
    batches = loader(photos)

    def run() -> None:
        for images in batches:
            network.predict(images.permute(0, 2, 3, 1).numpy(), verbose=0)

    return run


def large(folder: Path, n: int, n_runs: int) -> None:
    from PIL import Image

    files = sorted((shared() / "data" / "imagenet-samples").glob("*.jpg"))[:n]
    for i, path in enumerate(files):
        size = LARGE if i % 2 else LARGE[::-1]
        Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
    photos = Paths(str(folder / f"{i:04d}.jpg") for i in range(len(files)))
    model = load_bundle(bundle("mobilenetv2_100", folder))
    session = open_engine(model)
    print(f"mobilenetv2_100: {session.engine}, {session.precision}, {len(photos)} photos of {LARGE[0]} x {LARGE[1]}, photos/s")

    def whole(load: Callable[..., np.ndarray], precision: str = session.precision) -> list[Prediction]:
        """Files to answers with that decoder in the place of headstart's."""
        kept, engine.load = engine.load, load
        try:
            return list(model.stream(photos, top=2, provider=session.provider, precision=precision))
        finally:
            engine.load = kept

    sides = {"headstart": pixels.load, "full decode": full_decode}
    rows = []
    for _ in range(n_runs):
        row = {}
        for side, load in sides.items():
            row[f"{side}, decode"] = rate(len(photos), partial(bare_decode, photos, model.preprocessing, load))
        for side, load in sides.items():
            row[side] = rate(len(photos), partial(whole, load))
        rows.append(row)
    for key in rows[0]:
        print(f"  {key}: {shown([row[key] for row in rows], 1)}")
    print(f"  decode: {verdict([row['headstart, decode'] / row['full decode, decode'] for row in rows], 'decode')}")
    print(f"  files to answers: {verdict([row['headstart'] / row['full decode'] for row in rows], 'large')}")
    for precision in dict.fromkeys(("fp32", session.precision)):
        pairs = list(zip(*(whole(load, precision) for load in sides.values()), strict=True))
        assert all(one.reason is None for pair in pairs for one in pair), "not every photo was read"
        margins = [max(one.top[0][1] - one.top[1][1] for one in pair) for pair in pairs if pair[0].label != pair[1].label]
        between = f", the others with {max(margins):.3f} at most between their first two labels" if margins else ""
        same = 1 - len(margins) / len(pairs)
        bar = f"the bar is {BARS['same']}: {'passed' if same >= BARS['same'] else 'MISSED'}"
        print(f"  the same answer in {precision}: {same:.3f} ({len(pairs) - len(margins)} of {len(pairs)}), {bar}{between}", flush=True)


def full_decode(path: str, preprocessing: Preprocessing, *, max_pixels: int | None = None) -> np.ndarray:
    """Every pixel of the photo, then the same resize and crop."""
    return pixels.prepare(np.asarray(open_upright(path, max_pixels=max_pixels).image), preprocessing)


def memory(folder: Path, n: int, given: Path | None, formats: list[str]) -> None:
    with tarfile.open(shared() / "data" / "cifar10.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    model = bundle("resnet10t", folder, PIXELS.with_px(64)) if given is None else given
    for form in formats:
        peaks = {}
        for length in (min(2000, n), n):
            words = [sys.executable, __file__, "one", str(folder / "cifar10"), form, "--bundle", str(model), "--photos", str(length)]
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
            peaks[length] = float(said[0])
            print(f"{form}, {length:>9,} photos: peak {peaks[length]:.0f} MiB, {said[1]} photos/s, list of paths included", flush=True)
        most, least = peaks[n], peaks[min(2000, n)]
        print(f"{form}: difference {most - least:.0f} MiB, the bar is 300: {'passed' if most - least <= 300 else 'MISSED'}", flush=True)


def one_length(place: Path, photos: Path, form: str, n: int) -> None:
    """The whole of `predict --out FILE` on `n` photos, its peak of memory in MiB and its rate."""
    from headstart.bundle.listing import find

    peak = Peak()
    peak.start()
    started = time.perf_counter()

    def repeated() -> Iterator[str]:
        for _ in range(1 + n // 1000):
            yield from find([photos])

    with tempfile.TemporaryDirectory() as folder, progress.quiet():
        predict_to(load_bundle(place), Paths(itertools.islice(repeated(), n)), Path(folder) / f"answers.{form}", provider="openvino")
    time.sleep(0.2)
    print(f"{peak.mib:.0f} {n / (time.perf_counter() - started):.0f}")


if __name__ == "__main__":
    main()
