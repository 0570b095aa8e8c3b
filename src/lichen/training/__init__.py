"""Training: data, loss, loop."""
