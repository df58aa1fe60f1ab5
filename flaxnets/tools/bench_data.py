"""`flaxnets bench-data`: images/s from JPEG files to batches on the device, against bare decoding and resizing."""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flaxnets.errors import ConfigError
from flaxnets.tools.options import check_counts

SIZE = 224


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(prog="flaxnets bench-data", description=description)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="images in a folder a class; default: 200 JPEGs of 500x375, made for this"
    )
    parser.add_argument("--workers", type=int, help="threads that decode; default: as in training")
    parser.add_argument("--batch-size", type=int, default=64, help="images a batch")
    parser.add_argument("--images", type=int, default=2048, help="images a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements, of which the median counts")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(options)
    check_counts(arguments, "workers", "batch_size", "images", "rounds")
    if arguments.images < arguments.batch_size:
        raise ConfigError(
            f"--images {arguments.images} is less than a batch of {arguments.batch_size}; give more, or a smaller "
            "--batch-size."
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or write_photographs(Path(temporary))
        result = measure(folder, arguments.workers, arguments.batch_size, arguments.images, arguments.rounds)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"random resized crop {SIZE} and flip, batches of {arguments.batch_size}, {result['workers']} threads")
        print(f"on the device   {result['pipeline']:6.0f} images/s, {result['pipeline_per_core']:.0f} a core")
        print(f"decode, resize  {result['bare']:6.0f} images/s, {result['bare'] / result['workers']:.0f} a core")
        print(f"ratio           {result['ratio']:6.2f}")
    return 0


def measure(folder: Path, workers: int | None, batch_size: int, images: int, rounds: int) -> dict[str, Any]:
    """Medians over rounds that alternate between the two: images/s, and their ratio.

    The bare speed is that of as many threads that do nothing but decode bytes in memory, cut the same parts out of
    them, and resize these.
    """
    import jax
    import numpy as np

    from flaxnets.config import Data
    from flaxnets.data import geometry, pipeline, pixels
    from flaxnets.data.sources import open_sources

    workers = workers or pipeline.default_workers()
    source, _ = open_sources(Data(name=f"folder:{folder}"))
    crop = geometry.RandomResizedCrop(SIZE)
    batches = pipeline.TrainBatches(source, (crop, geometry.RandomFlip()), batch_size, seed=0)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    ahead = workers + 8  # batches that may be ready before they are asked for
    encoded = [source.examples[index]["image"] for index in range(len(source.examples))]

    def on_the_device() -> float:
        with contextlib.closing(pipeline.on_devices(batches, device, workers=workers)) as stream:
            for _ in range(ahead):
                next(stream)
            started = time.perf_counter()
            for _ in range(images // batch_size):
                jax.block_until_ready(next(stream))
            return images // batch_size * batch_size / (time.perf_counter() - started)

    def decode_some(worker: int) -> None:
        random = np.random.default_rng(worker)
        for index in range(worker, images, workers):
            decoded = pixels.EncodedImage(encoded[index % len(encoded)]).decode(3, draft=True)
            left, top, width, height = crop.box(decoded.shape[1], decoded.shape[0], random)
            pixels.resize(decoded[top : top + height, left : left + width], SIZE, SIZE)

    def bare() -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(decode_some, range(workers)))
        return images / (time.perf_counter() - started)

    pairs = [(on_the_device(), bare()) for _ in range(rounds)]
    cores = min(workers, pipeline.default_workers())
    median = statistics.median(pair[0] for pair in pairs)
    return {
        "workers": workers,
        "pipeline": median,
        "pipeline_per_core": median / cores,
        "bare": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def write_photographs(folder: Path, count: int = 200) -> Path:
    """JPEGs of 500 x 375 pixels, quality 90: parts of scikit-learn's two photographs, in a folder each."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    photographs = load_sample_images().images
    for number in range(count):
        photograph = photographs[number % 2]
        top, left = random.integers(427 - 375 + 1), random.integers(640 - 500 + 1)
        place = folder / ("china", "flower")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        part = Image.fromarray(photograph[top : top + 375, left : left + 500])
        part.save(place / f"{number}.jpg", quality=90)
    return folder
