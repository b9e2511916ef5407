"""pyrealsense2 and Open3D are linked to libusb-1.0, which many machines don't have."""

from __future__ import annotations

import ctypes
import ctypes.util


def provide_libusb() -> None:
    """Load the libusb of the package ``libusb-package`` where the system has none.

    Call it before the import of a module that is linked to it.
    """
    if ctypes.util.find_library("usb-1.0"):
        return
    try:
        import libusb_package
    except ImportError:
        return  # then the import that follows says what is missing
    ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
