"""Settings of all tests."""

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # the Meta-World extra's environment: its tests do without
    pass
else:
    # Tests assert no timing: on a busy machine an example may take any time.
    settings.register_profile("rl100", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("rl100")
