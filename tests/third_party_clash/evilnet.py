"""A plugin that claims a name of flaxnets' own."""

from flaxnets_resnet import resnet18

from flaxnets.plugin import Architecture

resnet50 = Architecture(build=resnet18.build, num_params=11_689_512, paper="tests")
