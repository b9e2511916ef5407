"""What the rl100 packages agree on: task, episode, bundle, observation assembly, command shaping.

Plain Python and NumPy: nothing here imports rclpy, torch or ONNX Runtime.
"""

from rl100_contracts.errors import ContractError

__all__ = ["ContractError"]
