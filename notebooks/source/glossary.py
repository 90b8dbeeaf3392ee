"""Links from the lessons to the glossary: each term once, where the series first uses it."""

import re

LINK = re.compile(r"\[([^\]]+)\]\([^)\s]*docs/glossary\.md#[\w-]+\)")
HEADING = re.compile(r"^### (.+)$", re.MULTILINE)
# These are everyday words, too: they are terms where a lesson sets them in italics.
EVERYDAY = {"batch", "label", "processor", "prompt", "reference", "run", "source", "split", "step"}
EVERYDAY |= {"window", "precision", "recipe", "streaming"}
# Code, links and tags stay as they are.
UNTOUCHED = re.compile(r"(`[^`]*`|!?\[[^\]]*\]\([^)]*\)|<[^>]*>)")


def read_terms(page: str) -> list[str]:
    """Return the glossary's terms, the longest first, so that a part of a term is no term."""
    return sorted(HEADING.findall(page), key=len, reverse=True)


def anchor(term: str) -> str:
    """Return what GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", term.lower()).replace(" ", "-")


def link_terms(text: str, waiting: list[str], address: str) -> str:
    """Return a markdown cell with links at the first use of terms, which leave `waiting`.

    Args:
        text: of the cell.
        waiting: the terms that no cell before has used.
        address: of the glossary.
    """
    return "\n".join(
        line if line.startswith(("#", "|", "    ")) else _link_line(line, waiting, address)
        for line in text.split("\n")
    )


def _link_line(line: str, waiting: list[str], address: str) -> str:
    for term in list(waiting):
        pattern = rf"\b({re.escape(term)}s?)\b"
        if term.lower() in EVERYDAY:
            pattern = rf"(?<=\*)({re.escape(term)}s?)(?=\*)"
        parts = UNTOUCHED.split(line)
        for place in range(0, len(parts), 2):  # between what stays untouched
            link = rf"[\1]({address}#{anchor(term)})"
            parts[place], found = re.subn(pattern, link, parts[place], count=1, flags=re.IGNORECASE)
            if found:
                waiting.remove(term)
                line = "".join(parts)
                break
    return line


def unlinked(text: str) -> str:
    """Return a cell's text as its writer knows it."""
    return LINK.sub(r"\1", text)
