"""Which clips the page offers: those that show what fine-tuning changed."""

import json
from types import SimpleNamespace

from datasets import Dataset, DatasetDict

from utils.demo.serve import example_rows

CLIPS = {  # id: seconds, what was said, what each model transcribed
    "short": (0.5, "ano", "ne", "ano"),
    "long": (8.0, "to je ten dům", "to je ten dům", "to je ten dům"),
    "middle": (4.0, "kdo to byl", "kdo to byl", "kdo to byl"),
    "gained": (6.0, "dej mi pokoj", "drž my pokoř", "dej mi pokoj"),
    "again": (5.0, "dej mi pokoj", "drž mi pokoj", "dej mi pokoj"),
    "lost": (4.0, "uhni mi", "uhni mi", "umí mi"),
}


CHINESE = {
    "one": (4.0, "今天天气很好", "今天天汽很好", "今天天气很好"),
    "four": (4.0, "我们一起吃饭", "他门已起吃反", "我们一起吃饭"),
}


def run_of(folder, evaluated, clips=CLIPS, language="cs"):
    rows = [{"id": key, "seconds": clip[0], "text": clip[1]} for key, clip in clips.items()]
    DatasetDict(test=Dataset.from_list(rows)).save_to_disk(folder / "prepared")
    run = SimpleNamespace(prepared=folder / "prepared", predictions=folder / "predictions.jsonl")
    if evaluated:
        told = [
            {"id": key, "language": language, "reference": said, "before": before, "after": after}
            for key, (_, said, before, after) in clips.items()
        ]
        run.predictions.write_text("".join(json.dumps(row) + "\n" for row in told), "utf-8")
    return run


def test_clips_that_gained_words_come_first_each_text_once(tmp_path):
    shown = example_rows(run_of(tmp_path, evaluated=True), len(CLIPS))
    assert shown["id"][:] == ["gained", "middle", "long", "lost", "short", "again"]


def test_where_words_have_no_spaces_characters_are_counted(tmp_path):
    shown = example_rows(run_of(tmp_path, True, CHINESE, "zh"))
    assert shown["id"][:] == ["four", "one"]


def test_before_the_evaluation_clips_of_some_seconds_are_taken(tmp_path):
    shown = example_rows(run_of(tmp_path, evaluated=False))
    assert set(shown["id"][:]) == {"middle", "lost", "again"}
