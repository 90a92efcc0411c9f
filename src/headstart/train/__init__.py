"""Heads, phases and the one training loop."""
