import time

import pytest
import torch

from utils.training.pace import Pace


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
