"""The text of a clip in the format for training: timestamps, tags, characters, label ids."""

import math
from collections.abc import Sequence

from transformers import WhisperTokenizer

from utils.config import Preprocessing
from utils.preprocessing.quality import Unusable
from utils.text import EITHER, INVISIBLE, TAGS, apply_casing
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.captions import MARK, Segment, from_marks
from utils.whisper.labels import text_ids

LATE = 0.5  # seconds that the last time may be after the sound: people set boundaries by ear


def read_transcript(text: str, language: str, rules: Preprocessing) -> list[Segment]:
    """Return a row's text in the recipe's format, divided at Whisper's timestamps if it has any.

    Args:
        text: the source's; `<|0.00|> Ciao.<|1.20|>` says when each phrase is said.
        language: Whisper's code.
        rules: the recipe's.

    Returns:
        The phrases that have text; or one without times (both NaN).

    Raises:
        Unusable: it has tokens of Whisper's that are not timestamps, or impossible times.
    """
    try:
        # Split by an invisible character, a token would only be complete afterwards.
        phrases = from_marks(INVISIBLE.sub("", text))
    except ValueError:
        raise Unusable("Whisper's own marks (<|…|>) in the text") from None
    phrases = phrases or [Segment(float("nan"), float("nan"), text)]
    written = []
    for start, end, said in phrases:
        if rules.drop_tags:
            said = TAGS.sub(" ", EITHER.sub(r"\1", said))
        said = apply_casing(said, rules.lower_case, rules.remove_punctuation, language)
        if said:
            written.append(Segment(start, end, said))
    if not written and rules.drop_tags and TAGS.search(MARK.sub("", text)):
        raise Unusable("nothing but tags in brackets")
    return written


def divide(
    phrases: Sequence[Segment], samples: int, tokenizer: WhisperTokenizer, language: str
) -> tuple[list[int], list[list[int]]]:
    """Return how many samples each phrase and each pause of a clip has, and their text ids.

    Raises:
        Unusable: a phrase begins or ends after the clip.
    """
    ids = [text_ids(tokenizer, phrase.text, language) for phrase in phrases]
    if all(math.isnan(phrase.start) for phrase in phrases):
        return [samples], ids
    counts, tokens, place = [], [], 0
    for (start, end, _), said in zip(phrases, ids, strict=True):
        first, last = (min(round(time * SAMPLING_RATE), samples) for time in (start, end))
        if first == samples or end > samples / SAMPLING_RATE + LATE:
            raise Unusable("times beyond the end of the sound")
        if first > place:
            counts, tokens = [*counts, first - place], [*tokens, []]
        counts, tokens, place = [*counts, last - first], [*tokens, said], last
    if place < samples:
        counts, tokens = [*counts, samples - place], [*tokens, []]
    return counts, tokens
