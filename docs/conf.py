"""How the site is built, by `sphinx-build -W docs build/docs`; nothing of it is loaded from elsewhere."""

import contextlib
import io
import os
import re
from inspect import Parameter

from sphinx.util import inspect

import flaxnets
from flaxnets.cli import TOOLS, main
from flaxnets.config import Run
from flaxnets.part import Part

project = "flaxnets"
copyright = "the flaxnets authors, Apache-2.0"
version = release = flaxnets.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

html_theme = "furo"
html_title = f"flaxnets {version}"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False

highlight_language = "none"  # of blocks that name none
pygments_dark_style = "github-dark"

default_role = "code"  # docstrings quote names in single backticks, as in Markdown
napoleon_use_ivar = True
napoleon_attr_annotations = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 88


def settings(part: type[Part] = Run, title: str = "The run") -> str:
    """Markdown lists of every setting, its default and what it does, out of the configuration's own classes."""
    lines, sections = [f"## {title}", "", part.__doc__ or "", ""], []
    for name, field in part.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Part):
            sections.append(settings(field.annotation, f"[{name}]"))
            continue
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, (), {}) else f" = `{str(default).strip('()')}`"
        meaning = (field.description or "").replace("\n", " ")
        lines += [f"`{name}`{shown}", f": {meaning}", ""]
    return "\n".join([*lines, *sections])


def commands() -> str:
    """Markdown of what every command says of itself."""
    os.environ["COLUMNS"] = "88"
    sections = []
    for name in TOOLS:
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
            main([name, "--help"])
        sections.append(f"## flaxnets {name}\n\n```\n{said.getvalue()}```\n")
    return "\n".join(sections)


def fill_in(app: object, page: str, source: list[str]) -> None:
    """Put the lists where pages ask for them."""
    for make in (settings, commands):
        if page == make.__name__:
            source[0] = source[0].replace(f"{{{{{page}}}}}", make())


def constructor(app: object, what: str, name: str, documented: object, *_: object) -> tuple[str, str] | None:
    """The signature of a class by its own `__init__`; Flax's metaclass would show that of its `__call__`."""
    if what != "class" or "__init__" not in vars(documented):
        return None
    signature = inspect.signature(documented.__init__, bound_method=True).replace(return_annotation=Parameter.empty)
    shown = inspect.stringify_signature(signature, unqualified_typehints=True)
    return re.sub(r"<class '([\w.]+)'>", r"\1", shown.replace("<factory>", "{}")), ""


def setup(app) -> None:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", constructor)
    app.connect("source-read", fill_in)
