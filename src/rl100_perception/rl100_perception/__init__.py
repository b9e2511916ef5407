"""Depth images to the point cloud that the policy sees: exactly N points in the base frame."""
