"""flaxnets' data pipeline against torchvision's, alternately: 500x375 JPEGs to batches of 224x224, same workers.

Both sides: read a file of a folder, decode, random resized crop, flip, batch. torchvision's are ImageFolder, DataLoader
and, as in the training preset of its classification reference, RandomResizedCrop, RandomHorizontalFlip, PILToTensor,
ConvertImageDtype(float), Normalize. Two ratios are printed:

* ready for the training step: flaxnets puts uint8 batches on the device and normalises there; the time that this takes,
  measured alone on all cores, is added to its own. torchvision normalises in its workers.
* uint8 only: neither side normalises; torchvision ends with PILToTensor, and no network could train on that yet.

Needs PyTorch and torchvision, in this interpreter or in another that --torch names:

    python experiments/benchmarks/data_loading.py --workers 2 --torch PYTHON

Measured on 2 shared cores of an AMD EPYC with PyTorch 2.15, torchvision 0.29 and Pillow 13, `--images 896`, six rounds:
ready for the training step 1332 images/s against 656, median ratio 2.02 (1.84 to 2.08); uint8 only 1779 against 898,
median ratio 2.05 (1.85 to 2.15, and once 3.62, when other work disturbed torchvision).
On 2 cores of an Intel Xeon with PyTorch 2.14, six rounds: 1184 images/s against 552, median ratio 2.16 (2.06 to 2.28);
uint8 only 1456 against 802, median ratio 1.83 (1.73 to 1.86).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default=sys.executable, help="interpreter that has torchvision")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "END"), help=argparse.SUPPRESS)  # by --torch's
    arguments = parser.parse_args()
    sizes = arguments.workers, arguments.batch_size, arguments.images
    if arguments.measure:
        print(torchvision_speed(Path(arguments.measure[0]), arguments.measure[1], *sizes))
        return
    from flaxnets.tools.bench_data import write_photographs

    same = [f"--{name}={value}" for name, value in zip(("workers", "batch-size", "images"), sizes, strict=True)]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder))
        for _ in range(arguments.rounds):
            ours = run([sys.executable, "-m", "flaxnets", "bench-data", folder, "--json", "--rounds=1", *same])
            speed = json.loads(ours)["pipeline"]
            ready = 1 / (1 / speed + normalisation_time(arguments.batch_size))
            theirs, theirs_ready = (
                float(run([arguments.torch, __file__, "--measure", folder, end, *same])) for end in ("uint8", "ready")
            )
            ratios.append((ready / theirs_ready, speed / theirs))
            print(
                f"ready: flaxnets {ready:.0f} images/s, torchvision {theirs_ready:.0f}, ratio {ratios[-1][0]:.2f}; "
                f"uint8: flaxnets {speed:.0f}, torchvision {theirs:.0f}, ratio {ratios[-1][1]:.2f}",
                flush=True,
            )
    of_ready, of_uint8 = map(statistics.median, zip(*ratios, strict=True))
    print(f"median ratio {of_ready:.2f} ready for the training step, {of_uint8:.2f} uint8 only")


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def normalisation_time(batch_size: int) -> float:
    """Seconds an image to normalise a batch on the device, as the training step does."""
    import jax
    import jax.numpy as jnp

    from flaxnets.training.step import normalise

    batch = jnp.zeros((batch_size, 224, 224, 3), jnp.uint8)
    normalised = jax.jit(lambda images: normalise(images, MEAN, STD))
    jax.block_until_ready(normalised(batch))
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        jax.block_until_ready(normalised(batch))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) / batch_size


def torchvision_speed(folder: Path, end: str, workers: int, batch_size: int, images: int) -> float:
    """Images/s from files to batches of tensors, after the workers have started and their queues are used up."""
    import torch
    from torchvision import datasets, transforms

    view = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    if end == "ready":
        view += [transforms.ConvertImageDtype(torch.float), transforms.Normalize(MEAN, STD)]
    photographs = datasets.ImageFolder(str(folder), transforms.Compose(view))
    warm = 2 * workers + 8  # batches
    total = images + warm * batch_size
    sampler = torch.utils.data.RandomSampler(photographs, replacement=True, num_samples=total)
    loader = torch.utils.data.DataLoader(photographs, batch_size, sampler=sampler, num_workers=workers)
    started = 0.0
    for number, _ in enumerate(loader, start=1):
        if number == warm:
            started = time.perf_counter()
    return images / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
