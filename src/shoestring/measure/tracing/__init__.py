"""One step, recorded: the tracer, what it follows, and what the allocator says beside it."""
