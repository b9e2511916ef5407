"""``rl100 view``: what the cameras give the policy, as a picture."""
