"""`python experiments/photographs.py FOLDER`: 400 parts of scikit-learn's two photographs, in a folder each.

They stand in for one's own pictures in docs/fine_tuning.md. One part of the photograph may be in several pictures: what
is measured on them are times, and that everything works.
"""

import sys
from pathlib import Path

from flaxnets.tools.bench_data import write_photographs

print(f"400 pictures of 2 classes are in {write_photographs(Path(sys.argv[1]), 400)}.")
