"""`python docs/pictures.py FOLDER [NAME ...]` makes docs/pictures anew, from real commands; runs are kept in FOLDER.

All of them take 5 minutes on 2 cores, most of it for the training run. The report is shown by a Chromium (Debian's
package `chromium`); the others need flaxnets alone.
"""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text
from sklearn.datasets import load_digits

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
WIDE, NARROW = 116, 80  # columns of terminals
WINDOW = (1100, 1240)  # width and height of the report's screenshot in pixels
# rich's own template would load a font from elsewhere.
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px;
}}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def in_terminal(command: str, folder: Path, columns: int) -> str:
    """What a command, run in a folder, leaves on the screen of a terminal so wide, with its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    variables = {**os.environ, "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}
    line = [sys.executable, "-m", *shlex.split(command)]
    process = subprocess.Popen(line, cwd=folder, env=variables, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    with contextlib.suppress(OSError):  # what Linux says at the end
        while more := os.read(ours, 65536):
            output += more
    os.close(ours)
    assert process.wait() == 0, output.decode()
    return screen(output.decode())


def screen(output: str) -> str:
    """The lines that are left of a terminal's output: rich goes up and clears the line to draw its bar anew."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", output):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif up := re.fullmatch(r"\x1b\[(\d+)A", part):
            row -= int(up[1])
        elif part != "\r" and not part.endswith(("h", "l")):
            lines[row] += part
    return "\n".join(lines).rstrip()


def write_terminal(name: str, command: str, output: str, columns: int) -> None:
    """A picture of a terminal in which a command was run."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(output), end="\n\n")
    svg = console.export_svg(title="", code_format=SVG, unique_id=name)
    (PICTURES / f"{name}.svg").write_text(re.sub(r"[ \t]+\n", "\n", svg))


def flaxnets(folder: Path, command: str) -> str:
    """Run `flaxnets COMMAND` in a folder, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "flaxnets", *shlex.split(command)],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def prepare(folder: Path) -> None:
    """Training of the README's first command, what it said, and a few of its pictures as files."""
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / "train.txt"
    if not said.exists():
        said.write_text(in_terminal("flaxnets.run --arch resnet50", folder, WIDE))
    digits = load_digits()
    (folder / "digits").mkdir(exist_ok=True)
    for number in range(10):
        pixels = np.round(digits.images[number] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "digits" / f"{digits.target[number]}.png")


def train(folder: Path) -> None:
    """The first command, to its end."""
    said = (folder / "train.txt").read_text()
    write_terminal("train", "python -m flaxnets.run --arch resnet50", said, WIDE)


def architectures(folder: Path) -> None:
    """The list of architectures."""
    command = "flaxnets list 'mobilenet*'"
    write_terminal("architectures", command, in_terminal(command, folder, NARROW), NARROW)


def curves(folder: Path) -> None:
    """Loss and accuracy of the training run, in colours that can be seen on white and on black."""
    import matplotlib.pyplot as plt

    rows = [json.loads(line) for line in (folder / RUN / "metrics.jsonl").read_text().splitlines()]
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "flaxnets", "font.family": "sans-serif"})
    coloured = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    plt.rcParams.update(dict.fromkeys(coloured, "#808080"))
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for split, colour in (("train", "#4c8bf5"), ("test", "#e8710a")):
        of_split = [row for row in rows if row["split"] == split]
        for panel, name in zip(axes, ("loss", "accuracy"), strict=True):
            panel.plot([row["step"] for row in of_split], [row[name] for row in of_split], color=colour, label=split)
    for panel, name in zip(axes, ("loss", "accuracy"), strict=True):
        panel.set(xlabel="step", ylabel=name)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    figure.savefig(PICTURES / "curves.svg", transparent=True, metadata={"Date": None})


def report(folder: Path) -> None:
    """The top of the report on the training run, light and dark."""
    (folder / "report.html").unlink(missing_ok=True)
    flaxnets(folder, f"report {RUN} --out report.html")
    sys.path.insert(0, str(DOCS.parent / ".ci"))
    import browser

    for theme, number in browser.THEMES.items():
        with tempfile.TemporaryDirectory() as temporary:
            shot = Path(temporary) / "shot.png"
            size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
            browser.chromium(
                folder / "report.html", f"--blink-settings=preferredColorScheme={number}", size, f"--screenshot={shot}"
            )
            save_small(Image.open(shot), PICTURES / f"report-{theme}.png")


def explain(folder: Path) -> None:
    """Where the trained network looks, in three digits."""
    made(folder, "looks.png", f"explain {RUN} digits/2.png digits/4.png digits/7.png")


def preview(folder: Path) -> None:
    """What a network is shown of photographs."""
    from flaxnets.tools.bench_data import write_photographs

    if not (folder / "photographs").exists():
        write_photographs(folder / "photographs", 60)
    data = "--data.name folder:photographs --data.image-size 96"
    made(folder, "preview.png", f"augment-preview {data} --augmentation.crop random_resized")


def made(folder: Path, name: str, command: str) -> None:
    """Take over the picture that a command makes."""
    (folder / name).unlink(missing_ok=True)
    flaxnets(folder, f"{command} --out {name}")
    save_small(Image.open(folder / name), (PICTURES / name).with_suffix(".jpg"))


def save_small(picture: Image.Image, file: Path) -> None:
    """Write a picture, at most as wide as a page; if it is a PNG in at most 256 colours."""
    picture = picture.convert("RGB")
    picture.thumbnail((WINDOW[0], picture.height), Image.Resampling.LANCZOS)
    if file.suffix == ".png":
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    picture.save(file, optimize=True, quality=82)


RUN = "runs/resnet50-flaxnets_digits"
MAKERS = {each.__name__: each for each in (train, architectures, curves, report, explain, preview)}

if __name__ == "__main__":
    work, *names = sys.argv[1:]
    PICTURES.mkdir(exist_ok=True)
    prepare(Path(work))
    for maker in names or MAKERS:
        MAKERS[maker](Path(work))
