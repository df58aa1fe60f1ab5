"""A plugin that cannot be imported."""

import a_module_that_nobody_has  # pyright: ignore[reportMissingImports]

from flaxnets.plugin import Architecture

broken_net = Architecture(build=a_module_that_nobody_has.build, num_params=7, paper="tests")
