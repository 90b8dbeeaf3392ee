"""Whether the evaluation's figures are right: intervals against known rates, rates against jiwer.

The ratio is how often the 95 % interval held the true rate, over 0.95: 1 is exactly as often as it
says. Clips of a simulated test set differ in length and in how hard they are, as real ones do; in
the second part speakers differ, too, in how hard they are and in how much they gain, and intervals
and paired test are drawn by speaker and, to compare, by clip.
"""

import itertools
import sys

import jiwer
import numpy as np

from benchmarks.common import save_result
from utils.scoring.error_rates import count_errors, error_rate
from utils.scoring.intervals import confidence_interval, paired_p_value, pool

TARGET = (
    "93 to 97 % of the intervals hold the true rate, by clip and by speaker; where speakers gain "
    "nothing on average, 4 to 6 % of tests by speaker say p < 0.05; WER and CER equal jiwer's"
)
SIMULATIONS, RESAMPLES, PAIRS = 1000, 1000, 10_000
RATES = (0.05, 0.15, 0.4)
CLIPS = (30, 100)  # in each simulated test set
SPEAKERS = (10, 20, 40)  # 10 is predictions.MIN_SPEAKERS
CLIPS_OF_SPEAKER = 50
STUDIES, BY_CLIP = 4000, 200  # 5 % of four thousand is known to within 0.35 points
SPREAD = 4  # of a Beta distribution: a clip's own error rate varies widely around the true one
WORDS = {
    "Latin": ["casa", "acqua", "premere", "c'è", "perché", "tasto", "uno", "due"],
    "Cyrillic": ["нажмите", "кнопку", "ещё", "раз", "пожалуйста"],
    "Greek": ["καλημέρα", "ένα", "δύο", "παρακαλώ", "όχι"],
    "Arabic": ["مرحبا", "واحد", "اِثنان", "من", "فضلك"],
    "Hebrew": ["שלום", "אחת", "שתיים", "בבקשה", "לא"],
    "Devanagari": ["नमस्ते", "हिन्दी", "में", "बोलिए", "की", "का"],
    "Thai": ["ที่นี่", "ไม่", "ไม้", "ครับ"],
    "Han": ["你好", "一", "二", "请", "电话号码"],
}


def random_pairs(script: str, clips: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return sentences of a script's words, and copies with words replaced, dropped and added."""
    random = np.random.default_rng(seed)
    words = WORDS[script]
    references, hypotheses = [], []
    for _ in range(clips):
        said = list(random.choice(words, random.integers(1, 9)))
        hypothesis = [random.choice(words) if random.random() < 0.2 else word for word in said]
        hypothesis = [word for word in hypothesis if random.random() > 0.1]
        hypothesis += list(random.choice(words, random.integers(0, 2)))
        references.append(" ".join(said))
        hypotheses.append(" ".join(hypothesis))
    return references, hypotheses


def simulate(rate: float, clips: int, random: np.random.Generator) -> np.ndarray:
    """Return the `count_errors` of a test set whose expected error rate is known."""
    lengths = random.integers(2, 15, clips)
    own_rates = random.beta(rate * SPREAD, (1 - rate) * SPREAD, clips)
    return np.stack([random.binomial(lengths, own_rates), lengths], axis=1)


def coverage(rate: float, clips: int) -> float:
    """Return the share of simulated test sets whose interval holds the true rate."""
    random = np.random.default_rng(round(1000 * rate))
    hits = 0
    for number in range(SIMULATIONS):
        low, high = confidence_interval(simulate(rate, clips, random), RESAMPLES, seed=number)
        hits += low <= rate <= high
    return hits / SIMULATIONS


def simulate_speakers(
    speakers: int, rate: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts before and after, and whose clip each is; nobody gains on average.

    A speaker's errors are lognormal around the rate (0.5 on the scale of logarithms), his own
    relative gain is normal around 0 (0.25).
    """
    who = np.repeat(np.arange(speakers), CLIPS_OF_SPEAKER)
    lengths = random.integers(2, 15, len(who))
    hard = rate * np.exp(random.normal(-0.125, 0.5, speakers))  # its mean is the rate
    gain = np.clip(random.normal(0, 0.25, speakers), -0.9, 0.9)
    before, after = (random.poisson(lengths * (hard * more)[who]) for more in (1, 1 - gain))
    return np.stack([before, lengths], axis=1), np.stack([after, lengths], axis=1), who


def by_speaker(speakers: int, rate: float) -> dict[str, float]:
    """Return coverage and false alarms, drawn by speaker and by clip."""
    random, studies = np.random.default_rng(speakers), (STUDIES, BY_CLIP)
    hits = np.zeros((2, 2))
    for number in range(STUDIES):
        before, after, who = simulate_speakers(speakers, rate, random)
        for row, drawn in enumerate(((pool(before, who), pool(after, who)), (before, after))):
            if number < studies[row]:
                low, high = confidence_interval(drawn[0], RESAMPLES // 2, seed=number)
                p_value = paired_p_value(*drawn, RESAMPLES // 2, seed=number)
                hits[row] += low <= rate <= high, p_value < 0.05
    shares = hits / np.array(studies)[:, None]
    names = ("coverage", "false_alarms", "coverage_by_clip", "false_alarms_by_clip")
    return dict(zip(names, shares.ravel().tolist(), strict=True))


def compare_with_jiwer(script: str, pairs: int) -> dict[str, float]:
    """Return the largest difference from jiwer over single pairs and over all of them together."""
    references, hypotheses = random_pairs(script, pairs)
    result: dict[str, float] = {}
    for unit, judge in (("word", jiwer.wer), ("char", jiwer.cer)):
        counts = count_errors(references, hypotheses, unit)
        single = [
            abs(edits / length - judge(said, hypothesis))
            for (edits, length), said, hypothesis in zip(
                counts, references, hypotheses, strict=True
            )
        ]
        whole = abs(error_rate(counts) - judge(references, hypotheses))
        result[f"{unit[0]}er_largest_difference"] = float(max(whole, *single))
    return result


def main() -> int:
    """Simulate, compare, and save the result; return 1 where the target is missed."""
    rows: list[dict] = []
    for script in WORDS:
        rows.append(
            {"script": script, "pairs": PAIRS // len(WORDS)}
            | compare_with_jiwer(script, PAIRS // len(WORDS))
        )
        print(rows[-1], flush=True)
    covered = []
    for clips, rate in itertools.product(CLIPS, RATES):
        covered.append(coverage(rate, clips))
        rows.append({"clips": clips, "true_rate": rate, "coverage": covered[-1]})
        print(rows[-1], flush=True)
    alarms = []
    for speakers in SPEAKERS:
        rows.append({"speakers": speakers, "true_rate": 0.15} | by_speaker(speakers, 0.15))
        covered.append(rows[-1]["coverage"])
        alarms.append(rows[-1]["false_alarms"])
        print(rows[-1], flush=True)
    ratios = np.array(covered) / 0.95
    ratio = {"median": np.median(ratios), "low": ratios.min(), "high": ratios.max()}
    print("wrote", save_result("intervals", TARGET, ratio, rows, on_cpu=True))
    equal = all(value < 1e-12 for row in rows for key, value in row.items() if "difference" in key)
    holds = all(0.93 <= share <= 0.97 for share in covered)
    return 0 if equal and holds and all(0.04 <= share <= 0.06 for share in alarms) else 1


if __name__ == "__main__":
    sys.exit(main())
