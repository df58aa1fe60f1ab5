"""What the tools know of any classifier, whatever computes it: its classes, and what its pictures have to look like."""

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from flaxnets.errors import WeightsError

if TYPE_CHECKING:
    from flaxnets.config import Augmentation, Data
    from flaxnets.data.augmentation import Transform


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network, here or in an exported file.

    Attributes:
      name: what the user called it by.
      arch, options: of the network.
      class_names: one a logit; numbers where a weights file comes without names; none without a classifier.
      mean, std: statistics of the images, a number a channel, images in [0, 1].
      image_size: height and width of the network's input, in pixels.
      view: which part of a picture it sees.
    """

    name: str
    arch: str
    options: dict
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    view: "Augmentation"

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return len(self.mean)

    @property
    def data(self) -> "Data | None":
        """The data set that it was trained on, where that is known."""
        return None

    @property
    def transforms(self) -> tuple["Transform", ...]:
        """What a decoded picture goes through: pixels [h, w, channels] -> [image_size, image_size, channels], uint8."""
        return self.views()[0]

    def views(self, crops: int = 1, flip: bool = False) -> list[tuple["Transform", ...]]:
        """Several such ways to see a picture, whose answers are averaged.

        Args:
          crops: 1 for the view alone, 5 for the central part of the picture and its four corners.
          flip: each of them mirrored, too.
        """
        from flaxnets.data.augmentation import eval_transforms
        from flaxnets.data.geometry import CentreCrop, CornerCrop, Flip

        views = [eval_transforms(self.view, self.image_size)]
        if crops == 5:
            part = (self.image_size, self.view.centre_crop)
            corners = itertools.product((False, True), repeat=2)
            views = [(CentreCrop(*part),), *((CornerCrop(*part, right, bottom),) for right, bottom in corners)]
        return views + [(*view, Flip()) for view in views] if flip else views


def require_finite(computed: Any, what: str, name: str) -> None:
    """Raise WeightsError where an array that the network called `name` gives holds anything but finite numbers."""
    if not np.isfinite(computed).all():
        raise WeightsError(f"{name} gives {what} that are not finite; give another checkpoint.")
