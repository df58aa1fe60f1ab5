"""`flaxnets check-data`: reads and decodes every image of a data set, and lists those that cannot be used."""

import argparse
import json
from pathlib import Path

from flaxnets.config import Data
from flaxnets.errors import FlaxnetsError, printable


def main(options: list[str], description: str) -> int:
    """Carry out the command; exit code 0 if all is well, 1 if images are broken. Raises DataError for the rest."""
    defaults = Data()
    parser = argparse.ArgumentParser(prog="flaxnets check-data", description=description)
    parser.add_argument("name", metavar="NAME", help="as for --data.name: folder:PATH, idx:PATH, arrays:FILE or NAME")
    parser.add_argument("--dir", type=Path, help="where TensorFlow Datasets are prepared")
    parser.add_argument("--train", default=defaults.train, help="split to train on")
    parser.add_argument("--test", default=defaults.test, help="split to test on")
    parser.add_argument("--holdout", type=float, default=defaults.holdout, help="share to test on, if no split is")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = vars(parser.parse_args(options))
    as_json = arguments.pop("json")
    from flaxnets.data import check
    from flaxnets.data.sources import open_sources

    try:
        train, test = open_sources(Data(**arguments))
    except FlaxnetsError as error:  # its fix is an option of training
        raise type(error)(str(error).replace("--data.name", "NAME").replace("--data.", "--")) from error
    sources = {"train": train, "test": test}
    problems = {split: check.broken(source) for split, source in sources.items()}
    broken = [
        {"split": split, "image": check.name(sources[split], index), "problem": problem}
        for split, found in problems.items()
        for index, problem in found.items()
    ]
    if as_json:
        counts = {split: len(source.examples) for split, source in sources.items()}
        print(json.dumps({"images": counts, "class_names": sources["train"].class_names, "broken": broken}, indent=2))
    else:
        for row in broken:
            print(f"{printable(row['image'])}: {row['problem']}")
        for split, source in sources.items():
            print(f"{split}: {len(source.examples):,} images, {len(problems[split]):,} of them broken")
        print(f"{len(sources['train'].class_names)} classes")
    return 1 if broken else 0
