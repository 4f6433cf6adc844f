"""What `suggest` takes, beside the best of a grid of learning rates."""
