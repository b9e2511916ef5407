"""The command gateway: the only publisher of robot commands."""
