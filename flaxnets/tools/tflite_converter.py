"""Turns a JAX program into a .tflite file, in a process of its own: `python -m flaxnets.tools.tflite_converter FOLDER`.

So TensorFlow, its log lines and its hold on accelerators stay out of every process that computes something else.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

PROGRAM, SETTINGS, CALIBRATION = "program", "settings.json", "calibration.npy"  # what the folder has to hold
RESULT, FAILURE = "model.tflite", "failure.txt"  # one of which is then there, too


def main(folder: Path) -> None:
    """Convert the program in a folder: float32 images [1, h, w, c], or uint8 ones, -> one output.

    The settings are `shape` and `dtype` of the images, `precision` as of `export_tflite`, and `pixels`: whether a file
    of int8 takes uint8. It is calibrated with float32 images [n, h, w, c].
    """
    import jax.export
    import tensorflow  # pyright: ignore[reportMissingModuleSource, reportMissingImports] (of an extra)
    from jax.experimental import jax2tf

    tf: Any = tensorflow  # whose lazily loaded parts no type checker sees
    settings = json.loads((folder / SETTINGS).read_text())
    program = jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
    call = jax2tf.convert(program.call, with_gradient=False)
    images = tf.TensorSpec(settings["shape"], settings["dtype"], name="images")
    function = tf.function(call, autograph=False, input_signature=[images])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], function)
    # Without TensorFlow's own operators (Flex), which no phone has.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if settings["precision"] != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if settings["precision"] == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if settings["precision"] == "int8":
        calibration = np.load(folder / CALIBRATION)
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8 if settings["pixels"] else tf.float32
    try:
        content = converter.convert()
    except Exception as error:  # it has a kind of its own for each way in which a network may be none of TFLite's
        (folder / FAILURE).write_text(f"{type(error).__name__}: {error}")
    else:
        (folder / RESULT).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
