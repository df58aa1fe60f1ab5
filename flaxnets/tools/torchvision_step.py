"""The process that times torchvision for `flaxnets bench`: numbers of steps come in, seconds go out."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def main(settings: dict[str, Any]) -> None:
    """Answer `missing`, `unknown`, or `num_params` and `compile_seconds`; then `seconds` for each line of steps.

    Answers are lines of JSON, each an object with those keys.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever PyTorch says is not an answer
    try:
        import torch  # pyright: ignore[reportMissingImports] (not a dependency)
        import torchvision  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        answers.write(json.dumps({"missing": error.name}) + "\n")
        return
    torch.set_num_threads(settings["threads"])
    if settings["arch"] == "mobilenet_v1":
        model = _mobilenet_v1(torch.nn, settings["classes"])
    elif hasattr(torchvision.models, settings["arch"]):
        model = getattr(torchvision.models, settings["arch"])(num_classes=settings["classes"])
    else:
        answers.write(json.dumps({"unknown": settings["arch"]}) + "\n")
        return
    step = _step(torch, model.to(memory_format=torch.channels_last), settings)
    began = time.perf_counter()
    step()
    compile_seconds = time.perf_counter() - began
    num_params = sum(parameter.numel() for parameter in model.parameters())
    answers.write(json.dumps({"num_params": num_params, "compile_seconds": compile_seconds}) + "\n")
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        answers.write(json.dumps({"seconds": time.perf_counter() - began}) + "\n")


def _step(torch: Any, model: Any, settings: dict[str, Any]) -> Callable[[], None]:
    """One training step or inference on random images, as flaxnets does it."""
    shape = (settings["batch"], 3, settings["image_size"], settings["image_size"])
    images = torch.randn(shape).to(memory_format=torch.channels_last)
    labels = torch.randint(0, settings["classes"], shape[:1])
    run = torch.compile(model) if settings["compiled"] else model
    if settings["mode"] == "inference":
        model.eval()

        @torch.inference_mode()
        def infer() -> None:
            run(images)

        return infer
    given = settings["optimizer"]
    kernels = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": given["weight_decay"]}, {"params": others, "weight_decay": 0}]
    update = torch.optim.SGD(groups, lr=0.01, momentum=given["momentum"], nesterov=True)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=settings["label_smoothing"])

    def train() -> None:
        update.zero_grad(set_to_none=True)
        loss_of(run(images), labels).backward()
        update.step()

    return train


def _mobilenet_v1(nn: Any, classes: int) -> Any:
    """MobileNet V1 (arXiv:1704.04861, table 1), which torchvision lacks."""

    def unit(cin: int, cout: int, kernel_size: int, stride: int, groups: int = 1) -> list[Any]:
        convolution = nn.Conv2d(cin, cout, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        return [convolution, nn.BatchNorm2d(cout), nn.ReLU6(inplace=True)]

    layers = unit(3, 32, 3, 2)
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for cin, (cout, stride) in zip([32, *(cout for cout, _ in rows)], rows, strict=False):
        layers += unit(cin, cin, 3, stride, groups=cin) + unit(cin, cout, 1, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, classes))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
