"""Other methods to compare with, on the same policies, worlds and data."""
