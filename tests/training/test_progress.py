import json
import time

import pytest
import torch

from utils.training.progress import Pace, _seconds_before, progress_line, read_metrics


def test_clips_and_hours_are_those_of_all_processes_without_evaluations(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    two = Pace(processes=2)
    two.leave_out(7.0)  # before the first batch there is nothing to leave out
    for _ in range(5):
        two.count(torch.zeros(8, 80, 600))  # eight clips of 6 s
        now[0] += 1
    now[0] += 30
    two.leave_out(30)
    told = two.tell()
    assert told["clips_per_second"] == pytest.approx(2 * 40 / 5)
    assert told["audio_hours_per_hour"] == pytest.approx(2 * 240 / 5)
    assert told["memory_gib"] > 0.1
    two.count(torch.zeros(1, 80, 100))
    now[0] += 2
    assert two.tell()["clips_per_second"] == 1.0


def test_a_pace_of_which_nothing_is_known_yet_is_no_error():
    assert Pace(1).tell()["clips_per_second"] == 0


def test_the_time_left_is_that_of_the_steps_so_far_in_minutes_and_seconds():
    rows = [
        {"step": 5, "clock": 100.0, "process": "one"},
        {"step": 10, "clock": 159.7, "process": "one"},
    ]
    assert progress_line(rows, 15) == "step 10/15 · 1 min 0 s left"
    assert progress_line(rows, 30) == "step 10/30 · 3 min 59 s left"
    # Resumed a day later, on a machine whose clock has been set back: the pause is no work.
    later = [*rows, {"step": 10, "time": -9e9, "clock": 5.0, "process": "two"}]
    assert progress_line(later, 15) == "step 10/15"
    later.append({"step": 12, "time": 9e9, "clock": 25.0, "process": "two"})
    assert progress_line(later, 15) == "step 12/15 · 0 min 30 s left"
    assert _seconds_before(rows) == 0
    assert _seconds_before(later) == pytest.approx(59.7), "the card would tell the last part alone"


def test_a_metrics_file_cut_off_by_a_crash_is_read_up_to_the_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1, "loss": 2.0}) + '\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]
