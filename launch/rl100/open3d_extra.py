"""Open3D, which is an optional extra (``make open3d``)."""

from __future__ import annotations

from typing import Any

from rl100_perception.libusb import provide_libusb


def import_open3d() -> Any:
    """The module; raises ImportError when it is not installed, or a library of it is missing."""
    provide_libusb()
    import open3d

    return open3d


def open3d_or_none() -> Any | None:
    """The module, or None where it cannot be imported."""
    try:
        return import_open3d()
    except ImportError:
        return None
