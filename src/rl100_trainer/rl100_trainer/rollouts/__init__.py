"""Where experience comes from: one interface over bags of the ROS graph and in-process worlds."""
