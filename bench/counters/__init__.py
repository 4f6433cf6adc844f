"""Our counter of FLOPs beside the others: who is right, and at which price."""
