"""Rematerialisation held against its targets and against what torch offers."""
