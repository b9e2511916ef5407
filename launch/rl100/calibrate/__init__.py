"""``rl100 calibrate``: boards, camera poses, and whether a pose still holds."""
