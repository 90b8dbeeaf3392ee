"""Colab and Kaggle: runtimes with packages of their own, and where results survive them."""

import os
import sys
from pathlib import Path

DRIVE = Path("/content/drive")  # where Colab mounts Google Drive
COLAB_DISK = Path("/content/local")  # fast, and lost with the runtime


def in_colab() -> bool:
    """Tell whether this is a Colab runtime."""
    return "google.colab" in sys.modules


def in_kaggle() -> bool:
    """Tell whether this is a Kaggle notebook: its image is Colab's, without `google.colab`."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def is_hosted() -> bool:
    """Tell whether PyTorch and the kernel belong to the runtime, and must stay as they are."""
    return in_colab() or in_kaggle()


def mount_drive(*paths: str | Path) -> None:
    """Mount Google Drive if this is Colab and one of `paths` lies in it; elsewhere do nothing.

    Raises:
        OSError: Drive was not mounted, or a path looks like one of Drive's and is not.
    """
    for path in map(str, paths) if in_colab() else ():
        # "drive/MyDrive" would be a folder of the clone, made in silence and lost with it.
        place = path[: path.find("MyDrive") + len("MyDrive")]
        if "MyDrive" in path and not Path(path).is_relative_to(DRIVE) and not Path(place).exists():
            raise OSError(f'"{path}" is not in Google Drive, which is mounted as {DRIVE}/MyDrive.')
    inside = [path for path in paths if Path(path).is_relative_to(DRIVE)]
    if in_colab() and inside and not (DRIVE / "MyDrive").exists():
        from google.colab import drive  # exists on Colab alone

        try:
            drive.mount(str(DRIVE))
        except Exception as error:  # refused access, a window that was closed, a time-out
            raise OSError(
                f"Google Drive was not mounted ({error}), and {inside[0]} lies in it: run the cell "
                "again and allow access, or take a folder of this runtime, which is lost with it."
            ) from None


def quick_disk(folder: Path) -> Path:
    """Return a folder to work in: `folder` itself, or its copy on Colab's disk if it is in Drive.

    Drive takes minutes for a gigabyte and loses what was not synchronised when a runtime ends.
    """
    if in_colab() and folder.is_relative_to(DRIVE):
        return COLAB_DISK / folder.relative_to(DRIVE)
    return folder
