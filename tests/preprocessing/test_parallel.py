import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from itertools import count, islice

import pytest

from utils.preprocessing import parallel
from utils.preprocessing.parallel import map_in_order


def slow_square(number):
    time.sleep(0.002 * (number % 3))  # later ones may be ready first
    return number * number, os.getpid()


def refuse_fifty(number):
    if number == 50:
        raise ValueError("fifty")
    return number


def die(number):
    os._exit(1) if number == 50 else None


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(parallel, "INLINE", 10)


@pytest.mark.parametrize("items", [0, 5, 10, 11, 300])
def test_results_come_in_order_from_several_processes(items):
    found = list(map_in_order(slow_square, range(items), 2))
    assert [square for square, _ in found] == [n * n for n in range(items)]
    processes = {pid for _, pid in found[10:]}
    assert os.getpid() not in processes and len(processes) <= 2


def test_an_endless_source_is_read_only_a_little_ahead():
    read = []
    items = (read.append(n) or n for n in count())
    results = map_in_order(slow_square, items, 2)
    assert len(list(islice(results, 100))) == 100
    results.close()
    assert len(read) < 100 + (parallel.AHEAD * 2 + 2) * parallel.CHUNK


def test_an_error_comes_from_its_item_and_a_dead_process_is_no_endless_wait():
    with pytest.raises(ValueError, match="fifty"):
        list(map_in_order(refuse_fifty, range(100), 2))
    with pytest.raises(BrokenProcessPool):
        list(map_in_order(die, range(100), 2))


def test_no_process_outlives_the_one_that_asked():
    script = """
from itertools import count
from tests.preprocessing.test_parallel import slow_square
from utils.preprocessing import parallel
if __name__ == "__main__":
    parallel.INLINE = 1
    for square, pid in parallel.map_in_order(slow_square, count(), 2):
        print(pid, flush=True)
"""
    asks = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pids = {int(asks.stdout.readline()) for _ in range(200)} - {asks.pid}
    asks.kill()
    assert pids
    end = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
