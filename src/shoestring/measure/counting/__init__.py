"""What code computes and moves: counts, how they are shown, kept and compared."""
