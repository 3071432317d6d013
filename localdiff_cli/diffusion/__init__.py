"""Conditional diffusion: schedule, samplers, branching and fusion as pure functions of tensors."""
