"""Opens a report in a real Chromium: `python .ci/browser.py REPORT.html FOLDER`.

Asserts that nothing is loaded or refused, nothing is wider than a phone, every picture is shown, dark mode is dark, and
that it prints; writes screenshots to FOLDER, for people to look at. Needs Debian's package `chromium`.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars --enable-logging=stderr "
    "--disable-background-networking --disable-component-update --disable-sync"
)
WIDTHS = {"phone": 390, "desk": 1280}
THEMES = {"light": 1, "dark": 0}
# Appended to a copy of the page, whose own policy would not let it run.
MEASURE = """<script>
const wide = [...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll'))
  .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
const found = {
  width: document.documentElement.clientWidth, scroll: document.documentElement.scrollWidth,
  wide: wide.map(each => each.tagName), images: [...document.images].map(each => each.naturalWidth),
  text: document.body.innerText.length, links: [...document.links].map(each => !!document.querySelector(each.hash)),
  font: Math.min(...[...document.querySelectorAll('svg text')].map(each => each.getBoundingClientRect().height)),
};
parent.postMessage(JSON.stringify(found), '*');
</script>"""


def chromium(page: Path, *flags: str) -> subprocess.CompletedProcess:
    """Run Chromium on a page, with a profile of its own."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        sys.exit("There is no Chromium; install it (Debian: apt-get install chromium).")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        line = [program, *FLAGS.split(), f"--user-data-dir={profile}", *flags, page.absolute().as_uri()]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints, complaints
    return done


def measure(page: Path, width: int) -> dict:
    """What the browser makes of a page in a frame of a width, in pixels; a window cannot be as narrow as a phone."""
    with tempfile.TemporaryDirectory() as folder:
        text = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text())
        (Path(folder) / "page.html").write_text(text.replace("</body>", f"{MEASURE}</body>"))
        frame = Path(folder) / "frame.html"
        frame.write_text(
            "<body><pre></pre><script>onmessage = event => document.querySelector('pre').textContent = event.data"
            f'</script><iframe src="page.html" style="width:{width}px; height:800px; border:0"></iframe></body>'
        )
        dom = chromium(frame, "--dump-dom", "--virtual-time-budget=5000").stdout
    found = re.search(r"<pre>(\{.*?)</pre>", dom)
    assert found, dom[-500:]
    return json.loads(found[1])


def main() -> None:
    """Check the page and write the screenshots."""
    page, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for device, width in WIDTHS.items():
        found = measure(page, width)
        assert found["scroll"] <= found["width"], found
        assert not found["wide"], found
        assert all(found["images"]), found
        assert all(found["links"]), found
        assert found["font"] >= 9, found
        assert found["text"] > 500, found
        print(device, found["width"], "pixels:", found["text"], "letters,", len(found["images"]), "pictures")
        shades = {}
        for theme, number in THEMES.items():
            picture = folder / f"{device}-{theme}.png"
            scheme = f"--blink-settings=preferredColorScheme={number}"
            chromium(page, scheme, f"--window-size={width},3000", f"--screenshot={picture}")
            with Image.open(picture) as opened:
                shades[theme] = float(np.median(np.asarray(opened.convert("L"))))
        assert shades["light"] > 240 > 40 > shades["dark"], shades
    paper = folder / "paper.pdf"
    chromium(page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    sheets = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert sheets, "nothing was printed"
    print(f"paper: {sheets} sheets. Screenshots are in {folder}.")


if __name__ == "__main__":
    main()
