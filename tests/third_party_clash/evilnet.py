"""A plugin that claims a name of flaxnets' own."""

import functools

from flaxnets_resnet import resnet18

from flaxnets.plugin import Architecture

resnet50 = Architecture(build=functools.partial(resnet18.build, width=0.125), num_params=241_712, paper="tests")
