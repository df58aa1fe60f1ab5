"""`flaxnets features`: what a network makes of pictures on its way to the classes, as arrays in a file."""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flaxnets.errors import ArchitectureError, ConfigError, DataError, printable
from flaxnets.tools.options import add_inference, check_inference
from flaxnets.tools.outputs import Progress, check_new, write_new
from flaxnets.tools.trained import add_network, open_network

if TYPE_CHECKING:
    import jax

    from flaxnets.plugin import ImageClassifier

EMBEDDING = "embedding"


def main(options: list[str], description: str) -> int:
    """Carry out the command; return 0, or 1 if a picture is broken. Raises FlaxnetsError as all commands do."""
    parser = argparse.ArgumentParser(
        prog="flaxnets features",
        description=f"{description} The file holds `features` [n, ...], `pictures` [n] and `labels` [n], the folder's "
        "name where it is a class; all features are in memory until it is written. Broken pictures are left out and "
        "named on standard error; the exit code is then 1.",
    )
    parser.add_argument("network", metavar="RUN", help="run folder, weights file with --arch, or an architecture")
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="image file, folder of them, or - for names on standard input"
    )
    parser.add_argument(
        "--stage", default=EMBEDDING, help=f"number of a stage, from 0 on; default: {EMBEDDING}, which is classified"
    )
    parser.add_argument("--spatial", action="store_true", help="whole feature maps [h, w, c], not their means [c]")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="new .npz or .parquet file")
    parser.add_argument("--json", action="store_true", help="print a JSON object about the file")
    add_network(parser)
    add_inference(parser)
    arguments = parser.parse_args(options)
    check_inference(arguments)
    if arguments.out.suffix not in WRITERS:
        raise ConfigError(f"{arguments.out} is neither .npz nor .parquet; give --out such a name.")
    check_new(arguments.out)
    network = open_network(arguments.network, arguments, untrained=True)
    stage = _stage(arguments.stage, len(network.model.stages), arguments.network)
    if stage is None and arguments.spatial:
        raise ConfigError("The embedding has no pixels; choose feature maps by --stage, or leave out --spatial.")

    from flaxnets.tools.inference import Network
    from flaxnets.tools.pictures import files_of, loader

    def compute(model: "ImageClassifier", images: "jax.Array") -> "dict[str, jax.Array]":
        maps = model.features(images)
        if stage is None:
            return {"features": model.head(maps[-1]).astype("float32")}
        seen = maps[stage].astype("float32")
        return {"features": seen if arguments.spatial else seen.mean((1, 2))}

    compiled = Network(network, arguments.batch_size, arguments.compilation_cache, compute, [stage, arguments.spatial])
    names, labels, rows, broken = [], [], [], {}
    with Progress("features", None) as progress:
        for seen in compiled.stream(files_of(arguments.pictures), loader(network)):
            progress.advance()
            if seen.problem:
                broken[printable(seen.item)] = seen.problem
                print(f"{printable(seen.item)}  cannot be used: {seen.problem}", file=sys.stderr)
            else:
                names.append(printable(seen.item))
                labels.append("" if seen.label is None else printable(network.class_names[seen.label]))
                rows.append(seen.outputs["features"])
    if not rows:
        raise DataError(f"None of {len(broken)} pictures can be used, so {arguments.out} is not written; give others.")
    features = np.stack(rows)
    write_new(arguments.out, WRITERS[arguments.out.suffix](features, names, labels))
    if arguments.json:
        print(json.dumps({"file": str(arguments.out), "shape": features.shape, "problems": broken}))
    else:
        print(f"{arguments.out}: features of {len(rows):,} pictures, {' x '.join(map(str, features.shape[1:]))} each")
    return 1 if broken else 0


def _stage(word: str, count: int, name: str) -> int | None:
    """The number of a stage, or None for the embedding. Raises ArchitectureError where there is no such."""
    stages = [str(number) for number in range(count)]
    if word not in (EMBEDDING, *stages):
        raise ArchitectureError(f"{name} has no stage {word!r}; give --stage {', '.join(stages)} or {EMBEDDING}.")
    return None if word == EMBEDDING else int(word)


def _npz(features: np.ndarray, names: list[str], labels: list[str]) -> bytes:
    file = io.BytesIO()
    np.savez(file, features=features, pictures=np.array(names), labels=np.array(labels))
    return file.getvalue()


def _parquet(features: np.ndarray, names: list[str], labels: list[str]) -> bytes:
    """A row a picture; `features` are flat lists there, and the shape of one is in the schema's metadata."""
    import pyarrow
    from pyarrow import parquet

    flat: Any = pyarrow.FixedSizeListArray.from_arrays(features.ravel(), features[0].size)
    table = pyarrow.table({"picture": names, "label": labels, "features": flat})
    file = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({"shape": json.dumps(features.shape[1:])}), file)
    return file.getvalue()


WRITERS = {".npz": _npz, ".parquet": _parquet}
