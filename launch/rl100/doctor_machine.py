"""Checks of ``rl100 doctor`` on the machine: inference, training, cameras, real time, space."""

from __future__ import annotations

import resource
import shutil
from importlib import metadata
from pathlib import Path

from rl100.doctor import Finding, Status, has_module
from rl100.shared_memory import MIB, left_behind
from rl100_contracts.errors import ContractError

GIB = 1024**3


def check_onnxruntime() -> list[Finding]:
    """Which execution providers the policy can run on."""
    if not has_module("onnxruntime"):
        advice = "install onnxruntime (or onnxruntime-gpu); make setup does it"
        return [Finding("onnx runtime", Status.MISSING, "not installed", advice)]
    import onnxruntime

    # Azure's provider calls a remote service and never runs a local model.
    providers = [p for p in onnxruntime.get_available_providers() if not p.startswith("Azure")]
    names = ", ".join(p.removesuffix("ExecutionProvider") for p in providers)
    found = f"{onnxruntime.__version__}: {names}"
    if _has_gpu() and providers == ["CPUExecutionProvider"]:
        advice = "this machine has an NVIDIA GPU: install onnxruntime-gpu to use it"
        return [Finding("onnx runtime", Status.NOTE, found, advice)]
    return [Finding("onnx runtime", Status.OK, found)]


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def check_torch() -> list[Finding]:
    """Which build of torch is installed. Not imported: that takes seconds."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        advice = "only training needs it; make setup installs it"
        return [Finding("torch", Status.WARNING, "not installed", advice)]
    label = version.partition("+")[2]
    # A wheel without a label is the CUDA build on Linux; distributions' builds name the library.
    bundled = any(
        (dist.metadata["Name"] or "").lower().startswith("nvidia-cuda-runtime")
        for dist in metadata.distributions()
    )
    cuda = label.startswith("cu") or (not label and bundled)
    found = f"{version}, {'CUDA' if cuda else 'CPU'} build"
    if cuda and not _has_gpu():
        advice = "no NVIDIA device here: training runs on the CPU"
        return [Finding("torch", Status.NOTE, found, advice)]
    if not cuda and _has_gpu():
        advice = "this machine has an NVIDIA GPU: a CUDA build trains faster"
        return [Finding("torch", Status.NOTE, found, advice)]
    return [Finding("torch", Status.OK, found)]


def _check_realsense() -> Finding:
    from rl100_perception.realsense import load_library

    try:
        rs = load_library()
    except ContractError as error:
        return Finding("realsense", Status.NOTE, "not usable", str(error))
    info = rs.camera_info
    found = [
        f"{device.get_info(info.name)} (serial number {device.get_info(info.serial_number)})"
        for device in rs.context().query_devices()
    ]
    if not found:
        advice = "plug one in (USB 3), or use a camera driver's topics"
        return Finding("realsense", Status.NOTE, "no camera", advice)
    return Finding("realsense", Status.OK, ", ".join(found))


def check_cameras() -> list[Finding]:
    """RealSense cameras and other video devices."""
    findings = []
    if not has_module("pyrealsense2"):
        advice = "only for RealSense cameras without a ROS driver: pip install pyrealsense2"
        findings.append(Finding("realsense", Status.NOTE, "pyrealsense2 not installed", advice))
    else:
        findings.append(_check_realsense())
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    status = Status.OK if devices else Status.NOTE
    findings.append(Finding("video devices", status, ", ".join(devices) or "none"))
    return findings


def _limit(number: int) -> str:
    soft, _ = resource.getrlimit(number)
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def check_real_time() -> list[Finding]:
    """Whether nodes may ask for real-time priority, and how the CPU is clocked."""
    kernel = Path("/sys/kernel/realtime")
    rt_kernel = kernel.is_file() and kernel.read_text().strip() == "1"
    findings = [Finding("kernel", Status.OK, "PREEMPT_RT" if rt_kernel else "stock")]
    rtprio = _limit(resource.RLIMIT_RTPRIO) if hasattr(resource, "RLIMIT_RTPRIO") else "0"
    memlock = _limit(resource.RLIMIT_MEMLOCK)
    may = rtprio not in ("0",) and (memlock == "unlimited" or int(memlock) >= 512 * MIB)
    amount = memlock if memlock == "unlimited" else f"{int(memlock) / MIB:g} MiB"
    findings.append(
        Finding(
            "real time",
            Status.OK if may else Status.NOTE,
            f"rtprio {rtprio}, memlock {amount}",
            ""
            if may
            else "on a robot: raise rtprio and memlock in /etc/security/limits.d and log in again",
        )
    )
    governors = {
        path.read_text().strip()
        for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    }
    if governors:
        fast = governors == {"performance"}
        findings.append(
            Finding(
                "cpu governor",
                Status.OK if fast else Status.NOTE,
                ", ".join(sorted(governors)),
                ""
                if fast
                else "'performance' gives steadier control: cpupower frequency-set -g performance",
            )
        )
    return findings


def check_disc() -> list[Finding]:
    """Free space where episodes are written."""
    free = shutil.disk_usage(".").free
    found = f"{free / GIB:.1f} GiB free in {Path.cwd()}"
    if free < GIB:
        return [Finding("disc", Status.MISSING, found, "free at least 1 GiB")]
    if free < 10 * GIB:
        advice = "recorded depth images take about 1 GiB per minute at 640x480 and 30 Hz"
        return [Finding("disc", Status.NOTE, found, advice)]
    return [Finding("disc", Status.OK, found)]


def check_shared_memory() -> list[Finding]:
    """Size of /dev/shm, through which large messages pass."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return [Finding("shared memory", Status.WARNING, "no /dev/shm", "messages use UDP instead")]
    total = shutil.disk_usage(path).total
    found = f"{total / MIB:.0f} MiB in {path}"
    advice = "each node takes 64 MiB; in a container use --ipc=host or --shm-size=1g"
    if total < 64 * MIB:
        return [Finding("shared memory", Status.MISSING, found, advice)]
    if total < GIB:
        return [Finding("shared memory", Status.WARNING, found, advice)]
    count, size = left_behind(path)
    if count:
        found += f", {size / MIB:.0f} MiB of it held for {count} nodes that were killed"
        advice = "rl100 up frees it when it starts"
        return [Finding("shared memory", Status.NOTE, found, advice)]
    return [Finding("shared memory", Status.OK, found)]
