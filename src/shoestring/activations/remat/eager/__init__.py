"""Rematerialisation without capture: operations of a forward are recorded and run again."""
