"""`python -m flaxnets` is the command `flaxnets`."""

import sys

from flaxnets.training.memory import keep_freed_memory


def main() -> int:
    """Run the process's command and return its exit code."""
    keep_freed_memory()
    from flaxnets.cli import main  # not above: it takes a third of a second, and the process may start anew

    return main()


if __name__ == "__main__":
    sys.exit(main())
