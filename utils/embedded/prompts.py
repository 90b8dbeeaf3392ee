"""Telephone prompts: Asterisk's `core-sounds-XX.txt.gz` and the recordings that it names."""

import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from utils.embedded.transcripts import Line, first_reason, trim

SOUNDS = "usr/share/asterisk/sounds"
# Prompts that are sounds in every language; some transcripts describe them without brackets.
_SOUNDS = re.compile(
    r"silence/.*|beep|beeperr|(a|de)scending-2tone|tt-monkeys|confbridge-(join|leave)"
)
# If more than one reason applies, the first one counts.
_UNUSABLE: Mapping[str, re.Pattern] = {
    "no text": re.compile(r"^$"),
    # "[ascending tones]", "(ahooga)", "<beep ascending>"
    "a sound, not speech": re.compile(r"^(\[[^]]*\]|\([^)]*\)|<[^>]*>)$"),
    # "...confbridge-mute-in: Per ..." inside another prompt's text: where this one ends is a guess.
    "several prompts on one line": re.compile(r"[a-z]+-[a-z-]+:"),
    # Sometimes a translation or a hint to the speaker, sometimes spoken: "[quello] non è un
    # interno valido", "IAX (nota: non dice "2")", "M I S D N  (emme-iessedienne)".
    "brackets: what was read is uncertain": re.compile(r"[][(){}<>]"),
    # A letter lost in some conversion: "non pu? essere", "Se questo ? corretto". A real question
    # mark ends the text, or a capital letter follows. And Latin letters inside Cyrillic words
    # ("первoe"): they look right but are different tokens.
    "broken characters": re.compile(
        r"\ufffd|\?(?!\s*$|\s+[^\W\d_a-zß-ÿа-яё])|[А-яЁё][A-Za-z]|[A-Za-z][А-яЁё]"
    ),
    # "attivare/disattivare", "press # to enter": it does not say whether and how a sign is spoken.
    "signs whose reading is uncertain": re.compile(r"[/*#@=+$%&~^|\\_]"),
}


def clean_transcript(text: str) -> tuple[str, str]:
    """Return a prompt's transcript ready for training and "", or "" and the reason to drop it.

    Where the wording is uncertain, it is not guessed.
    """
    if reason := first_reason(text, _UNUSABLE):
        return "", reason
    text = trim(text)
    return text, "" if text else "no text"


def lines(transcripts: Path, recordings: Path, language: str, folder: str) -> Iterator[Line]:
    """Yield each line of the transcripts, then each recording that has none.

    Menardi has no transcripts of her own: she reads the same prompts, so Carlo's text is used by
    file name. The two do not always agree: of 40 clips drawn at random and transcribed by Whisper
    base, 3 differed in their wording (for "Prego inserire il numero" she says "digitare il
    numero"). That puts a floor of a few percent under every WER on her. Without a model, only the
    recording's length can show such clips.

    Args:
        transcripts: the package of the texts, unpacked.
        recordings: the package of the recordings, unpacked.
        language: of both.
        folder: the speaker's, for example "it_IT_m_Carlo".
    """
    sounds = recordings / SOUNDS / folder
    # Names differ in case here and there: "letters/O: O" is letters/o.wav.
    found = {
        path.relative_to(sounds).with_suffix("").as_posix().casefold(): path
        for path in sorted(sounds.rglob("*.wav"))
    }
    (file,) = transcripts.glob("usr/share/doc/*/core-sounds-*.txt.gz")
    text = gzip.decompress(file.read_bytes()).decode("utf-8-sig")
    written = [line.strip() for line in text.splitlines() if line.strip()]
    names = Counter(line.partition(":")[0].casefold() for line in written)
    speaker = f"{language}-{folder.split('_')[-1].lower()}"
    for line in written:
        prompt, colon, text = line.partition(":")
        text, reason = clean_transcript(text)
        if line.startswith(";") or not colon:
            reason = "a comment"
        elif names[prompt.casefold()] > 1:
            reason = "two transcripts for one name"
        elif _SOUNDS.fullmatch(prompt):
            reason = "a sound, not speech"
        yield Line(prompt, found.get(prompt.casefold()), text, reason, line, speaker)
    for prompt in sorted(found.keys() - names.keys()):
        yield Line(prompt, found[prompt], "", "no transcript", prompt, speaker)
