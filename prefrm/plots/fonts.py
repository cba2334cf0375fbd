"""Fonts of the system for the characters that the default font lacks: Chinese, Arabic, Hindi, and so on.

Needs matplotlib, which draws a text with a list of font families, each for what those before it lack.
"""

import logging
import unicodedata
from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

__all__ = ["families", "name_missing"]

logger = logging.getLogger(__name__)

# Its glyphs are pictures of missing characters.
PLACEHOLDERS = "Last Resort"
# A joiner or a variation selector changes its neighbours and is not drawn.
INVISIBLE = ("Cf", "Mn")
MOST_NAMED = 20

# The family that has a character, or "" if no font of the system has it.
_family_of: dict[str, str] = {}
_named: set[str] = set()


def families(text: str) -> list[str]:
    """The default font family and those that have the characters of `text` that it lacks."""
    found = filter(None, _lacking(text).values())
    return [*font_manager.FontProperties().get_family(), *dict.fromkeys(found)]


def name_missing(texts: Iterable[str]) -> None:
    """Log one warning that names the characters of these texts that no font has, each once in a process."""
    lacking = _lacking("".join(texts))
    missing = [c for c, family in lacking.items() if not family and c not in _named]
    if not missing:
        return
    _named.update(missing)
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    logger.warning(
        "no font of this system has the characters %s%s, so a plot shows boxes in their place; "
        "install a font that has them, such as a package of Noto fonts",
        " ".join(missing[:MOST_NAMED]),
        more,
    )


def _lacking(text: str) -> dict[str, str]:
    """The characters of `text` that the default font lacks: their families, "" where no font has one."""
    lacking = [c for c in dict.fromkeys(text) if not _by_default(c)]
    if unknown := {c for c in lacking if c not in _family_of}:
        _look_for(unknown)
    return {c: _family_of[c] for c in lacking}


@cache
def _by_default(character: str) -> bool:
    if unicodedata.category(character) in INVISIBLE or character.isspace():
        return True
    path = font_manager.findfont(font_manager.FontProperties())
    return bool(FT2Font(path).get_char_index(ord(character)))


def _look_for(characters: set[str]) -> None:
    """Find families for these characters, as few as can be, and register their fonts with matplotlib."""
    _family_of.update(dict.fromkeys(characters, ""))
    found: dict[str, set[str]] = {}
    preferred: dict[str, tuple[bool, ...]] = {}
    paths: dict[str, list[str]] = {}
    for path in sorted(font_manager.findSystemFonts()):
        try:
            font = FT2Font(path)
        # A font that FreeType cannot read is none that it can draw with.
        except RuntimeError:
            continue
        name = font.family_name
        if not font.scalable or name.startswith(PLACEHOLDERS):
            continue
        paths.setdefault(name, []).append(path)
        found.setdefault(name, set()).update(c for c in characters if font.get_char_index(ord(c)))
        preferred[name] = ("Sans" in name, "Mono" not in name)
    rest = set(characters)
    while rest and found:
        best = max(found, key=lambda name: (len(found[name] & rest), preferred[name]))
        if not (new := found.pop(best) & rest):
            break
        rest -= new
        _family_of.update(dict.fromkeys(new, best))
        _register(paths[best])


def _register(paths: Iterable[str]) -> None:
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in paths:
        if path not in known:
            font_manager.fontManager.addfont(path)
