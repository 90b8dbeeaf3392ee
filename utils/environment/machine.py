"""What this machine offers: device, precision with its reason, memory, disk, the Hub account."""

import functools
import logging
import os
import platform
import resource
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import joblib
import psutil
import torch
from huggingface_hub.errors import HfHubHTTPError

from utils.environment.gpu import CPU_ONLY, check_gpu

GIB = 2**30
SHARED = Path("/dev/shm")  # 64 MB in a container of Docker or Kubernetes, if nobody asks for more
# A container's limit of memory, of either version of cgroups, and what `memory.stat` beside it
# calls the memory that processes hold.
LIMITS = {
    Path("/sys/fs/cgroup/memory.max"): "anon",
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"): "total_rss",
}

logger = logging.getLogger(__name__)


def usable_cores() -> int:
    """Return how many cores this process may use: a container or taskset may allow fewer."""
    return joblib.cpu_count()


# PyTorch counts the cores of the machine, also where a container may use the time of a few: threads
# that wait for one another, each stopped for most of the time, are many times slower than one.
if usable_cores() < torch.get_num_threads():
    torch.set_num_threads(usable_cores())


class Precision(NamedTuple):
    """The number format to train in, and why."""

    name: str  # "bf16", "fp16" or "fp32"
    reason: str

    @property
    def half(self) -> torch.dtype | None:
        """The type of its 16 bits; None for 32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)


def device() -> torch.device:
    """Return where models run: the GPU, else Apple's, else the CPU.

    Raises:
        HardwareError: there is an NVIDIA GPU that PyTorch cannot use, and WHISPER_CPU is not set.
    """
    check_gpu()
    if torch.cuda.is_available():
        return torch.device("cuda")
    has_mps = torch.backends.mps.is_available() and not CPU_ONLY
    return torch.device("mps" if has_mps else "cpu")


def precision() -> Precision:
    """Return the number format that this machine trains in, and the reason as a sentence."""
    if not torch.cuda.is_available():
        if _multiplies_bf16():
            why = "this CPU multiplies bf16 several times as fast, with the range of float32."
            return Precision("bf16", why)
        return Precision("fp32", "there is no CUDA GPU, and this CPU has no instructions for bf16.")
    major, minor = torch.cuda.get_device_capability()
    name = f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}"
    # In both cases the weights themselves stay float32. fp16 lacks the range of float32: small
    # gradients vanish unless the loss is scaled up first, which the trainer does.
    if major >= 8:
        return Precision("bf16", f"{name}: from 8.0 on, bf16 is fast and has the range of float32.")
    return Precision("fp16", f"{name}: below 8.0 only fp16 is fast; the loss is scaled for it.")


def _multiplies_bf16() -> bool:
    """Return whether the CPU has instructions for products of bf16, AVX-512's or AMX."""
    # An older PyTorch does not say.
    told = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(told.get("avx512_bf16") or told.get("amx_bf16"))


def training_precision() -> dict[str, bool]:
    """Return the precision as arguments of `Seq2SeqTrainingArguments`."""
    name = precision().name
    return {} if name == "fp32" else {name: True}


def loader_workers(batch_bytes: int = 1) -> int:
    """Return how many processes make batches while a GPU trains: its share of the cores, up to 16.

    None without a GPU: the cores are busy with training itself. Fewer where the memory that
    processes share is small: one that finds it full is killed, and training ends with a bus error.

    Args:
        batch_bytes: of a batch; each process has two on the way.
    """
    if not torch.cuda.is_available():
        return 0
    trainings = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # torchrun's, one for each GPU
    workers = min(max(usable_cores() // trainings, 1), 16)
    room = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
    fitting = min(workers, room // (2 * batch_bytes * trainings))
    if fitting < workers:
        _warn_once(
            f"{SHARED} has room for {room / 2**20:.0f} MiB, so {fitting} of {workers} processes "
            "make batches: start the container with --shm-size=16g or --ipc=host for all of them."
        )
    return fitting


@functools.cache
def _warn_once(sentence: str) -> None:
    logger.warning(sentence)


def peak_gib() -> float:
    """Return the peak memory of this process so far, in GiB (GPU memory not counted)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux reports KiB, macOS bytes (getrusage(2) of either).
    return peak * (1 if sys.platform == "darwin" else 1024) / GIB


def memory_gib() -> tuple[float, float]:
    """Return the memory of this machine, or of its container, and what is free of it, in GiB."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    for path, key in LIMITS.items():
        with suppress(OSError, ValueError):  # "max"
            limit = int(path.read_text(encoding="utf-8"))
            lines = path.with_name("memory.stat").read_text(encoding="utf-8").splitlines()
            # What the processes hold; the cache of files, which counts too, makes room for them.
            held = int(dict(line.split() for line in lines).get(key, 0))
            total, free = min(total, limit), min(free, limit - held)
    return total / GIB, free / GIB


def free_disk_gib(folder: str | Path) -> float:
    """Return the free space, in GiB, on the disk that holds (or will hold) `folder`."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free / GIB


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # macOS has no /proc
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    # ARM kernels write no "model name".
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine() -> dict[str, Any]:
    """Return the facts about this machine that belong to a measurement."""
    # With wider vectors the same name trains twice as fast, and again with bf16.
    does = [torch.backends.cpu.get_cpu_capability()]
    if _multiplies_bf16():
        does.append("bf16")
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": ", ".join([_cpu_name(), *does]),
        "cores": usable_cores(),
        "memory_gib": round(memory_gib()[0], 1),
        "gpu": None,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts["gpu"] = properties.name
        facts["gpu_memory_gib"] = round(properties.total_memory / GIB, 1)
    return facts


def hub_account() -> str:
    """Return one sentence about the Hub account that is logged in; the token is never in it."""
    # Environment variable, token file or Colab secret, in the order that the Hub's client takes.
    token = huggingface_hub.get_token()
    if token is None:
        return "No token is set: you use the Hub without a name, which is enough here."
    if not token.isascii():  # "…" or a quotation mark of a text, copied along
        return (
            "A token is set, but no token has such characters: log in again with `hf auth login`."
        )
    try:
        huggingface_hub.whoami(token)
        return "You are logged in to the Hub."  # a notebook that is shared tells no name
    except HfHubHTTPError as error:
        status = error.response.status_code
        refused = status in (401, 403)
        return (
            "A token is set, but the Hub refuses it: log in again with `hf auth login --force`."
            if refused
            else f"A token is set, but the Hub answers with status {status}: try again later."
        )
    except Exception as error:  # without a network: httpx's or httpx2's, by the client's version
        return f"A token is set, but the Hub cannot be reached ({type(error).__name__})."
