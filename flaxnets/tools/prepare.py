"""`flaxnets prepare`: a data set of TensorFlow Datasets as array_record, which is read without TensorFlow."""

import argparse
from pathlib import Path


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises DataError for whatever the user can mend."""
    parser = argparse.ArgumentParser(prog="flaxnets prepare", description=description)
    parser.add_argument("name", metavar="NAME", help="as for --data.name: NAME, NAME/CONFIG or NAME:VERSION")
    parser.add_argument("--dir", type=Path, help="where to prepare it; default: TensorFlow Datasets' own folder")
    arguments = parser.parse_args(options)
    from flaxnets.data.tfds_source import prepare

    folder, counts = prepare(arguments.name, arguments.dir)
    print(f"{folder}: " + ", ".join(f"{count:,} examples in {split}" for split, count in counts.items()))
    place = f" --data.dir {arguments.dir}" if arguments.dir else ""
    print(f"Train on it by: flaxnets train --data.name {arguments.name}{place}")
    return 0
