"""The episode recorder: ``session`` decides (no ROS), ``node`` connects it to the graph."""
