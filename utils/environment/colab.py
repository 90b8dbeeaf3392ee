"""Colab: a disk that dies with the runtime, and Google Drive, which is slow and stays."""

import sys
from pathlib import Path

DRIVE = Path("/content/drive")  # where Colab mounts Google Drive
COLAB_DISK = Path("/content/local")  # quick, and gone with the runtime


def in_colab() -> bool:
    """Tell whether this is a Colab runtime."""
    return "google.colab" in sys.modules


def mount_drive(*paths: str | Path) -> None:
    """Mount Google Drive if this is Colab and one of `paths` lies in it; elsewhere do nothing."""
    inside = any(Path(path).is_relative_to(DRIVE) for path in paths)
    if in_colab() and inside and not (DRIVE / "MyDrive").exists():
        from google.colab import drive  # exists on Colab alone

        drive.mount(str(DRIVE))


def quick_disk(folder: Path) -> Path:
    """Return a folder to work in: `folder` itself, or for one in Drive its like on Colab's disk.

    Drive takes minutes for a gigabyte and loses what was not synchronised when a runtime ends.
    """
    if in_colab() and folder.is_relative_to(DRIVE):
        return COLAB_DISK / folder.relative_to(DRIVE)
    return folder
