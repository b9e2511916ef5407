"""Teleoperation by keyboard and joystick, and the episode recorder."""
