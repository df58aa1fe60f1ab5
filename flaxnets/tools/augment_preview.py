"""`flaxnets augment-preview`: a picture of what the network is trained on, with the labels."""

import argparse
from pathlib import Path

from flaxnets.config import Run, parse_run
from flaxnets.errors import printable
from flaxnets.tools.grid import picture_grid
from flaxnets.tools.outputs import check_new, write_new

STEPS, IMAGES = 4, 8  # rows and columns of the picture


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
    check_new(arguments.out)
    write_new(arguments.out, preview(run))
    print(f"The first {STEPS} steps, a row each, are in {arguments.out}.")
    return 0


def preview(run: Run) -> bytes:
    """A PNG file: a row for each of the first steps, with the first images that device 0 is given in it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from flaxnets.data.images import decide_input, open_images
    from flaxnets.training import mesh, mixing, step

    batch_size = run.data.batch_size // mesh.data_mesh(run.data.batch_size).size
    mix = mixing.mixing_of(run.augmentation, batch_size)
    run, statistics = decide_input(run)
    data = open_images(run.data, run.augmentation, run.seed, statistics)
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
            caption(printable(data.class_names[label]), printable(data.class_names[other]), share)
            for label, other, share in zip(inputs.labels, inputs.others, inputs.share, strict=True)
        )
        rows.append(list(zip(images, names, strict=False)))
    return picture_grid(rows)


def caption(label: str, other: str, share: float) -> str:
    """`cat`, or for a mixture `70% cat` and `+ 30% dog` on two lines."""
    if other == label or share > 0.995:
        return label
    return f"{share:.0%} {label}\n+ {1 - share:.0%} {other}"
