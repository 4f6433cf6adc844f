"""Rematerialisation: what is kept from forward to backward, and what is computed again."""
