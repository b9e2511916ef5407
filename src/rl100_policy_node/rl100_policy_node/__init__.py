"""Runs a policy bundle at control rate: checks it, infers with ONNX Runtime, publishes chunks."""
