"""The DDIM schedule: the same numbers as diffusers' DDIMScheduler (η 0 and 1), exact log-probs."""

from __future__ import annotations

import pytest
import torch

from rl100_trainer.diffusion.schedule import DdimSchedule

diffusers = pytest.importorskip("diffusers", reason="only needed to compare the schedules")


@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_steps_match_diffusers(steps: int, eta: float, prediction: str) -> None:
    reference = diffusers.DDIMScheduler(
        100,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type=prediction,
    )
    reference.set_timesteps(steps)
    ours = DdimSchedule(train_steps=100, steps=steps, prediction=prediction)
    assert ours.timesteps.tolist() == reference.timesteps.tolist()
    torch.manual_seed(0)
    sample = torch.randn(8, 4, 2)
    for k, time in enumerate(reference.timesteps):
        output, noise = torch.randn_like(sample), torch.randn_like(sample)
        expected = reference.step(output, time, sample, eta=eta, variance_noise=noise).prev_sample
        sample = ours.step(output, sample, k, noise, eta).sample
        torch.testing.assert_close(sample, expected, atol=1e-5, rtol=1e-5)
        sample = expected


def test_add_noise_matches_diffusers() -> None:
    reference = diffusers.DDIMScheduler(100, beta_schedule="squaredcos_cap_v2")
    ours = DdimSchedule()
    torch.manual_seed(0)
    clean, noise = torch.randn(100, 4, 2), torch.randn(100, 4, 2)
    times = torch.arange(100)
    expected = reference.add_noise(clean, noise, times)
    torch.testing.assert_close(ours.add_noise(clean, noise, times), expected, atol=1e-5, rtol=1e-5)


def test_log_prob_is_that_of_a_normal_distribution() -> None:
    schedule = DdimSchedule(sigma_min=0.05, sigma_max=0.4)
    torch.manual_seed(0)
    for k in range(schedule.steps):
        output, sample, noise = torch.randn(3, 8, 4, 2)
        step = schedule.step(output, sample, k, noise)
        expected = torch.distributions.Normal(step.mean, step.sigma).log_prob(step.sample)
        torch.testing.assert_close(schedule.log_prob(step.sample, step.mean, k), expected)


def test_sigma_is_clipped_and_a_raised_sigma_stays_finite() -> None:
    schedule = DdimSchedule(sigma_min=0.3, sigma_max=0.6)
    assert float(schedule.sigma.min()) == pytest.approx(0.3)
    assert float(schedule.sigma.max()) == pytest.approx(0.6)
    sample = torch.randn(4, 1, 2)
    last = schedule.steps - 1
    step = schedule.step(torch.randn_like(sample), sample, last, torch.zeros_like(sample))
    assert torch.isfinite(step.sample).all()


def test_folded_steps_equal_single_ones() -> None:
    schedule = DdimSchedule(sigma_min=0.01)
    torch.manual_seed(0)
    output, sample = torch.randn(2, schedule.steps, 4, 2)
    folded = schedule.mean(output, sample, torch.arange(schedule.steps))
    for k in range(schedule.steps):
        single = schedule.mean(output[k : k + 1], sample[k : k + 1], k)
        torch.testing.assert_close(folded[k : k + 1], single)


def test_too_many_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        DdimSchedule(train_steps=10, steps=6)
