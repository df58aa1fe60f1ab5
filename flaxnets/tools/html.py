"""HTML that is made of elements, so that all text in it is escaped."""

import html

VOID = frozenset({"meta", "img"})  # elements without content, which are not closed


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: object) -> Html:
    """An element: children that are not Html are escaped, and so are attributes, of which None is left out.

    Args:
      name: of the element.
      children: what stands in it.
      attributes: with `_` at the end where Python needs the word itself (`class_`), and in place of `-`.

    >>> tag("p", "1 < 2", tag("b", "!"), class_="wide")
    '<p class="wide">1 &lt; 2<b>!</b></p>'
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    start = name + "".join(f' {key}="{html.escape(str(value))}"' for key, value in given.items())
    inside = "".join(child if isinstance(child, Html) else html.escape(child) for child in children)
    return Html(f"<{start}>" if name in VOID else f"<{start}>{inside}</{name}>")


def table(head: list[str], rows: list[list[str]], **attributes: object) -> Html:
    """A table that scrolls by itself where the page is narrow; the first column names the row."""
    titles = tag("tr", *(tag("th", each, scope="col") for each in head))
    body = (tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows)
    return tag("div", tag("table", tag("thead", titles), tag("tbody", *body), **attributes), class_="scroll")
