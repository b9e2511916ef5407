"""The reference of the calibration file names every key that one can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl100_contracts.calibration import Board, CameraCalibration, LensIntrinsics, Residuals

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "calibration.md"
MODELS = (CameraCalibration, Board, LensIntrinsics, Residuals)


@pytest.mark.parametrize("key", sorted({key for model in MODELS for key in model.model_fields}))
def test_key_is_documented(key: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert any(form in text for form in (f"`{key}`", f".{key}`", f"`{key}."))
