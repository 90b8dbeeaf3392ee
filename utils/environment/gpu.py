"""A GPU that PyTorch cannot use is reported before anything is trained on the CPU instead."""

import os
import re
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
            name = f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}"
            fault = f"{name}, and torch {torch.__version__} is built for {' '.join(built)} alone"
            raise HardwareError(_with_remedy(fault, [capability]))
    elif version := driver.driver_version():
        raise HardwareError(_with_remedy(_why_unseen(version), driver.capabilities()))


def _why_unseen(version: str) -> str:
    serves = f" (CUDA {cuda})" if (cuda := driver.newest_cuda()) else ""
    fault, made = f"There is an NVIDIA driver {version}{serves}, but torch", torch.__version__
    if torch.version.cuda is None:
        return f"{fault} {made} is a build without CUDA"
    fault += f" {made}, built for CUDA {torch.version.cuda},"
    if not driver.serves(version, torch.version.cuda):
        needed = driver.FIRST_DRIVER[int(torch.version.cuda.split(".")[0])]
        return f"{fault} needs driver {needed} or newer"
    return f"{fault} sees no GPU"


def _with_remedy(fault: str, cards: list[tuple[int, int]]) -> str:
    anyway = "WHISPER_CPU=1 in the environment goes on without the GPU."
    if is_hosted():
        return f"{fault}: take another GPU (T4, say) in the runtime's settings. {anyway}"
    version = driver.driver_version()
    wheel = driver.fitting_wheel(version, cards)
    if wheel is None:
        return (
            f"{fault}: no current PyTorch serves driver {version}: update it, or rent a host with "
            f"driver 580 (CUDA 13) or newer. {anyway}"
        )
    made_for = torch.version.cuda or ""
    ours = {"": "13", driver.CUDA_12_6.index: "12.6", driver.CUDA_12_8.index: "12.8"}[wheel.index]
    if made_for and (made_for == ours or (made_for.split(".")[0] == ours == "13")):
        return (
            f"{fault}, although they fit: does `nvidia-smi` list a card? A container needs "
            f"`docker run --gpus all`, a Slurm job `--gpus=1`. {anyway}"
        )
    pinned = wheel.torch if "=" in wheel.torch else f"torch=={torch.__version__.split('+')[0]}"
    index = f" --index-url {wheel.index}" if wheel.index else ""
    pip = f"{sys.executable} -m pip"
    return (
        f"{fault}: run `{pip} uninstall --yes torch && {pip} install '{pinned}'{index}`, "
        f"then start anew. {anyway}"
    )
