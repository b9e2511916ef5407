"""The set-up of the workspace, in standard-library Python (it runs before anything is installed)."""
