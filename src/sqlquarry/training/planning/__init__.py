"""Forecast a training run: tokens, steps, memory, time and money."""
