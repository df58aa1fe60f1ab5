"""The command line: parses, dispatches, and turns mistakes of the user into one sentence and exit code 2."""

import errno
import gc
import importlib
import io
import os
import shlex
import sys

from flaxnets.config import parse_run
from flaxnets.errors import ConfigError, FlaxnetsError, did_you_mean
from flaxnets.tools.launch import LAUNCHED
from flaxnets.training.memory import running_out

# Every command but `train` is a module of flaxnets.tools, imported when it is asked for, and what it says of itself.
TOOLS = {
    "list": ("list_architectures", "List the architectures that are installed."),
    "info": ("info", "Show an architecture's paper, input, published accuracy and options."),
    "summary": (
        "summary",
        "Show an architecture's layers: shapes, parameters, multiply-adds, receptive fields, memory.",
    ),
    "explain": ("explain", "Write a picture of where a network looks: Grad-CAM, and its attention layers."),
    "evaluate": ("evaluate", "Measure how good trained networks are on a data set, each and as an ensemble."),
    "report": ("report", "Write an HTML file of what runs were, how they went, what they reached, where they fail."),
    "predict": ("predict", "Tell the classes of pictures, from a file, a folder or a list of names."),
    "features": ("features", "Write what a network makes of pictures on its way to the classes."),
    "bench": ("bench", "Time an architecture's training step or inference, alone or beside another framework's."),
    "plan": ("plan", "Tell what a run needs, and how fast it could be, on TPUs that are not there."),
    "runs": ("runs", "List run folders: state, step, best accuracy, age."),
    "launch": ("launch", "Train in several processes on this machine: launch --processes N -- train ..."),
    "convert": ("convert", "Rewrite a checkpoint in the names of torchvision, timm or flaxnets, as safetensors."),
    "export": (
        "export",
        "Write a network for others: TensorFlow Lite for phones, StableHLO for programs, safetensors for the hub.",
    ),
    "prepare": ("prepare", "Download a data set of TensorFlow Datasets and prepare it for training."),
    "check-data": ("check_data", "List the images of a data set that cannot be used, and count the others."),
    "bench-data": ("bench_data", "Measure how many images a second are read, decoded, augmented and on the device."),
    "augment-preview": ("augment_preview", "Write a picture of the images that a run would train on."),
    "new-plugin": ("new_plugin", "Write a package that adds an architecture."),
}
TRAIN = "Train an architecture on a data set."


def main(arguments: list[str] | None = None, command: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
      arguments: command and options; those of the process if None.
      command: what the user typed in place of `flaxnets train`, for messages that repeat it.
    """
    name, *options = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    gc.set_threshold(100_000)  # what is imported and traced stays: looking through it took a tenth of a start
    for name_of_stream in ("stdout", "stderr"):
        stream = getattr(sys, name_of_stream)
        if stream is None:  # closed by whoever started the process: what is said goes nowhere
            setattr(sys, name_of_stream, open(os.devnull, "w"))  # noqa: SIM115 - to the end of the process
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # rather a ? for what the terminal has no letter for than no answer
    try:
        code = _run(name, options, command or ["flaxnets", name])
        sys.stdout.flush()
        return code
    except FlaxnetsError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped before the first step; nothing was trained.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        _say_nothing_more()
        return 0
    except SystemExit as end:  # in place of BrokenPipeError rich ends the process
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"Error: {error.strerror} for what the command writes; make room, or write elsewhere.", file=sys.stderr)
        _say_nothing_more()
        return 2


def _say_nothing_more() -> None:
    """Let Python's own attempt to write the rest, at its end, succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(name: str, options: list[str], command: list[str]) -> int:
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name == "train":
        run = parse_run(options)
        from flaxnets.run import train

        launched = os.environ.get(LAUNCHED)
        return train(run, shlex.split(launched) if launched else [*command, *options])
    if name not in TOOLS:
        near = did_you_mean(name, ["train", *TOOLS])
        raise ConfigError(f"There is no command {name!r}.{near} `flaxnets --help` lists all.")
    module, description = TOOLS[name]
    with running_out("lower the number of images in a batch, or their size"):
        return importlib.import_module(f"flaxnets.tools.{module}").main(options, description)


def _usage() -> str:
    lines = ["usage: flaxnets COMMAND [OPTIONS]", "", "Image classifiers for JAX.", "", "commands:"]
    descriptions = {"train": TRAIN, **{name: description for name, (_, description) in TOOLS.items()}}
    width = max(map(len, descriptions)) + 2
    lines += [f"  {name:<{width}}{description}" for name, description in descriptions.items()]
    return "\n".join([*lines, "", "`flaxnets COMMAND --help` explains one command."])
