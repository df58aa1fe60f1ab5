"""Times every form of a convolution on this CPU: what the rules in flaxnets/layers/convolution.py come from.

    python experiments/benchmarks/convolutions.py

For each convolution and direction it prints multiply-adds a second (10^9) in each form, the form that the rules take
in brackets, and a line where another form was more than 10 % faster in this run. Timings of shared machines move by
more than that: run it twice before changing a rule.
"""

import time

import jax
import numpy as np

from flaxnets.layers.convolution import cpu_form
from flaxnets.layers.lowerings import Geometry, blocks, patches, plain, plain_forward, shifted
from flaxnets.layers.winograd import winograd
from flaxnets.training.memory import keep_freed_memory

ROUNDS = 7
# batch, pixels, channels in and out, kernel size, stride, groups: of the networks at 224, 96 and 32 px
CASES = [
    *[(16, 224, 3, 64, 7, 2, 1), (16, 56, 64, 64, 3, 1, 1), (16, 56, 128, 128, 3, 2, 1), (16, 28, 128, 128, 3, 1, 1)],
    *[(16, 14, 256, 256, 3, 1, 1), (16, 7, 512, 512, 3, 1, 1), (1, 14, 256, 256, 3, 1, 1), (1, 7, 512, 512, 3, 1, 1)],
    *[(4, 7, 512, 512, 3, 1, 1), (64, 3, 256, 256, 3, 1, 1), (2, 14, 256, 256, 3, 2, 1), (4, 14, 256, 256, 3, 2, 1)],
    *[(64, 8, 64, 64, 3, 1, 1), (64, 4, 128, 128, 3, 1, 1), (64, 2, 256, 256, 3, 1, 1), (64, 1, 512, 512, 3, 1, 1)],
    *[(16, 56, 64, 256, 1, 1, 1), (16, 14, 1024, 256, 1, 1, 1), (64, 2, 1024, 256, 1, 1, 1)],
    *[(16, 112, 32, 32, 3, 1, 32), (16, 112, 96, 96, 3, 2, 96), (16, 28, 120, 120, 5, 1, 120)],
    *[(16, 14, 576, 576, 3, 1, 576), (16, 7, 960, 960, 5, 1, 960), (64, 2, 512, 512, 3, 1, 512)],
    *[(4, 56, 128, 128, 3, 1, 32), (4, 14, 512, 512, 3, 1, 32), (4, 28, 64, 64, 3, 1, 2)],
]


def main() -> None:
    """Print the table."""
    keep_freed_memory()
    random = np.random.default_rng(0)
    for batch, size, cin, cout, kernel_size, stride, groups in CASES:
        pad = (kernel_size // 2, (kernel_size - 1) // 2)
        geometry = Geometry((stride, stride), (pad, pad), groups=groups)
        images = random.standard_normal((batch, size, size, cin), np.float32)
        kernel = random.standard_normal((kernel_size, kernel_size, cin // groups, cout), np.float32)
        chosen = cpu_form(images.shape, kernel.shape, geometry)
        output = jax.eval_shape(lambda images, kernel: plain(images, kernel, geometry), images, kernel)  # noqa: B023
        cotangent = random.standard_normal(output.shape, np.float32)
        macs = output.size * kernel[..., 0].size
        print(f"{kernel_size}x{kernel_size} {cin} to {cout}, stride {stride}, groups {groups}, {batch} x {size} px")
        programs = {
            (direction, form): jax.jit(function).lower(images, kernel, cotangent).compile()
            for form in _forms(kernel_size, stride, groups, cin)
            for direction, function in _directions(form, geometry).items()
        }
        seconds = {key: [] for key in programs}
        for _ in range(ROUNDS):
            for key, program in programs.items():
                began = time.perf_counter()
                jax.block_until_ready(program(images, kernel, cotangent))
                seconds[key].append(time.perf_counter() - began)
        for direction in ("forward", "input gradient", "kernel gradient"):
            speeds = {form: macs / float(np.median(seconds[direction, form])) / 1e9 for _, form in programs}
            names = (f"[{f.__name__} {s:.1f}]" if f is chosen else f"{f.__name__} {s:.1f}" for f, s in speeds.items())
            best = max(speeds, key=lambda form: speeds[form])
            note = f"  <- {best.__name__} was faster" if speeds[best] > 1.1 * speeds[chosen] else ""
            print(f"    {direction:<16}{'  '.join(names)}{note}", flush=True)


def _forms(kernel_size: int, stride: int, groups: int, cin: int):
    if groups == cin:
        return [plain, shifted]
    if groups > 1:
        return [plain, blocks]
    return [plain, patches, *({1: [winograd], 2: [plain_forward]}[stride] if kernel_size == 3 else [])]


def _directions(form, geometry: Geometry):
    def gradient(number: int):
        def function(images, kernel, cotangent):
            return jax.vjp(lambda images, kernel: form(images, kernel, geometry), images, kernel)[1](cotangent)[number]

        return function

    return {
        "forward": lambda images, kernel, cotangent: form(images, kernel, geometry),
        "input gradient": gradient(0),
        "kernel gradient": gradient(1),
    }


if __name__ == "__main__":
    main()
