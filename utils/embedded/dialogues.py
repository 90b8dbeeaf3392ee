r"""Dialogues of the game Fish Fillets: who says what, and in which recording.

The texts are Lua, which is parsed as text and never executed: `dialogId("id", "font_big",
"English")` names a recording, `sound/LEVEL/XX/id.ogg`, and the character (its font), and the next
`dialogStr("text")` is what the character says in the file's language.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.embedded.cache import FetchError
from utils.embedded.transcripts import Line, first_reason, trim

GAME = "usr/share/games/fillets-ng"
LEADS = ("font_big", "font_small")  # the two fish; the speaker "" is everybody else

_STRING = r'"((?:[^"\\]|\\.)*)"'
_CALL = re.compile(
    rf"^[ \t]*dialog(?:Id\(\s*{_STRING}\s*,\s*{_STRING}\s*,\s*{_STRING}\s*\)"
    rf"|Str\(\s*{_STRING}\s*\))",
    re.MULTILINE,
)
_WORD = r"[^\W\d_]*"
_STRETCHED = rf"{_WORD}([^\W\d_])\1\1{_WORD}"  # "Hahmmm", "ááááaa", "Pssst"
# If more than one reason applies, the first one counts.
_UNUSABLE: Mapping[str, re.Pattern] = {
    "no text": re.compile(r"^$"),
    "a number is put in: what was said is not written": re.compile(r"%\d"),  # "A%1."
    # A line in Russian, followed by its Czech translation; only one of them is spoken.
    "letters of another script": re.compile(r"[\u0370-\u1cff\u2e80-\U0010ffff]"),
    "a sound, not speech": re.compile(rf"^\W*(?:{_STRETCHED}\W*)+$", re.IGNORECASE),
    # A Windows path, a menu of a program: the text does not say whether and how a sign is spoken.
    "signs whose reading is uncertain": re.compile(r"[][(){}<>/*#@=+$%&~^|\\_]"),
}


@dataclass(frozen=True)
class Saying:
    """One line of a character."""

    level: str  # the folder below script/ and sound/
    id: str
    character: str  # "font_big"
    text: str  # "" where there is no dialogStr


def read_dialogues(folder: Path, language: str) -> dict[tuple[str, str], Saying]:
    """Return (level, id) -> line, from all dialogue files of a language.

    Raises:
        FetchError: a file is not UTF-8, or has calls that cannot be parsed.
    """
    found = {}
    for path in sorted(folder.glob(f"{GAME}/script/*/*_{language}.lua")):
        place = path.relative_to(folder / GAME).as_posix()
        try:
            lua = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise FetchError(
                f"{place} of fillets-ng-data is not UTF-8 (byte {error.start}): this version of "
                "the package is not known here."
            ) from None
        calls = list(_CALL.finditer(lua))
        written = len(re.findall(r"^[ \t]*dialog(?:Id|Str)\b", lua, re.MULTILINE))
        if len(calls) != written:
            raise FetchError(
                f"{place} of fillets-ng-data has {written} calls of dialogId and dialogStr, of "
                f"which {len(calls)} are understood: this version of the package is not known here."
            )
        level, key = path.parent.name, None
        for call in calls:
            name, character, _english, text = call.groups()
            if name is not None:
                key = (level, name)
                found[key] = Saying(level, name, character, "")
            elif key:
                text = re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
                found[key] = Saying(*key, found[key].character, text)
    return found


def lines(transcripts: Path, recordings: Path, language: str, character: str) -> Iterator[Line]:
    """Yield a character's lines; for the speaker "", those of everybody but the leads.

    Recordings that no line names have no character: they count for the speaker "".

    Args:
        transcripts: the package of the texts, unpacked.
        recordings: the package of the recordings, unpacked.
        language: "cs" or "nl".
        character: "font_big", "font_small", or "" for all others.
    """
    sounds = recordings / GAME / "sound"
    # share/ has folders of its own for recordings: share/border/cs/….ogg
    found = {
        (path.relative_to(sounds).parts[0], path.stem): path
        for path in sorted(sounds.rglob(f"{language}/*.ogg"))
    }
    sayings = read_dialogues(transcripts, language)
    for key, saying in sayings.items():
        if saying.character == character or not (character or saying.character in LEADS):
            text, reason = trim(saying.text), first_reason(saying.text, _UNUSABLE)
            speaker = f"{language}-{saying.character.removeprefix('font_') or 'unnamed'}"
            shown = f"{'/'.join(key)}: {saying.text}"
            reason = reason or ("" if text else "no text")
            yield Line("/".join(key), found.get(key), text, reason, shown, speaker)
    for key in sorted(found.keys() - sayings.keys()) if not character else ():
        yield Line("/".join(key), found[key], "", "no transcript", "/".join(key), language)
