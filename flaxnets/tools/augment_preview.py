"""`flaxnets augment-preview`: a picture of what the network is trained on, with the labels."""

import argparse
import io
from pathlib import Path

from flaxnets.config import Run, parse_run
from flaxnets.errors import DataError

STEPS, IMAGES = 4, 8  # rows and columns of the picture
CELL = 112  # least width of an image in the picture, in pixels
CAPTION, MARGIN = 40, 8  # height below an image and space around it, in pixels


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(
        prog="flaxnets augment-preview",
        description=f"{description} Rows are steps; a caption names the label, or both with their shares.",
        epilog="All options of `flaxnets train` are taken too, such as --experiment FILE and --augmentation.mixup 0.2.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG file to write; default: preview.png")
    arguments, rest = parser.parse_known_args(options)
    run = parse_run(rest)
    if arguments.out.exists():
        raise DataError(_exists(arguments.out))
    png = preview(run)
    try:
        with arguments.out.open("xb") as file:
            file.write(png)
    except FileExistsError as error:
        raise DataError(_exists(arguments.out)) from error
    except OSError as error:
        raise DataError(
            f"Cannot write {arguments.out}: {error.strerror}; choose another place by --out FILE.png."
        ) from error
    print(f"The first {STEPS} steps, a row each, are in {arguments.out}.")
    return 0


def preview(run: Run) -> bytes:
    """A PNG file: a row for each of the first steps, with the first images that device 0 is given in it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from flaxnets.data.images import open_images
    from flaxnets.training import mesh, mixing, step

    batch_size = run.data.batch_size // mesh.data_mesh(run.data.batch_size).size
    mix = mixing.mixing_of(run.augmentation, batch_size)
    data = open_images(run.data, run.augmentation, run.seed)
    shown = min(IMAGES, batch_size)
    inputs_of = jax.jit(lambda batch, key: step.network_inputs(batch, key, data.mean, data.std, mix))
    rows = []
    for number in range(STEPS):
        key = step.step_key(jnp.uint32(run.seed), jnp.int32(number), jnp.int32(0))
        own = {name: array[:batch_size] for name, array in data.train[number].items()}
        inputs = jax.device_get(inputs_of(own, key))
        images = inputs.images[:shown] * data.std + data.mean
        images = np.round(images * 255).clip(0, 255).astype(np.uint8)
        names = (
            caption(data.class_names[label], data.class_names[other], share)
            for label, other, share in zip(inputs.labels, inputs.others, inputs.share, strict=True)
        )
        rows.append(list(zip(images, names, strict=False)))
    return _png(rows)


def caption(label: str, other: str, share: float) -> str:
    """`cat`, or for a mixture `70% cat` and `+ 30% dog` on two lines."""
    if other == label or share > 0.995:
        return label
    return f"{share:.0%} {label}\n+ {1 - share:.0%} {other}"


def _png(rows: list) -> bytes:
    """A grid of images [h, w, c], enlarged by a whole number if they are small, with their captions below."""
    from PIL import Image, ImageDraw, ImageFont

    height, width, channels = rows[0][0][0].shape
    scale = -(-CELL // width)
    cell = width * scale + MARGIN, height * scale + CAPTION
    grid = Image.new("RGB", (len(rows[0]) * cell[0] + MARGIN, len(rows) * cell[1] + MARGIN), "white")
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(14)
    for row, pictures in enumerate(rows):
        for column, (pixels, text) in enumerate(pictures):
            image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
            left, top = MARGIN + column * cell[0], MARGIN + row * cell[1]
            grid.paste(image.resize((width * scale, height * scale), Image.Resampling.NEAREST), (left, top))
            for line, words in enumerate(text.splitlines()):
                while draw.textlength(words, font) > width * scale:
                    words = words[:-2] + "…"
                draw.text((left, top + height * scale + 2 + 17 * line), words, "black", font)
    png = io.BytesIO()
    grid.save(png, "PNG")
    return png.getvalue()


def _exists(file: Path) -> str:
    return f"{file} exists already and is left as it is; choose another file by --out FILE.png."
