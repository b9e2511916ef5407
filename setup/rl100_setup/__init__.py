"""The set-up of the workspace. Standard library only: it runs before anything is installed."""
