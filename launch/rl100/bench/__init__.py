"""``rl100 bench``: measurements with their uncertainty, as a table and as JSON."""
