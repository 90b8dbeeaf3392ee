"""A transcript without times becomes subtitles: `python -m utils.streaming.align SOUND TEXT`.

A model decodes the recording and says when each word is said; the characters of its hypothesis are
aligned with those of the text, and the text is cut at pauses where both agree. The .srt is written
beside the recording, where `recordings` and every subtitle editor find it; parts that do not agree
are in it in brackets, and become no clip.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import regex
from rapidfuzz.distance import Levenshtein
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import write_atomically
from utils.config import RecipeError
from utils.embedded.fetch import resolve
from utils.environment.command import command
from utils.environment.machine import device
from utils.streaming.cues import LONGEST_PAUSE, without_clocks
from utils.streaming.files import read_text
from utils.streaming.pauses import Levels
from utils.streaming.sound import decode_audio
from utils.text import languages, normalize, word_gap
from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS
from utils.whisper.captions import Segment, to_srt
from utils.whisper.load import load_checkpoint
from utils.whisper.long_recordings import transcribe_long
from utils.whisper.word_times import word_times

SHORTEST, LONGEST = 8, 80  # characters of a phrase: fewer may be found anywhere
RUN = 3  # characters in a row that must be the same: single ones are the same by chance
AGREEMENT = 0.5  # share of a phrase's characters in such runs
FOREIGN = 10  # characters decoded between two phrases that are in neither: somebody said more
QUICKEST, SLOWEST = 0.03, 0.15  # seconds that a character takes
REACH = 0.4  # seconds around an estimated border in which its pause is looked for
EDGE = 0.3  # seconds of a pause that stay with each side: a last syllable may be as quiet as it
MAX_HOURS = 6.0  # 230 MB of memory each
NOT_ALIGNED = "[not aligned]"


@dataclass
class Alignment:
    """What was found: cues in order, those that do not agree in brackets."""

    cues: list[Segment] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # phrases of the text

    @property
    def seconds(self) -> float:
        """The duration of the sound that has its text."""
        return sum(c.end - c.start for c in self.cues if not c.text.startswith(NOT_ALIGNED))


def phrases(text: str, language: str) -> list[str]:
    """Return a text cut where a speaker may pause: sentences, lines, and clauses of long ones."""
    parts = regex.split(r"(?<=[\p{STerm}…])\s*(?=[\s\p{Lo}])|\n+", without_clocks(text))
    clauses = [
        clause
        for part in parts
        for clause in (
            regex.findall(rf".{{1,{LONGEST}}}(?:[,;:，、]|\s|$)|\S{{{LONGEST}}}", part)
            if len(part) > LONGEST
            else [part]
        )
        if clause.strip()
    ]
    found, gap = [], word_gap(language)
    for clause in map(str.strip, clauses):
        if found and len(_letters(found[-1], language)) < SHORTEST:
            found[-1] += f"{gap}{clause}"
        else:
            found.append(clause)
    if len(found) > 1 and len(_letters(found[-1], language)) < SHORTEST:
        found[-2:] = [f"{found[-2]}{gap}{found[-1]}"]
    return found


def _letters(text: str, language: str) -> str:
    return normalize(text, language).replace(" ", "")


@dataclass
class _Phrase:
    text: str
    start: float = float("nan")  # seconds, estimated; NaN where it does not agree
    end: float = float("nan")
    first: int = -1  # of the decoded characters
    last: int = -1


def _locate(text: Sequence[str], decoded: Sequence[Segment], language: str) -> list[_Phrase]:
    """Return each phrase with its time, if the decoded characters agree with it."""
    letters = [_letters(one, language) for one in text]
    hypotheses = [_letters(one.text, language) for one in decoded]
    # A word's characters are spread evenly over its time, less the pause that may be behind it.
    spread = [np.zeros(0)]
    for one, said in zip(decoded, hypotheses, strict=True):
        end = min(one.end, one.start + SLOWEST * len(said))
        spread.append(np.linspace(one.start, end, len(said) + 1)[:-1])
    times = np.concatenate(spread)
    match = np.full(sum(map(len, letters)), -1)
    for op in Levenshtein.opcodes("".join(letters), "".join(hypotheses)):
        if op.tag == "equal" and op.src_end - op.src_start >= RUN:
            match[op.src_start : op.src_end] = np.arange(op.dest_start, op.dest_end)
    found, place = [], 0
    for said, own in zip(text, letters, strict=True):
        inside = match[place : place + len(own)]
        place += len(own)
        (same,) = np.nonzero(inside >= 0)
        one = _Phrase(said)
        if len(same) >= AGREEMENT * max(len(own), 1):
            one.first, one.last = int(inside[same[0]]), int(inside[same[-1]])
            pace = (times[one.last] - times[one.first]) / max(one.last - one.first, 1)
            pace = float(np.clip(pace, QUICKEST, SLOWEST))
            one.start = max(0.0, times[one.first] - pace * same[0])
            one.end = times[one.last] + pace * (len(own) - same[-1])
            # Twice as long as its text: half of it is something else.
            if one.last - one.first > 2 * len(own) + FOREIGN:
                one.start = one.end = float("nan")
        found.append(one)
    return found


def _groups(found: Sequence[_Phrase]) -> list[list[_Phrase]]:
    """Return the phrases that agree, grouped where nothing else is in the text or decoded."""
    groups: list[list[_Phrase]] = []
    for before, one in zip([None, *found], found, strict=False):
        if np.isnan(one.start):
            continue
        if before is None or np.isnan(before.start) or one.first - before.last - 1 > FOREIGN:
            groups.append([])
        groups[-1].append(one)
    return groups


def _edges(pause: tuple[float, float]) -> tuple[float, float]:
    """Return the end of what is before a pause and the start of what is behind it."""
    kept = min(EDGE, (pause[1] - pause[0]) / 2)
    return pause[0] + kept, pause[1] - kept


def _cut(
    group: Sequence[_Phrase], levels: Levels, after: float, total: float, gap: str
) -> list[Segment]:
    """Return the cues of a group; phrases without a pause between them stay together."""
    pause = levels.pause(group[0].start - REACH, group[0].start + REACH)
    start = max(after, _edges(pause)[1] if pause else group[0].start)
    cues, said = [], []
    for one, following in zip(group, [*group[1:], None], strict=True):
        said.append(one.text)
        near = sorted([one.end, following.start if following else one.end])
        pause = levels.pause(near[0] - REACH, near[1] + REACH)
        if following and pause is None:
            continue
        end, next_start = _edges(pause) if pause and pause[0] > start else [min(near[0], total)] * 2
        cues.append(Segment(start, max(end, start), gap.join(said)))
        start, said = max(next_start, end), []
    return cues


def align(text: str, decoded: Sequence[Segment], samples: np.ndarray, language: str) -> Alignment:
    """Return the text as cues, with the times from the model's hypothesis.

    Args:
        text: what is said, without times; it may lack parts, or have more.
        decoded: the model's words with their times, in order.
        samples: float32 at 16 kHz, of the recording.
        language: Whisper's code.
    """
    found, levels = _locate(phrases(text, language), decoded, language), Levels(samples)
    total, place = len(samples) / SAMPLING_RATE, 0.0
    result = Alignment(left_out=[one.text for one in found if np.isnan(one.start)])
    for group in _groups(found):
        for cue in _cut(group, levels, place, total, word_gap(language)):
            usable = 0.1 < cue.end - cue.start <= STOCK_SECONDS
            if cue.start - place > LONGEST_PAUSE or (place and group[0].text in cue.text):
                result.cues.append(Segment(place, cue.start, NOT_ALIGNED))
            result.cues.append(cue if usable else cue._replace(text=NOT_ALIGNED))
            result.left_out += [] if usable else [cue.text]
            place = cue.end
    if total - place > LONGEST_PAUSE:
        result.cues.append(Segment(place, total, NOT_ALIGNED))
    return result


def decode(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    samples: np.ndarray,
    language: str,
) -> list[Segment]:
    """Return the words that a model decodes in a recording, and print the progress."""
    decoded, shown, total = [], 0.0, len(samples) / SAMPLING_RATE
    for seconds, segments in transcribe_long(model, processor, samples, language=language):
        if segments:  # of one window
            start, said = segments[0].start, " ".join(one.text for one in segments)
            part = samples[round(start * SAMPLING_RATE) : round(segments[-1].end * SAMPLING_RATE)]
            words = word_times(model, processor, part, said, language)
            decoded += [Segment(start + one.start, start + one.end, one.text) for one in words]
        if seconds - shown >= 60 or seconds == total:
            print(f"{seconds / 60:.0f} of {total / 60:.0f} min decoded", file=sys.stderr)
            shown = seconds
    return decoded


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Give a transcript the times of its recording; write an .srt beside it."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.streaming.align", description=main.__doc__
    )
    parser.add_argument("recording", type=Path, help="a sound file or a video")
    parser.add_argument("text", type=Path, help="what is said in it: a .txt in UTF-8")
    parser.add_argument("--language", required=True, choices=languages(), metavar="CODE")
    parser.add_argument(
        "--checkpoint", default="embedded/whisper-base", help="a model that decodes (%(default)s)"
    )
    chosen = parser.parse_args(arguments)
    target = chosen.recording.with_suffix(".srt")
    if target.exists():
        raise RecipeError(f"{target} is there already: move it away to align once more.")
    text = read_text(chosen.text)
    if not _letters(text, chosen.language):
        raise RecipeError(f"{chosen.text} has no text.")
    samples = decode_audio(chosen.recording, MAX_HOURS * 3600, str(chosen.recording))
    model, processor = load_checkpoint(resolve(chosen.checkpoint))
    model.to(device())
    decoded = decode(model, processor, samples, chosen.language)
    found = align(text, decoded, samples, chosen.language)
    write_atomically(target, to_srt(found.cues))
    total = len(phrases(text, chosen.language))
    print(
        f"{target}: {found.seconds / 60:.1f} of {len(samples) / SAMPLING_RATE / 60:.1f} min have "
        f"their text; {len(found.left_out)} of {total} phrases do not agree with what was decoded:"
    )
    print(
        *(f"  {line}" for line in found.left_out[:10]),
        *["  …"] * (len(found.left_out) > 10),
        sep="\n",
    )


if __name__ == "__main__":
    sys.exit(main())
