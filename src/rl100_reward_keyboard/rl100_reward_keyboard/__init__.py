"""Success, failure and reward keys for running episodes, over any terminal."""
