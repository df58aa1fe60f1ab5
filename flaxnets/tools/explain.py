"""`flaxnets explain`: pictures with what a network sees in them, and where it looks."""

import argparse
import dataclasses
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flaxnets.errors import ConfigError, DataError, did_you_mean, printable
from flaxnets.tools.classifier import require_finite
from flaxnets.tools.outputs import check_new, write_new
from flaxnets.tools.trained import Trained, add_network, open_network

if TYPE_CHECKING:
    import jax
    import numpy as np

MOST_BESIDE = 3  # pictures in a row of the grid
CELL = 2.4  # height and width of a panel, in inches


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a network sees in a picture.

    Attributes:
      pixels: what it is shown of the picture, uint8 [h, w, 1 or 3].
      probabilities: [num_classes].
      explained: the class whose evidence `heat` shows.
      heat: Grad-CAM, [h, w] from 0 to 1.
    """

    pixels: "np.ndarray"
    probabilities: "np.ndarray"
    explained: int
    heat: "np.ndarray"


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(
        prog="flaxnets explain",
        description=f"{description} Grad-CAM is that of Selvaraju et al. 2017, arXiv:1610.02391.",
    )
    parser.add_argument("network", help="a run folder, or a weights file with --arch")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="picture files")
    parser.add_argument("--out", type=Path, default=Path("explained.png"), help="PNG file; default: explained.png")
    parser.add_argument("--class", dest="chosen", metavar="NAME", help="class to explain; default: the predicted one")
    parser.add_argument(
        "--stage", type=int, help="stage whose feature map is weighed, from 0; default: the last one with 4x4 pixels"
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="also show what the network's own attention layers (SE, CBAM) weigh: the last one of each stage",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_network(parser)
    arguments = parser.parse_args(options)
    check_new(arguments.out)
    network = open_network(arguments.network, arguments)
    chosen = None if arguments.chosen is None else _class_index(network, arguments.chosen)
    pictures = [read_picture(file, network) for file in arguments.images]
    found = explain(network, pictures, chosen, arguments.stage)
    own = attention_heat(network, pictures) if arguments.attention else [{} for _ in pictures]
    titles = [_title(network, file, each) for file, each in zip(arguments.images, found, strict=True)]
    write_new(arguments.out, grid(found, titles, own))
    rows = [_row(network, file, each) for file, each in zip(arguments.images, found, strict=True)]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['image']}: {printable(row['class'])} {row['probability']:.1%}")
        print(f"Where {network.arch} looks is in {arguments.out}.")
    return 0


def read_picture(file: Path, network: Trained) -> "np.ndarray":
    """What a network is shown of a picture file: uint8 [image_size, image_size, channels]. Raises DataError."""
    import numpy as np

    from flaxnets.data.loading import transformed
    from flaxnets.data.pixels import BrokenImageError

    fixed = np.random.default_rng(0)  # which transforms for testing ignore
    name = printable(file)
    try:
        return transformed(file.read_bytes(), network.channels, network.transforms, fixed)
    except IsADirectoryError as error:
        raise DataError(f"{name} is a folder; give the pictures in it, such as {name}/*.") from error
    except OSError as error:
        raise DataError(f"Cannot read {name}: {error.strerror}; give the path of a picture.") from error
    except BrokenImageError as error:
        raise DataError(f"Cannot use {name}: {error}. Mend it, or leave it out.") from error


def explain(
    network: Trained, pictures: "Sequence[np.ndarray]", chosen: int | None = None, stage: int | None = None
) -> list[Explanation]:
    """Grad-CAM of pictures, uint8 [h, w, channels] each.

    Args:
      network: what to explain.
      pictures: what it is shown, all of one size.
      chosen: class; the predicted one if None.
      stage: as in `flaxnets.explain.grad_cam`.

    Raises:
      ArchitectureError: there is no such stage, or the network has no classes.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from flaxnets.explain import grad_cam

    classes = None if chosen is None else jnp.full(len(pictures), chosen)
    maps, logits = grad_cam(network.model, _inputs(network, pictures), classes, stage)
    require_finite(logits, "logits", network.name)
    probabilities = np.asarray(jax.nn.softmax(logits))
    return [
        Explanation(pixels, row, int(row.argmax()) if chosen is None else chosen, heat)
        for pixels, row, heat in zip(pictures, probabilities, np.asarray(maps), strict=True)
    ]


