"""Where a camera is: boards, hand-eye calibration, and how far to trust it. No ROS in here."""
