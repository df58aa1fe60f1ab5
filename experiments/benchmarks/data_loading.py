"""flaxnets' data pipeline against torchvision's, alternately: ImageFolder, the same transforms, DataLoader.

Needs PyTorch and torchvision, in this interpreter or in another that --torch names:

    python experiments/benchmarks/data_loading.py --workers 2 --torch PYTHON
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default=sys.executable, help="interpreter that has torchvision")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--floats", action="store_true", help="torchvision scales and normalises too, as is usual")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # what the other interpreter is asked for
    arguments = parser.parse_args()
    if arguments.measure:
        print(
            torchvision_speed(
                arguments.measure, arguments.workers, arguments.batch_size, arguments.images, arguments.floats
            )
        )
        return
    from flaxnets.tools.bench_data import write_photographs

    same = [f"--{name}={getattr(arguments, name.replace('-', '_'))}" for name in ("workers", "batch-size", "images")]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder))
        for _ in range(arguments.rounds):
            ours = run([sys.executable, "-m", "flaxnets", "bench-data", folder, "--json", "--rounds=1", *same])
            theirs = run(
                [arguments.torch, __file__, "--measure", folder, *same, *(["--floats"] if arguments.floats else [])]
            )
            speed, other = json.loads(ours)["pipeline"], float(theirs)
            ratios.append(speed / other)
            print(
                f"flaxnets {speed:.0f} images/s, torchvision {other:.0f} images/s, ratio {ratios[-1]:.2f}", flush=True
            )
    print(f"median ratio {statistics.median(ratios):.2f}")


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def torchvision_speed(folder: Path, workers: int, batch_size: int, images: int, floats: bool) -> float:
    """Images/s from files to batches of tensors, after the workers have started and their queues are used up."""
    import torch
    from torchvision import datasets, transforms

    view = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    if floats:
        view[2:] = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    photographs = datasets.ImageFolder(str(folder / "train"), transforms.Compose(view))
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