def attention_heat(network: Trained, pictures: "Sequence[np.ndarray]") -> list[dict[str, "np.ndarray"]]:
    """What the last attention layer of each kind in each stage weighs, for each picture.

    Returns:
      Heat [h, w] from 0 to 1, by a caption that says what the layer is and its smallest and largest weight.

    Raises:
      ConfigError: the network has no such layers.
    """
    import numpy as np

    from flaxnets.explain import attention

    last = {}
    for path, weighing in attention(network.model, _inputs(network, pictures)).items():
        part, number = (*path.split("."), "")[:2]
        place = f"stage {number}" if part == "stages" else part
        kind = "pixels" if weighing.weights.shape[-1] == 1 else "channels"
        last[f"{place}: {kind}"] = np.asarray(weighing.weights), np.asarray(weighing.heat)
    if not last:
        raise ConfigError(f"{network.arch} has no attention layers; leave out --attention.")
    shown: list[dict[str, np.ndarray]] = [{} for _ in pictures]
    for layer, (weights, heat) in last.items():
        for panels, own_weights, own in zip(shown, weights, heat, strict=True):
            caption = f"{layer}\nweights {own_weights.min():.3f} to {own_weights.max():.3f}"
            panels[caption] = (own - own.min()) / max(np.ptp(own), 1e-9)
    return shown


def _inputs(network: Trained, pictures: "Sequence[np.ndarray]") -> "jax.Array":
    import jax.numpy as jnp

    from flaxnets.training.step import normalise

    return normalise(jnp.stack(pictures), network.mean, network.std)


def overlay(pixels: "np.ndarray", heat: "np.ndarray") -> "np.ndarray":
    """A picture in grey under its heat: uint8 [h, w, 1 or 3] and [h, w] from 0 to 1 -> uint8 [h, w, 3]."""
    import matplotlib
    import numpy as np

    grey = pixels.mean(-1, keepdims=True)
    colours = 255 * matplotlib.colormaps["inferno"](heat)[..., :3]
    return np.round(grey + (colours - grey) * (0.2 + 0.5 * heat[..., None])).astype(np.uint8)


def _class_index(network: Trained, name: str) -> int:
    if name not in network.class_names:
        known = ", ".join(network.class_names[:20]) + (", ..." if len(network.class_names) > 20 else "")
        near = did_you_mean(name, network.class_names)
        raise ConfigError(f"{network.name} has no class {name!r}.{near} Give --class one of {known}.")
    return network.class_names.index(name)


def _row(network: Trained, file: Path, found: Explanation) -> dict:
    predicted = int(found.probabilities.argmax())
    return {
        "image": printable(file),
        "class": network.class_names[predicted],
        "probability": float(found.probabilities[predicted]),
        "explained_class": network.class_names[found.explained],
        "explained_probability": float(found.probabilities[found.explained]),
    }


def _title(network: Trained, file: Path, found: Explanation) -> tuple[str, str]:
    """What stands above the picture, and above its heat map: the predicted class and the explained one."""
    row = _row(network, file, found)
    return (
        f"{_short(Path(row['image']).name)}\n{_short(printable(row['class']))} {row['probability']:.1%}",
        f"Grad-CAM\n{_short(printable(row['explained_class']))} {row['explained_probability']:.1%}",
    )


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def grid(found: list[Explanation], titles: list[tuple[str, str]], own: list[dict[str, "np.ndarray"]]) -> bytes:
    """A PNG file with a group of panels for each picture: itself, under Grad-CAM, and under each attention layer."""
    from matplotlib.figure import Figure

    groups = [
        [(titles[index][0], each.pixels), (titles[index][1], overlay(each.pixels, each.heat))]
        + [(caption, overlay(each.pixels, heat)) for caption, heat in own[index].items()]
        for index, each in enumerate(found)
    ]
    beside = 1 if own[0] else min(MOST_BESIDE, len(groups))
    rows, columns = -(-len(groups) // beside), beside * len(groups[0])
    figure = Figure(figsize=(columns * CELL, rows * (CELL + 0.5)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, group in enumerate(groups):
        for column, (title, pixels) in enumerate(group):
            axis = axes[index // beside, index % beside * len(group) + column]
            axis.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
            axis.set_title(title, fontsize=9, parse_math=False)
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the font lacks a letter of a class's name
        figure.savefig(png, dpi=120)
    return png.getvalue()
