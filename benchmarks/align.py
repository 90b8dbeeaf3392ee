"""How well a transcript without times is aligned: joined clips whose borders are known.

    python -m benchmarks.align

Test clips of embedded speech are joined with pauses of 0.6 s to recordings of four minutes; their
texts, without any times, are aligned by what base decodes, at its own error rate. Once as they are,
and once with every tenth sentence missing from the text and every tenth one added from elsewhere.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from benchmarks.common import save_result
from utils.config import load_recipe
from utils.embedded.fetch import speech
from utils.evaluation.long_form import JoinedClips, join_clips
from utils.scoring.error_rates import count_errors, error_rate
from utils.streaming.align import NOT_ALIGNED, Alignment, align, decode
from utils.streaming.sound import decode_audio
from utils.text import normalize
from utils.whisper.load import load_model

VOICES = (("it", "carlo"), ("cs", "small"), ("cs", "others"))
RECORDINGS, SECONDS = 3, 240
TARGET = "the median border at most 0.2 s off, nine of ten cues with the right text"


def judge(
    found: Alignment, long: JoinedClips, given: Sequence[str]
) -> tuple[list[float], list[bool]]:
    """Return errors of the borders that are known (seconds), and for each cue whether it is right.

    A cue is right where nine tenths of its sound lie in the clips that its text is of, and it has
    nine tenths of those clips that it has the whole text of.
    """
    borders = dict(zip(long.texts, long.borders, strict=True))
    starts = np.cumsum([0, *(len(text) + 1 for text in given)])
    whole, place, errors, right = " ".join(given), 0, [], []
    for cue in found.cues:
        if cue.text == NOT_ALIGNED:
            continue
        at = whole.index(cue.text, place)
        place = at + len(cue.text)
        first, last = np.searchsorted(starts, [at, place], side="right") - 1
        inside = [borders[text] for text in given[first : last + 1] if text in borders]
        if len(inside) <= last - first:  # a text that nobody says there
            right.append(False)
            continue
        start, end = inside[0][0], inside[-1][1]
        is_first, is_last = at == starts[first], place == starts[last + 1] - 1
        shared = min(cue.end, end) - max(cue.start, start)
        complete = shared >= 0.9 * (end - start) or not (is_first and is_last)
        right.append(bool(shared >= 0.9 * (cue.end - cue.start) and complete))
        errors += [abs(cue.start - start)] * int(is_first)
        errors += [abs(cue.end - end)] * int(is_last)
    return errors, right


def disturb(texts: Sequence[str], elsewhere: Sequence[str]) -> list[str]:
    """Return the texts with every tenth one missing, and as many that nobody says there."""
    kept = [text for number, text in enumerate(texts) if number % 10 != 4]
    for number, text in enumerate(elsewhere[: len(texts) // 10]):
        kept.insert(min(10 * number + 7, len(kept)), text)
    return kept


def measure(
    language: str,
    speaker: str,
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
) -> list[dict[str, Any]]:
    """Return two rows for a voice: its texts as they are, and disturbed."""
    clips = [clip for clip in speech(language, speaker).clips if clip.split != "train"]
    sounds = [decode_audio(clip.path.read_bytes()) for clip in clips]
    texts = [" ".join(clip.text.split()) for clip in clips]
    rows = {arm: {"errors": [], "right": [], "aligned": 0.0} for arm in ("whole", "disturbed")}
    seconds, counts, number = 0.0, [], 0
    for _ in range(RECORDINGS):
        long = join_clips(sounds[number:], texts[number:], language, SECONDS)
        if not long.texts:
            break
        number += len(long.texts)
        decoded = decode(model, processor, long.samples, language)
        said = [
            normalize(" ".join(part), language) for part in (long.texts, [d.text for d in decoded])
        ]
        counts.append(count_errors([said[0]], [said[1]], "word"))
        seconds += sum(end - start for start, end in long.borders)
        for arm, given in (("whole", long.texts), ("disturbed", disturb(long.texts, texts[::-1]))):
            found = align("\n".join(given), decoded, long.samples, language)
            errors, right = judge(found, long, given)
            rows[arm]["errors"] += errors
            rows[arm]["right"] += right
            rows[arm]["aligned"] += found.seconds
    return [
        {
            "voice": f"{language} {speaker}",
            "text": arm,
            "minutes": round(seconds / 60, 1),
            "wer_decoded": round(error_rate(np.concatenate(counts)), 3),
            "share_aligned": round(float(row["aligned"] / seconds), 3),
            "cues": len(row["right"]),
            "border_median_s": round(float(np.median(row["errors"])), 3),
            "border_p95_s": round(float(np.percentile(row["errors"], 95)), 3),
            "share_right": round(float(np.mean(row["right"])), 3),
        }
        for arm, row in rows.items()
    ]


def main() -> int:
    """Measure every voice and write the result."""
    model, processor = load_model(load_recipe("recipes/embedded.toml"))
    rows = []
    for voice in VOICES:
        rows += measure(*voice, model, processor)
        print(*rows[-2:], sep="\n", flush=True)
    right = [row["share_right"] for row in rows]
    ratio = {"median": np.median(right), "low": min(right), "high": max(right)}
    save_result("align", TARGET, ratio, rows, on_cpu=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
