"""A GPU that PyTorch cannot use is reported before anything is trained on the CPU instead."""

import os
import re
import shlex
import sys
from collections.abc import Sequence

import torch

from utils.config import UserError
from utils.environment import driver
from utils.environment.colab import is_hosted

CPU_ONLY = os.environ.get("WHISPER_CPU", "0") not in ("", "0")
if CPU_ONLY:  # before CUDA starts, so that nothing else takes a GPU either
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# cuDNN's attention makes a plan for each shape that it has not met: 0.3 s of a training step that
# takes 0.04 (base on an H100, torch 2.11), and here nearly every batch has a shape of its own.
# PyTorch's own flash attention is as fast and makes none.
torch.backends.cuda.enable_cudnn_sdp(False)

ANYWAY = "WHISPER_CPU=1 in the environment goes on without the GPU."


class HardwareError(UserError):
    """The recipe needs what this machine does not have; the message names the way out."""


def has_kernels(built: Sequence[str], capability: tuple[int, int]) -> bool:
    """Tell whether a PyTorch has code for a card.

    Args:
        built: of `torch.cuda.get_arch_list()`. Machine code, `sm_80`, runs on later cards of the
            same generation, `compute_120` is compiled for any later card, and `sm_90a` runs on that
            one alone (CUDA C++ Programming Guide, "Application Compatibility").
        capability: of the card.
    """
    for kind, major, minor, alone in re.findall(r"(sm|compute)_(\d+)(\d)([a-z]?)", " ".join(built)):
        made_for = (int(major), int(minor))
        later = made_for[0] == capability[0] and made_for <= capability
        if made_for == capability or (
            not alone and (later if kind == "sm" else made_for <= capability)
        ):
            return True
    return False


def check_gpu() -> None:
    """Stop if this machine has an NVIDIA GPU that PyTorch cannot use.

    Raises:
        HardwareError: with the driver, what PyTorch was built for, and the commands that help.
    """
    if CPU_ONLY or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return  # hidden on purpose
    if torch.cuda.is_available():
        built, capability = torch.cuda.get_arch_list(), torch.cuda.get_device_capability()
        if torch.version.cuda and built and not has_kernels(built, capability):
            major, minor = capability
            raise HardwareError(
                f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}, and torch "
                f"{torch.__version__} is built for {' '.join(built)} alone: "
                f"{_other_torch(driver.driver_version(), [capability])} {ANYWAY}"
            )
    elif version := driver.driver_version():
        raise HardwareError(f"{_unseen(version)} {ANYWAY}")


def _unseen(version: str) -> str:
    """Return why PyTorch sees no GPU although there is a driver, and what helps."""
    fault = f"There is an NVIDIA driver {version}, but torch {torch.__version__}"
    cuda = torch.version.cuda
    if cuda and driver.serves(version, cuda):
        return (
            f"{fault}, built for CUDA {cuda}, sees no GPU, although they fit: does `nvidia-smi` "
            "list a card? A container needs `docker run --gpus all`, a Slurm job `--gpus=1`."
        )
    if cuda:
        needed = driver.FIRST_DRIVER[int(cuda.split(".")[0])]
        fault += f", built for CUDA {cuda}, needs driver {needed} or newer"
    else:
        fault += " is a build without CUDA"
    return f"{fault}: {_other_torch(version, driver.capabilities())}"


def _other_torch(version: str, cards: list[tuple[int, int]]) -> str:
    """Return how to get a PyTorch for a driver and its cards."""
    if is_hosted():
        return "take another GPU (T4, say) in the runtime's settings."
    wheel = driver.fitting_wheel(version, cards)
    if wheel is None:
        return (
            f"no current PyTorch serves driver {version}: update it, or rent a host with driver "
            "580 (CUDA 13) or newer."
        )
    pinned = wheel.torch if "=" in wheel.torch else f"torch=={torch.__version__.split('+')[0]}"
    index = f" --index-url {wheel.index}" if wheel.index else ""
    pip = f"{shlex.quote(sys.executable)} -m pip"
    return f"run `{pip} uninstall --yes torch && {pip} install '{pinned}'{index}`, then start anew."
